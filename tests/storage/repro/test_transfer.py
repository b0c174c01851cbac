"""A pipeline from one store into another: whole, once, and nothing that was changed on its way."""

import json
import os
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any, NamedTuple
from unittest.mock import patch

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from storage import UserError
from storage.repro import reuse, verify
from storage.repro.step_key import StepKey
from storage.repro.transfer import __main__ as transfer
from storage.repro.transfer import export_file
from storage.repro.transfer.export_file import check_folder, check_path, opened
from storage.repro.transfer.id_map import IdMap
from storage.repro.transfer.importing import Import
from storage.repro.transfer.versions import settle_aliases
from storage.tracking import doubles, stale_runs, tags
from storage.tracking.datasets import HashedDataset, artifact_source, log_datasets, log_scores
from storage.tracking.registry import PROMOTE, Registry
from tests.stores import EXPERIMENT, Store

MODEL = "transferred"
SHA256 = "c0ffee" + "0" * 58


class Exported(NamedTuple):
    """A pipeline of the tests' store, and its export."""

    run_id: str
    path: Path


MADE: dict[str, Exported] = {}  # by the tests' store: once for all of them


@pytest.fixture
def exported(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    if store.uri not in MADE:
        run_id = make_pipeline()
        path = tmp_path_factory.mktemp("exported") / "pipeline.zip"
        transfer.main(["export", run_id, str(path)])
        MADE[store.uri] = Exported(run_id, path)
    return MADE[store.uri]


def make_pipeline() -> str:
    """Leave a pipeline of one search with a trial and a model that is champion."""
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
                held.describe(number, {tags.PIPELINE: main}, f"Of run {main[:8]}…")
                held.promote(number, action=PROMOTE, why="it is the first")
                held.describe_model("Minutes of a trip.")
            named = {tags.MODEL_NAME: MODEL, tags.VERSION: number, tags.CHAMPION_VERSION: number}
            mlflow.set_tags(named)
            # as mlflow run does, with a file of parameters
            noted = {"refit": "train_valid", "judge_by": "'planned'", "max_rmse": "9"}
            mlflow.log_params(noted | {"config.refit": "train", "config.source": "ana's"})
        ids = {"preprocess": preprocess, "baseline": hpo, "hpo": hpo, "register": register}
        mlflow.set_tags({tags.RUN_IDS[name]: run_id for name, run_id in ids.items()})
        link = f"[hpo](#/experiments/9/runs/{hpo})"
        mlflow.set_tag(tags.NOTE, link)
        mlflow.log_text(link, tags.REPORT)
    return main


class below:  # noqa: N801  # reads as what it is
    """A run below the active one; its id."""

    def __init__(self, name: str, marks: dict[Any, str]) -> None:
        self.name, self.marks = name, marks

    def __enter__(self) -> str:
        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        marks = {"developer": "ana", **self.marks}
        self.run = mlflow.start_run(
            experiment_id=experiment.experiment_id, run_name=self.name, nested=True, tags=marks
        )
        return str(self.run.info.run_id)

    def __exit__(self, *error: object) -> None:
        mlflow.end_run("FAILED" if error[0] else "FINISHED")


class step(below):  # noqa: N801
    """A run of a step, with the key and the outputs by which it is found again."""

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
    """Log a folder as a model, and a score that belongs to it and to its data set."""

    def save(path: str, mlflow_model: Model) -> None:
        Path(path, "__pycache__").mkdir(parents=True)
        Path(path, "__pycache__", "model.pyc").write_text("compiled here")
        Path(path, "model.json").write_text("{}")
        mlflow_model.save(f"{path}/MLmodel")

    marks = {tags.RUN_IDS["preprocess"]: preprocess}
    uri = doubles.log_model_once(run_id, "tree", save, params={"depth": "3"}, marks=marks)
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
    """Point MLflow at another store, which has no runs."""
    made = make_other(store, tmp_path)
    point_at(made, monkeypatch)
    return made


def make_other(store: Store, folder: Path) -> Store:
    """Make a store without runs; a copy, for making its tables takes longer."""
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
    mlflow.set_tracking_uri(None)  # the environment decides
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "team")


IMPORTED: dict[str, Store] = {}  # by the tests' store


@pytest.fixture
def imported(
    exported: Exported, store: Store, request: pytest.FixtureRequest, capsys: Any, monkeypatch: Any
) -> Store:
    """Point MLflow at a store that the export was imported into, which nobody changes."""
    if store.uri not in IMPORTED:
        folder = request.getfixturevalue("tmp_path_factory").mktemp("imported")
        IMPORTED[store.uri] = make_other(store, folder)
        point_at(IMPORTED[store.uri], monkeypatch)
        import_here(exported.path, capsys)
    point_at(IMPORTED[store.uri], monkeypatch)
    return IMPORTED[store.uri]


def import_here(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Import a file; gives the lines that were said."""
    capsys.readouterr()
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)  # of an import before, as after a fresh login
    transfer.main(["import", str(path)])
    return capsys.readouterr().out.splitlines()


class Everything(NamedTuple):
    """All that stands in a store."""

    runs: dict[str, Run]  # by the id where they ran
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


def test_all_that_a_pipeline_is_comes_along_once_however_often_it_is_imported(
    exported: Exported, store: Store, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    said = import_here(exported.path, capsys)
    assert "6 runs, 1 model, 1 version" in said[0]
    assert said[0].endswith("6 of the runs were not there yet")
    first = everything()
    assert first.counts() == (6, 1, 1, 1)
    there, here = MlflowClient(store.uri), MlflowClient()
    before = facts(there, there.get_run(exported.run_id), store.uri)
    main = first.runs[exported.run_id]
    after = facts(here, main, other.uri)
    rows = [verify.compare_runs(name, before[name], after.get(name)) for name in before]
    assert [row.differences for row in rows] == [[] for _ in rows]
    assert sum(row.n_facts for row in rows) >= 4
    for run_id, run in first.runs.items():
        origin = there.get_run(run_id)
        assert run.data.params == origin.data.params
        assert (run.info.start_time, run.info.end_time, run.info.status, run.info.run_name) == (
            *(origin.info.start_time, origin.info.end_time),
            *(origin.info.status, origin.info.run_name),
        )
        assert run.data.tags[tags.ORIGIN_STORE] == store.uri
        for name in origin.data.metrics:
            assert here.get_metric_history(run.info.run_id, name) == there.get_metric_history(
                run_id, name
            )
    assert import_here(exported.path, capsys)[0].endswith(" 0 of the runs were not there yet")
    assert [*map(str, everything())] == [*map(str, first)]


def facts(client: MlflowClient, main: Run, uri: str) -> dict[str, dict[str, str]]:
    mlflow.set_tracking_uri(uri)  # which artifacts are read from
    return {name: verify.comparable_facts(client, run) for name, run in verify.parts(client, main)}


def test_what_names_runs_and_models_names_those_here(
    exported: Exported, imported: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    found = everything()
    by_step = {run.data.tags.get("step", run.info.run_name): run for run in found.runs.values()}
    ids = {name: run.info.run_id for name, run in by_step.items()}
    main, ensemble, (model,) = by_step["main"], by_step["ensemble"], found.models
    assert main.data.tags["hpo_run_id"] == ids["hpo"]
    experiment = main.info.experiment_id
    assert main.data.tags[tags.NOTE] == f"[hpo](#/experiments/{experiment}/runs/{ids['hpo']})"
    folder = imported.folder / "artifacts" / main.info.run_id / "artifacts"
    assert (folder / "report.html").read_text() == main.data.tags[tags.NOTE]
    assert by_step["trial 0"].data.tags["mlflow.parentRunId"] == ids["hpo"]
    assert ensemble.data.tags["model_uri"] == model.model_uri
    assert model.source_run_id == ids["ensemble"]
    assert model.tags["preprocess_run_id"] == ids["preprocess"]
    assert model.params == {"depth": "3"}
    assert [(m.key, m.value, m.dataset_name, m.run_id) for m in model.metrics] == [
        ("rmse", 5.5, "valid", ids["ensemble"])
    ]
    (data,) = ensemble.inputs.dataset_inputs
    assert ids["preprocess"] in data.dataset.source
    assert Path(mlflow.data.get_source(data).load()).read_text() == "trips"
    about = Model.load(model.artifact_location.removeprefix("file://"))
    assert (about.model_id, about.run_id) == (model.model_id, ids["ensemble"])
    assert about.artifact_path == model.artifact_location
    (version,) = found.versions
    assert version.source == model.model_uri == version.tags["model_uri"]
    assert version.tags["pipeline_run_id"] == ids["main"]
    assert version.description == f"Of run {ids['main'][:8]}…"


def test_an_imported_step_is_reused_as_if_it_had_run_here(
    exported: Exported, imported: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, experiment = everything().runs, mlflow.get_experiment_by_name("team").experiment_id
    by_step = {run.data.tags.get("step"): run.info.run_id for run in runs.values()}
    for name in ("preprocess", "hpo", "register"):
        # what a key says of a run's id says it of the id here
        inputs = {"preprocess": by_step["preprocess"]} if name == "preprocess" else {}
        decision = reuse.find_reusable(key_of(name, inputs), experiment)
        assert decision.run is not None, decision.reason
        assert decision.run.info.run_id == by_step[name]
    (model,) = everything().models
    uri = model.artifact_location.removeprefix("file://")
    Path(uri, "model.json").write_text("{ }")
    lost = reuse.find_reusable(key_of("hpo", {}), experiment).reason
    Path(uri, "model.json").write_text("{}")
    assert lost.startswith(f"{model.model_uri}/model.json of ")


def test_a_step_that_ran_in_another_pipeline_comes_with_it_and_the_rest_of_that_when_it_comes(
    exported: Exported,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reused = mlflow.get_run(exported.run_id).data.tags["preprocess_run_id"]
    with step("main") as later:
        mlflow.set_tag("preprocess_run_id", reused)
    path = tmp_path / "later.zip"
    transfer.main(["export", later, str(path)])
    point_at(make_other(store, tmp_path), monkeypatch)
    import_here(path, capsys)
    part = everything().runs
    assert set(part) == {later, reused, exported.run_id}
    first = part[exported.run_id]
    assert part[reused].data.tags["mlflow.parentRunId"] == first.info.run_id
    assert part[later].data.tags["preprocess_run_id"] == part[reused].info.run_id
    assert first.data.tags[tags.IMPORTED] == tags.PART
    assert import_here(exported.path, capsys)[0].endswith(" 5 of the runs were not there yet")
    whole = everything()
    assert whole.counts() == (7, 1, 1, 1)
    first = whole.runs[exported.run_id]
    assert first.data.tags[tags.IMPORTED] == tags.WHOLE
    ids = {run.info.run_id for run in whole.runs.values()}
    assert {first.data.tags[name] for name in tags.RUN_IDS.values()} <= ids
    assert import_here(path, capsys)[0].endswith(" 0 of the runs were not there yet")


def test_the_way_home_changes_nothing(
    exported: Exported,
    store: Store,
    imported: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    back = tmp_path / "back.zip"
    transfer.main(["export", everything().runs[exported.run_id].info.run_id, str(back)])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    before = str(store.runs()), store.registered()
    said = import_here(back, capsys)
    assert said[0].endswith(" 0 of the runs were not there yet")
    assert f" is {exported.run_id} in experiment {EXPERIMENT} " in said[-1]
    assert (str(store.runs()), store.registered()) == before


WRITES = (  # in the order in which an import comes to them
    *("create_run", "create_logged_model", "log_model_artifacts", "finalize_logged_model"),
    *("set_registered_model_tag", "update_model_version", "set_registered_model_alias"),
    *("set_model_version_tag", "log_artifacts", "log_inputs", "log_outputs", "log_batch"),
    "set_terminated",
)


class Died(BaseException):
    """The end of a process, whose last words nobody hears."""


def dying(name: str) -> Any:
    """Have a method of the client do its work, and die before it can tell."""
    method = getattr(MlflowClient, name)

    def call(self: MlflowClient, *args: Any, **options: Any) -> Any:
        method(self, *args, **options)
        raise Died

    return patch.object(MlflowClient, name, call)


def test_an_import_that_dies_again_and_again_ends_without_doubles(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    for name in WRITES:
        with pytest.raises(Died), dying(name):
            import_here(exported.path, capsys)
        for run in everything().runs.values():  # as the next pipeline does
            if run.info.status == "RUNNING":
                assert stale_runs.close_run(client, run.info.run_id, "its process ended")
    import_here(exported.path, capsys)
    found = everything()
    assert found.counts() == (6, 1, 1, 1)
    assert {run.info.status for run in found.runs.values()} == {"FINISHED"}
    assert [run for run in found.runs.values() if tags.FAILURE in run.data.tags] == []
    assert [len(model.metrics) for model in found.models] == [1]
    trial = next(run for run in found.runs.values() if tags.TRIAL in run.data.tags)
    assert tags.NOTE not in trial.data.tags
    assert len(client.get_metric_history(trial.info.run_id, tags.CURVE)) == 3
    assert client.get_registered_model(MODEL).aliases == {"champion": 1}
    history = Registry(MODEL, run_id="", developer="").history()
    assert [entry.version for entry in history if entry.state == "done"] == ["1"]


def test_two_imports_of_a_file_at_once_make_no_doubles(
    exported: Exported,
    other: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    together, search = Barrier(2), Import._search_run

    def search_together(self: Import, record: Any) -> Any:
        with suppress(BrokenBarrierError):  # one waits for the other
            together.wait(timeout=1)
        return search(self, record)

    monkeypatch.setattr(Import, "_search_run", search_together)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: transfer.main(["import", str(exported.path)]), range(2)))
    assert everything().counts() == (6, 1, 1, 1)
    assert capsys.readouterr().out.count(" 0 of the runs were not there yet") == 1
    left = MlflowClient().get_experiment_by_name("team").tags
    assert [tag for tag in left if tag.startswith(tags.IMPORTING)] == []


def test_an_import_that_died_goes_on_in_no_other_experiment(
    exported: Exported,
    other: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Died), dying("create_run"):
        import_here(exported.path, capsys)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    with pytest.raises(SystemExit) as left:
        import_here(exported.path, capsys)
    assert left.value.code == 2
    assert "Go on there with MLFLOW_EXPERIMENT_NAME=team, or delete" in capsys.readouterr().err
    mine = MlflowClient().get_experiment_by_name("mine")
    assert MlflowClient().search_runs([mine.experiment_id]) == []


# --- who is champion


def test_a_champion_that_is_there_stays_and_a_line_says_how_to_measure_both(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, "nowhere")
    client.set_registered_model_alias(MODEL, "champion", "1")
    said = import_here(exported.path, capsys)
    assert client.get_registered_model(MODEL).aliases == {"champion": 1, "challenger": 2}
    assert Registry(MODEL, run_id="", developer="").history() == []
    assert "version 2 was champion there; here version 1 is, and stays. To have both" in said[1]
    runs = everything().runs.values()
    by_step = {run.data.tags.get("step"): run for run in runs}
    assert " -e register " in said[1]
    # of the same name, and made as it was there
    given = f"-P hpo_run_id={by_step['hpo'].info.run_id} -P model_name={MODEL} -P refit=train"
    given += " -P judge_by=planned"
    assert said[1].endswith(given)
    # what register says of versions, it says of those here
    marks = by_step["register"].data.tags
    assert (marks["version"], marks["champion_version"]) == ("2", "2")
    (version,) = (one for one in everything().versions if str(one.version) == "2")
    (entry,) = json.loads(version.tags[tags.ORIGIN_PROMOTIONS])
    assert (entry["version"], entry["why"]) == ("1", "it is the first")


def test_of_a_version_that_was_no_champion_a_line_says_how_to_measure_it(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient()
    version = client.create_model_version(client.create_registered_model(MODEL).name, "nowhere")
    with opened(exported.path) as file:
        record = file.manifest.versions[0].model_copy(update={"aliases": []})
        here = IdMap(client.get_experiment_by_name("Default"))
        held = Registry(MODEL, run_id="", developer="")
        (line,) = settle_aliases(held, version, record, file.manifest, here)
    assert "version 1 was not champion there, and there is none here" in line
    assert " -e register " in line
    assert client.get_registered_model(MODEL).aliases == {}


def test_an_alias_that_was_moved_since_is_not_moved_back(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    import_here(exported.path, capsys)
    client = MlflowClient()
    client.delete_registered_model_alias(MODEL, "champion")
    import_here(exported.path, capsys)
    assert client.get_registered_model(MODEL).aliases == {}


# --- refusals, each before anything is written


def refusal(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        transfer.main([*words])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


Change = Callable[[Path], None]


def rewrite(change: Callable[[dict[str, bytes]], None], comment: bool = True) -> Change:
    """Pack a zip again with other members."""

    def apply(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members, vouched = {n: archive.read(n) for n in archive.namelist()}, archive.comment
        change(members)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            archive.comment = vouched

    return apply


def edit(old: str, new: str, *, vouch: bool = True) -> Change:
    """Edit the manifest, and have it vouched for by who edits it."""

    def apply(path: Path) -> None:
        def change(members: dict[str, bytes]) -> None:
            text = members["manifest.json"].decode()
            assert old in text
            members["manifest.json"] = text.replace(old, new).encode()

        rewrite(change)(path)
        if vouch:
            with zipfile.ZipFile(path, "a") as archive:
                text = archive.read("manifest.json")
                digest = export_file.hashlib.sha256(text).hexdigest()
                archive.comment = f"{export_file.VOUCHED}{digest}".encode()

    return apply


def flip_an_artifact(members: dict[str, bytes]) -> None:
    name = next(name for name in members if members[name] == b"trips")
    members[name] = b"tripz"


def add(name: str, content: bytes = b"") -> Change:
    return rewrite(lambda members: members.update({name: content}))


def link(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(f"files/{'0' * 64}")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")


BAD = {
    "a byte of an artifact": (rewrite(flip_an_artifact), "data/train.parquet has other bytes"),
    "the manifest": (edit('"value": 5.5', '"value": 4.5', vouch=False), "manifest.json was edited"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "its end is cut off"),
    "half": (
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "its end is cut off",
    ),
    "a file more": (add("files/" + "1" * 64), "names other files than it holds"),
    "a file less": (
        rewrite(lambda members: members.pop(next(iter(members)))),
        "names other files than it holds",
    ),
    "a path upwards": (add("../x"), "it holds '../x', which no export does"),
    "an absolute path": (add("/tmp/x"), "it holds '/tmp/x'"),
    "a link": (link, "which no export does"),
    "a bomb": (add("files/" + "2" * 64, bytes(20_000_000)), "it would unpack to 20,"),
    "a text": (lambda path: path.write_text("run,rmse"), "is no export of a pipeline"),
    "empty": (lambda path: path.write_bytes(b""), "is no export of a pipeline"),
    "another zip": (
        rewrite(lambda members: members.pop("manifest.json")),
        "is no export of a pipeline: it has no manifest.json",
    ),
    "a newer format": (
        edit('"format": 1', '"format": 2'),
        "is of format 2, and this version of the project reads up to 1",
    ),
    "an artifact upwards": (
        edit('"data/train.parquet"', '"../train.parquet"'),
        "'../train.parquet' is no artifact's name",
    ),
    "code that was compiled": (
        edit('"data/train.parquet"', '"__pycache__/a.pyc"'),
        "'__pycache__/a.pyc' is no artifact's name",
    ),
    "a field more": (edit('"format": 1', '"format": 1, "more": 1'), "more: Extra inputs"),
    "no JSON": (edit('"format": 1', '"format": 1 1'), "manifest.json, : Invalid JSON"),
    "gone": (lambda path: path.unlink(), "cannot be read: No such file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_not_what_was_exported_is_one_line_and_no_store_is_touched(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(export_file, "ALLOWANCE", 1_000_000)  # so that a small bomb is one
    change, said = BAD[kind]
    path = tmp_path / "pipeline.zip"
    shutil.copy(exported.path, path)
    change(path)
    assert said in refusal("import", str(path), capsys=capsys)
    assert {*tmp_path.iterdir()} <= {path}


def test_no_byte_of_a_file_can_change_what_is_imported(exported: Exported, tmp_path: Path) -> None:
    whole, path = exported.path.read_bytes(), tmp_path / "pipeline.zip"
    with opened(exported.path) as file:
        manifest = file.manifest
    n_refused = 0
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            with opened(path) as file:
                assert file.manifest == manifest  # a date in the zip, say
        except UserError:
            n_refused += 1
    assert n_refused > len(range(0, len(whole), 37)) / 2


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "./a", "a\\b", "a\0", "a/__pycache__/b", "a/"]
)
def test_no_name_of_an_artifact_leads_out_of_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="is no artifact's name"):
        check_path(path)
    assert check_path("data/été 1.parquet") == "data/été 1.parquet"


def test_no_name_is_a_file_and_a_folder() -> None:
    with pytest.raises(ValueError, match="'a/b' is a file and a folder"):
        check_folder({"a/b": "1", "a/b/c": "2"})


def test_a_run_that_cannot_be_exported_is_one_line_and_leaves_no_file(
    store: Store, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.zip"
    unknown = "0" * 32
    assert f"No run '{unknown}' in the store {store.uri}" in refusal(
        "export", unknown, str(path), capsys=capsys
    )
    with below("by hand", {}) as run_id:
        mlflow.log_metric("rmse", 1)
    assert "is of no step of this project" in refusal("export", run_id, str(path), capsys=capsys)
    with step("main") as running:
        said = refusal("export", running, str(path), capsys=capsys)
        assert f"Run {running} of main is still RUNNING. Wait for it" in said
        with step("hpo") as below_it:
            pass
    MlflowClient().update_run(below_it, "RUNNING")
    assert f"Run {below_it} of hpo is still" in refusal("export", running, str(path), capsys=capsys)
    MlflowClient().update_run(below_it, "FINISHED")
    MlflowClient().delete_run(running)
    assert "is deleted. Run `mlflow runs restore" in refusal(
        "export", running, str(path), capsys=capsys
    )
    assert [*tmp_path.iterdir()] == []
    again = refusal("export", exported.run_id, str(exported.path), capsys=capsys)
    assert again.endswith("is there already. Pass another FILE, or remove it.")
    for words in (["export"], ["export", "", "x"], ["import", ""], ["import", "a", "b"]):
        assert "Name the " in refusal(*words, capsys=capsys)


def test_no_room_and_no_right_to_write_a_file_is_one_line(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(28, "No space left on device")
    with patch.object(zipfile.ZipFile, "write", side_effect=full):
        said = refusal("export", exported.run_id, str(tmp_path / "x.zip"), capsys=capsys)
    assert "cannot be written: No space left on device. Pass a FILE where there is room" in said
    nowhere = refusal("export", exported.run_id, str(tmp_path / "no" / "x"), capsys=capsys)
    assert "cannot be written: No such file or directory" in nowhere
    assert [*tmp_path.iterdir()] == []


def test_a_server_that_refuses_a_file_is_no_disk_that_does(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = requests.Response()
    answer.status_code, answer.url, answer._content = 403, "http://127.0.0.1/api", b"{}"
    no = requests.HTTPError("403 Client Error: Forbidden", response=answer)
    with patch("storage.tracking.artifacts.get_artifact_repository", side_effect=no):
        said = refusal("export", exported.run_id, str(tmp_path / "x.zip"), capsys=capsys)
    assert "403" in said
    assert "Pass a FILE" not in said


def test_a_model_that_was_deleted_is_named(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = MlflowException("Logged model with ID m-1 not found", RESOURCE_DOES_NOT_EXIST)
    with patch.object(MlflowClient, "get_logged_model", side_effect=gone):
        said = refusal("export", exported.run_id, str(tmp_path / "x.zip"), capsys=capsys)
    assert " was deleted since. Run the pipeline again." in said


def test_no_room_here_for_what_is_imported_is_one_line(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    full = OSError(28, "No space left on device", "/tmp/x")
    with patch("shutil.copyfileobj", side_effect=full):
        said = refusal("import", str(exported.path), capsys=capsys)
    assert "No space left on device: /tmp/x. Make room there" in said
    assert everything().versions == []


def test_who_may_not_write_here_is_told_so_in_one_line(
    exported: Exported, other: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    denied = RestException({"error_code": "PERMISSION_DENIED", "message": "Permission denied"})
    with patch.object(MlflowClient, "create_run", side_effect=denied):
        said = refusal("import", str(exported.path), capsys=capsys)
    assert said.startswith("import: The server refuses (PERMISSION_DENIED: Permission denied).")
    assert "Ask for the permission" in said
