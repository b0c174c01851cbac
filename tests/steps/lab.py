"""Pipelines whose search ended with a candidate of known quality, for tests of later steps."""

import csv
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from sklearn.tree import DecisionTreeRegressor

from steps.common.candidates import Lineage, log_candidate, read_profiles, report_candidate
from steps.common.inputs import load_trips, log_inputs
from steps.common.results import read_preprocess
from storage.tracking import artifacts, runs
from taxi import features
from taxi.model import TripModel
from tests.entry import entry
from tests.stores import EXPERIMENT, Store

SIMULATED = "--source=simulated:2000"
# thresholds for models as small as these, which have no recipe to refit them with
REACHABLE = ("--max_rmse=12", "--min_r2=0", "--refit=train")


class Lab:
    """Makes pipelines with candidates of known quality, and runs steps on them."""

    def __init__(self, store: Store, capfd: Any) -> None:
        self.store, self.capfd = store, capfd
        self.client = MlflowClient(store.uri)
        self.experiment = self.client.get_experiment_by_name(EXPERIMENT).experiment_id

    def preprocess(self) -> Run:
        """Preprocess small months."""
        return self.run("preprocess", SIMULATED)[0]

    def step(self, step: str, preprocess: Run, depth: int | None, **tags: str) -> str:
        """Make a finished run of a step, whose candidate is a tree of this depth, or has none."""
        committed = {"git_dirty": "false", "mlflow.source.git.commit": "c0ffee"}
        tags = {"step": step, "developer": "Ada"} | committed | tags
        with mlflow.start_run(experiment_id=self.experiment, tags=tags) as run:
            result = read_preprocess(preprocess)
            described = log_inputs(result, {"train": "training", "valid": "validation"})
            if depth is not None:
                train, valid = (load_trips(result, split) for split in ("train", "valid"))
                encoder = features.fit_encoder("compact", train)
                tree = DecisionTreeRegressor(max_depth=depth, random_state=1)
                tree.fit(np.nan_to_num(encoder.transform_train(train)), train.trip_minutes)
                with runs.child_run("ensemble", {"model": "tree", "features": "compact"}):
                    profiles = read_profiles(result.run_id)
                    model = TripModel(result.dataset.taxi, encoder, [tree])
                    lineage = Lineage(step, "tree", "compact", result, tree.get_params())
                    report = report_candidate(model, valid)
                    log_candidate(model, report, profiles, lineage, described["valid"])
        return str(run.info.run_id)

    def register(self, name: str, *arguments: str, code: int = 0) -> tuple[Run, str]:
        """Run register; return its run and its last line of output."""
        run, lines = self.run("register", f"--model_name={name}", *arguments, code=code)
        return run, lines[-1]

    def run(self, step: str, *arguments: str, code: int = 0) -> tuple[Run, list[str]]:
        """Run a step that must end with this exit code; return its run and its lines of output."""
        self.capfd.readouterr()
        main = entry(step).main
        if code:
            with pytest.raises(SystemExit) as left:
                main(list(arguments))
            assert left.value.code == code
        else:
            main(list(arguments))
        (run, *_) = self.client.search_runs([self.experiment], f"tags.step = '{step}'")
        assert run.info.status == ("FAILED" if code == 2 else "FINISHED")
        out, err = self.capfd.readouterr()
        said = (err if code == 2 else out).splitlines()
        # with a server, MLflow prints the address of the run
        return run, [line for line in said if " View " not in line]

    def aliases(self, name: str) -> dict[str, str]:
        """Read the aliases of a registered model: alias -> version."""
        found = self.client.get_registered_model(name).aliases
        return {alias: str(version) for alias, version in found.items()}

    def version(self, name: str, version: str) -> Any:
        """Read a version."""
        return self.client.get_model_version(name, version)

    def table(self, run: Run, artifact: str) -> list[dict[str, str]]:
        """Read a table of a run."""
        text = artifacts.read_text(run.info.run_id, artifact)
        return list(csv.DictReader(text.splitlines()))


@pytest.fixture
def lab(store: Store, capfd: pytest.CaptureFixture[str]) -> Lab:
    return Lab(store, capfd)


class Pipelines:
    """Parameters that name the runs of pipelines, which are made once for all tests."""

    def __init__(self) -> None:
        self.preprocess: Run | None = None
        self.made: dict[Any, str] = {}

    def of(self, lab: Lab, depth: int | None, **tags: str) -> list[str]:
        """Return the parameters that name a pipeline whose best candidate has this depth."""
        self.preprocess = self.preprocess or lab.preprocess()
        for step, levels in (("baseline", None), ("hpo", depth)):
            key = (step, levels, *tags.items())
            if key not in self.made:
                self.made[key] = lab.step(step, self.preprocess, levels, **tags)
        hpo = self.made[("hpo", depth, *tags.items())]
        baseline = self.made[("baseline", None, *tags.items())]
        return [f"--baseline_run_id={baseline}", f"--hpo_run_id={hpo}", *REACHABLE]


@pytest.fixture(scope="session")
def pipelines() -> Pipelines:
    return Pipelines()


GOOD, BETTER, BAD = 2, 4, 1  # depths of a tree
