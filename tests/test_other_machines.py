"""docs/other-machines.md: an image, a Slurm script and a Kubernetes Job, read from the files.

`python -m bench image` runs the image's commands and the job's.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.cli import run as mlflow_run

from bench.image import BUILT_BY_OTHERS, instructions
from steps.common.command_line import make_parser, parse
from steps.common.parameters import ENTRY_POINTS
from storage.checkout import ROOT

DOCS = ROOT / "docs"
JOB: dict[str, Any] = yaml.safe_load((DOCS / "job.yaml").read_text())
(CONTAINER,) = JOB["spec"]["template"]["spec"]["containers"]
SBATCH = DOCS / "run.sbatch"
PAGE = (DOCS / "other-machines.md").read_text()
# environment variables that this project or MLflow reads
VARIABLES = {
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "TAXI_CACHE",
}


def check_run(words: list[str]) -> dict[str, Any]:
    """Parse a command as `mlflow run` does, and its parameters as the step does."""
    assert words[:2] == ["mlflow", "run"]
    context = mlflow_run.make_context("run", words[2:])
    options: dict[str, Any] = context.params
    entry_point = options["entry_point"] or "main"
    given = [f"--{value}" for value in options["param_list"]]
    parse(ENTRY_POINTS[entry_point], make_parser(ENTRY_POINTS[entry_point], None), given)
    assert options["env_manager"] == "local"  # the image has the packages
    assert re.fullmatch("[0-9a-f]{40}", options["version"])
    return options


# --- the image


def test_the_image_has_the_pinned_python_and_every_package_of_the_lock_by_its_hash() -> None:
    lines = instructions()
    pinned = yaml.safe_load((ROOT / "python_env.yaml").read_text())["python"]
    assert lines[0] == ("FROM", f"python:{pinned}-slim-bookworm")
    copied = [words for kind, words in lines if kind == "COPY"]
    assert copied == ["requirements.txt /opt/taxi/"]
    installs = [words for kind, words in lines if kind == "RUN" and " install " in words]
    assert installs[-1].endswith("--require-hashes -r /opt/taxi/requirements.txt")
    known = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT"}
    assert {kind for kind, _ in lines} == known


def test_every_command_of_the_image_but_the_systems_is_run_by_the_bench() -> None:
    runs = [words for kind, words in instructions() if kind == "RUN"]
    assert [words for words in runs if words.startswith(BUILT_BY_OTHERS)] == runs[:1]
    assert len(runs) == 3
    for words in runs:
        subprocess.run(["bash", "-n", "-c", words], check=True)


def test_the_image_finds_its_programs_and_hands_signals_on() -> None:
    lines = dict(instructions())
    env = dict(word.split("=", 1) for word in lines["ENV"].split())
    (venv,) = re.findall(r"python -m venv (\S+)", " ".join(w for _, w in instructions()))
    assert env["PATH"].split(":")[0] == f"{venv}/bin"
    packages = next(words for kind, words in instructions() if kind == "RUN")
    program, *options = json.loads(lines["ENTRYPOINT"])
    assert {program, "git"} <= set(packages.split())
    assert options == ["-g", "--"]
    assert lines["USER"].isdigit()  # Kubernetes can check runAsNonRoot only on a number


# --- the job of Kubernetes


def test_the_job_runs_an_entry_point_with_parameters_that_it_has() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("batch/v1", "Job")
    pod = JOB["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    options = check_run(CONTAINER["args"])
    assert "command" not in CONTAINER  # it would replace tini
    assert options["experiment_name"] == "nyc-taxi-experiment"
    assert {entry["name"] for entry in CONTAINER["env"]} == VARIABLES
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
    (cache,) = (one["value"] for one in CONTAINER["env"] if one["name"] == "TAXI_CACHE")
    assert cache in mounts.values()


# --- the job of Slurm


def submit(tmp_path: Path, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run the script as a node would, with srun and apptainer that only print their arguments."""
    for name in ("srun", "apptainer"):
        stub = tmp_path / name
        stub.write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@"\n')
        stub.chmod(0o755)
    known = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    return subprocess.run(
        ["bash", str(SBATCH), *words], env=known | env, capture_output=True, text=True
    )


def test_the_script_runs_an_entry_point_with_parameters_that_it_has(tmp_path: Path) -> None:
    about = {"COMMIT": "c0ffee" + "0" * 34, "MLFLOW_TRACKING_URI": "https://mlflow.example.org"}
    done = submit(tmp_path, "-P", "max_evals=100", **about)
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[0] == "srun"
    assert words[2:4] == ["apptainer", "exec"]
    (cache,) = tmp_path.glob(".cache/*")
    assert words[words.index("--bind") + 1] == str(cache)
    options = check_run(words[words.index("mlflow") :])
    assert "max_evals=100" in options["param_list"]
    for name in ("srun", "apptainer", "tini -g --"):
        assert name in SBATCH.read_text()


@pytest.mark.parametrize("missing", ["COMMIT", "MLFLOW_TRACKING_URI"])
def test_the_script_says_what_it_lacks(tmp_path: Path, missing: str) -> None:
    about = {"COMMIT": "0" * 40, "MLFLOW_TRACKING_URI": "https://mlflow.example.org"}
    done = submit(tmp_path, **{name: about[name] for name in about if name != missing})
    assert done.returncode != 0
    assert f"{missing}: set it to " in done.stderr


def test_the_scripts_directives_come_before_its_commands() -> None:
    lines = SBATCH.read_text().splitlines()
    directives = [place for place, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first = next(place for place, line in enumerate(lines) if line and line[0] != "#")
    assert len(directives) > 5
    assert max(directives) < first  # Slurm stops reading there
    for place in directives:
        (word,) = shlex.split(lines[place].removeprefix("#SBATCH "))
        assert re.fullmatch(r"--[a-z-]+(=\S+)?", word)


def test_the_page_shows_the_files_that_are_there() -> None:
    for name in ("Dockerfile", "job.yaml", "run.sbatch"):
        assert f"]({name})" in PAGE
        assert (DOCS / name).is_file()
