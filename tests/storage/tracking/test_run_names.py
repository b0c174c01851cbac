"""The names of runs: given names are kept, generated names are replaced by the step's."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.utils import name_utils

from storage.checkout import ROOT
from storage.tracking import runs
from tests.storage.tracking.test_runs import closed
from tests.stores import EXPERIMENT, Store


def name_of_run(step: str, name: str | None) -> str:
    """Open the run of a step under a name; return the name that it has at the end."""
    made = mlflow.start_run(run_name=name)
    mlflow.end_run("SCHEDULED")  # the state in which `mlflow run` leaves it to the step
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_RUN_ID", made.info.run_id)
        with runs.StepRun(step, "Ada"):
            pass
    return str(closed(made.info.run_id).info.run_name)


@pytest.mark.parametrize(
    "name", ["baseline-green-2023", "main", "night-run-7", "fearless-fox", "a b", "xgb-deep-01"]
)
def test_a_name_that_a_person_gave_is_kept(store: Store, name: str) -> None:
    assert name_of_run("main", name) == name


def test_a_name_that_mlflow_made_up_gives_way_to_the_step(store: Store) -> None:
    assert {name_of_run("main", None) for _ in range(5)} == {"main"}


def test_a_given_name_is_kept_even_where_mlflow_might_have_made_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{name_utils._GENERATOR_PREDICATES[0]}-{name_utils._GENERATOR_NOUNS[0]}-12"
    assert name_of_run("main", name) == "main"
    for words in (["--run-name", name], [f"--run-name={name}"]):
        above = SimpleNamespace(cmdline=partial(list, ["mlflow", "run", ".", *words]))
        with monkeypatch.context() as patch:
            patch.setattr("psutil.Process.parents", lambda _, above=above: [above])
            assert name_of_run("main", name) == name
            assert name_of_run("main", f"{name}3") == "main"


MLPROJECT = """
name: tiny
entry_points:
  main:
    command: "python step.py"
"""
STEP = """
from storage.tracking import runs
with runs.StepRun("main", "Ada"):
    pass
"""


def test_the_name_that_mlflow_run_was_given_survives(store: Store, tmp_path: Path) -> None:
    # the kind of name that MLflow generates
    name = f"{name_utils._GENERATOR_PREDICATES[1]}-{name_utils._GENERATOR_NOUNS[1]}-7"
    (tmp_path / "MLproject").write_text(MLPROJECT)
    (tmp_path / "step.py").write_text(STEP)
    command = [sys.executable, "-m", "mlflow", "run", str(tmp_path), "--env-manager", "local"]
    before = set(store.runs())
    subprocess.run(
        [*command, "--run-name", name, "--experiment-name", EXPERIMENT],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    (run_id,) = set(store.runs()) - before
    assert mlflow.get_run(run_id).info.run_name == name
