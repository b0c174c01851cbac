"""The documented commands that monitor a champion, and the documented retraining job."""

import os
import subprocess
from typing import Any

import pytest
import yaml

from storage.checkout import ROOT
from tests.docs import readme_command
from tests.steps.lab import BETTER, GOOD, Lab, Pipelines

NAME = "nyc-taxi-duration"
HERE = "--env-manager local -P source=simulated:2000"
ANOTHER_CITY = "simulated:2000:7"
IN_THE_WAY = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
SMALL = "-P models=mean -P max_evals=1 -P max_rmse=12 -P min_r2=0"


@pytest.fixture
def watched(lab: Lab, pipelines: Pipelines) -> Lab:
    """A lab with two champions, one after the other, under the default model name."""
    if NAME not in lab.store.registered():
        for depth in (GOOD, BETTER):
            lab.register(NAME, *pipelines.of(lab, depth))
    return lab


def bash(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # like a fresh shell: steps run in this process have left their experiment in the environment
    known = {key: value for key, value in os.environ.items() if key not in IN_THE_WAY}
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=ROOT,
        env=known | environment,
        capture_output=True,
        text=True,
    )


def newest(lab: Lab, step: str) -> Any:
    ids = [found.experiment_id for found in lab.client.search_experiments()]
    return lab.client.search_runs(ids, f"tags.step = '{step}'")[0]


def test_a_month_is_scored_by_readmes_command(watched: Lab) -> None:
    done = bash(f"{readme_command('mlflow run . -e score')} {HERE}")
    assert done.returncode == 0, done.stderr
    assert "2023-03: predicted 2,000 of 2,000 trips" in done.stdout
    assert newest(watched, "score").data.tags["scored_by"].startswith(f"models:/{NAME}/")


def test_drift_is_exit_code_3_of_the_step_and_1_of_mlflow_run(watched: Lab) -> None:
    step = bash(f"{readme_command('python -m steps.score')} --source={ANOTHER_CITY}")
    assert step.returncode == 3, step.stderr
    assert "2023-03: drift: " in step.stdout
    command = readme_command("mlflow run . -e score").removesuffix(" -P months=2023-03")
    done = bash(f"{command} {HERE} -P months=2021-05 -P max_psi=0 -P fail_on_drift=true")
    assert done.returncode == 1
    # MLflow marks every run as FAILED whose command ends with a code other than 0
    run = newest(watched, "score")
    assert (run.info.status, run.data.tags["drift"]) == ("FAILED", "true")
    assert "failure" not in run.data.tags


def test_the_recipe_trains_anew_where_the_newest_month_has_drifted(watched: Lab) -> None:
    recipe = yaml.safe_load((ROOT / "docs" / "retrain.yml").read_text())
    script = recipe["jobs"]["retrain"]["steps"][-1]["run"]
    done = bash(script, SOURCE=ANOTHER_CITY, PARAMETERS=SMALL)
    assert done.returncode == 0, done.stderr
    assert "xgboost registered as nyc-taxi-duration version 3, alias " in done.stdout
    assert newest(watched, "main").info.status == "FINISHED"


def test_a_rollback_by_readmes_command(watched: Lab) -> None:
    champion = watched.aliases(NAME)["champion"]
    done = bash(f"{readme_command('mlflow run . -e register -P rollback')} --env-manager local")
    assert done.returncode == 0, done.stderr
    before = str(int(champion) - 1)
    assert f"{NAME}: version {before} is champion again, in place of {champion}" in (
        done.stdout.replace("in place of version", "in place of")
    )
    assert watched.aliases(NAME)["champion"] == before
