"""A pipeline in the tests' store, its export, and another store to import it into."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import Model

from storage.repro import reuse
from storage.repro.step_key import StepKey
from storage.repro.transfer import __main__ as transfer
from storage.tracking import duplicates, tags
from storage.tracking.datasets import HashedDataset, artifact_source, log_datasets, log_scores
from storage.tracking.registry import PROMOTE, Registry
from tests.stores import EXPERIMENT, Store

MODEL = "transferred"
SHA256 = "c0ffee" + "0" * 58


class Exported(NamedTuple):
    """A pipeline in the tests' store, and its export."""

    run_id: str
    path: Path


MADE: dict[str, Exported] = {}  # by the tests' store, so that each is made only once


@pytest.fixture
def exported(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    if store.uri not in MADE:
        run_id = make_pipeline()
        path = tmp_path_factory.mktemp("exported") / "pipeline.zip"
        transfer.main(["export", run_id, str(path)])
        MADE[store.uri] = Exported(run_id, path)
    return MADE[store.uri]


def make_pipeline() -> str:
    """Make a pipeline with a search of one trial, and a model that is champion."""
    with step("main") as main:
        with step("preprocess") as preprocess:
            mlflow.set_tag(tags.SHA256.of("train"), SHA256)
            mlflow.log_text("trips", "data/train.parquet")
        with step("hpo") as hpo:
            mlflow.set_tag(tags.SEARCH_KEY, "search")
            with below("trial 0", {tags.SEARCH_KEY: "search", tags.TRIAL: "0"}) as trial:
                mlflow.log_params({"max_leaves": 31})
                for round_, rmse in enumerate((7.5, 6.25, 6.125)):
                    mlflow.log_metric(tags.CURVE, rmse, step=round_)
            with below("ensemble", {tags.CANDIDATE: "true"}) as ensemble:
                uri = log_model(ensemble, preprocess)
            mlflow.log_text(f"trial,run_id\n0,{trial}\n", tags.TRIALS_TABLE)
            mlflow.log_metric("rmse", 0.1 + 0.2)
        with step("register") as register:
            held = Registry(MODEL, run_id=register, developer="ana")
            with held.lock():
                number = held.add_version(uri, SHA256)
                held.describe(
                    number, {tags.PIPELINE: main, tags.TAXI: "green"}, f"Of run {main[:8]}…"
                )
                held.promote(number, action=PROMOTE, why="it is the first")
                held.describe_model("Minutes of a trip.")
            named = {tags.MODEL_NAME: MODEL, tags.VERSION: number, tags.CHAMPION_VERSION: number}
            mlflow.set_tags(named)
            # like mlflow run with a parameter file
            noted = {"refit": "train_valid", "judge_by": "'planned'", "max_rmse": "9"}
            mlflow.log_params(noted | {"config.refit": "train", "config.source": "ana's"})
        ids = {"preprocess": preprocess, "baseline": hpo, "hpo": hpo, "register": register}
        mlflow.set_tags({tags.RUN_IDS[name]: run_id for name, run_id in ids.items()})
        link = f"[hpo](#/experiments/9/runs/{hpo})"
        mlflow.set_tag(tags.NOTE, link)
        mlflow.log_text(link, tags.REPORT)
    return main


class below:  # noqa: N801  # reads as what it is
    """A context manager: a child run of the active run; yields its id."""

    def __init__(self, name: str, tag_values: dict[Any, str]) -> None:
        self.name, self.tag_values = name, tag_values

    def __enter__(self) -> str:
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        tag_values = {"developer": "ana", **self.tag_values}
        self.run = mlflow.start_run(
            experiment_id=experiment.experiment_id, run_name=self.name, nested=True, tags=tag_values
        )
        return str(self.run.info.run_id)

    def __exit__(self, *error: object) -> None:
        mlflow.end_run("FAILED" if error[0] else "FINISHED")


class step(below):  # noqa: N801
    """The same for a run of a step, with the key and the outputs by which it is reused."""

    def __init__(self, name: str) -> None:
        super().__init__(name, {tags.STEP: name})

    def __enter__(self) -> str:
        run_id = super().__enter__()
        inputs = {"preprocess": run_id} if self.name == "preprocess" else {}
        reuse.tag_key(key_of(self.name, inputs))
        return run_id

    def __exit__(self, *error: object) -> None:
        reuse.record_outputs()
        super().__exit__(*error)


def key_of(name: str, inputs: dict[str, str]) -> StepKey:
    return StepKey(name, {"of": "test_transfer"}, inputs, {}, {})


def log_model(run_id: str, preprocess: str) -> str:
    """Log a folder as a model, and a score linked to the model and its data set."""

    def save(path: str, mlflow_model: Model) -> None:
        Path(path, "__pycache__").mkdir(parents=True)
        Path(path, "__pycache__", "model.pyc").write_text("compiled here")
        Path(path, "model.json").write_text("{}")
        mlflow_model.save(f"{path}/MLmodel")

    tag_values = {tags.RUN_IDS["preprocess"]: preprocess}
    uri = duplicates.log_model_once(
        run_id, "tree", save, params={"depth": "3"}, tag_values=tag_values
    )
    mlflow.set_tag(tags.MODEL_URI, uri)
    where = artifact_source(preprocess, "data/train.parquet")
    data = HashedDataset(name="valid", uri=where, sha256=SHA256, columns=None, n_rows=3)
    log_datasets([(data, "validation")])
    log_scores({"rmse": 5.5}, model_uri=uri, dataset=data)
    return uri


# --- the other store


@pytest.fixture
def other(
    exported: Exported, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    """Point MLflow at another store, without runs."""
    made = make_other(store, tmp_path)
    point_at(made, monkeypatch)
    return made


def make_other(store: Store, folder: Path) -> Store:
    """Make a store without runs, by copying, because creating its tables takes longer."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as copy:
        with closing(sqlite3.connect(store.folder / "mlflow.db")) as source:
            source.backup(copy)
        rows = copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        kept = {"alembic_version", "experiments", "workspaces"}
        for (table,) in rows:
            if table not in kept and not table.startswith("sqlite_"):
                copy.execute(f'DELETE FROM "{table}"')
        copy.commit()
    made = Store(f"sqlite:///{folder}/mlflow.db", folder)
    MlflowClient(made.uri).create_experiment("team", (folder / "artifacts").as_uri())
    return made


def point_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.set_tracking_uri(None)  # use the one that the environment sets
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")


IMPORTED: dict[str, Store] = {}  # by the tests' store


@pytest.fixture
def imported(
    exported: Exported, store: Store, request: pytest.FixtureRequest, capsys: Any, monkeypatch: Any
) -> Store:
    """Point MLflow at a store that the export was imported into; tests must not change it."""
    if store.uri not in IMPORTED:
        folder = request.getfixturevalue("tmp_path_factory").mktemp("imported")
        IMPORTED[store.uri] = make_other(store, folder)
        point_at(IMPORTED[store.uri], monkeypatch)
        import_here(exported.path, capsys)
    point_at(IMPORTED[store.uri], monkeypatch)
    return IMPORTED[store.uri]


def import_here(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Import a file; return the lines of output."""
    capsys.readouterr()
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)  # left by an earlier import in this process
    transfer.main(["import", str(path)])
    return capsys.readouterr().out.splitlines()


class Everything(NamedTuple):
    """All contents of a store."""

    runs: dict[str, Run]  # by the id in the store where they ran
    models: list[LoggedModel]
    versions: list[ModelVersion]

    def counts(self) -> tuple[int, ...]:
        n_inputs = sum(len(run.inputs.dataset_inputs) for run in self.runs.values())
        return len(self.runs), len(self.models), len(self.versions), n_inputs


def everything() -> Everything:
    client = MlflowClient()
    ids = [mlflow.get_experiment_by_name("team").experiment_id]
    found = client.search_runs(ids, max_results=1000)
    assert len({run.data.tags[tags.ORIGIN_RUN] for run in found}) == len(found)
    runs = {run.data.tags[tags.ORIGIN_RUN]: run for run in found}
    return Everything(runs, client.search_logged_models(ids), client.search_model_versions())
