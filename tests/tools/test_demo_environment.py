"""Which environment make demo runs in, and which store make ui opens."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from storage.checkout import ROOT

PYTHON = "#!/bin/sh\necho Python {version}\n"
UV = "#!/bin/sh\nexit {code}\n"
UI = "#!/bin/sh\necho $* on ${MLFLOW_BACKEND_STORE_URI:-its own}, of $MLFLOW_EXPERIMENT_NAME\n"
MLFLOW = "#!/bin/sh\necho mlflow $*\n"


INSTALLS = """#!/bin/sh
mkdir -p .venv/bin && cp "$0" .venv/bin/python
printf '#!/bin/sh\nprintf "%s" >&2; exit {code}' > .venv/bin/uv && chmod +x .venv/bin/uv
"""
SAID_BY_UV = (
    *("Downloading scipy (33.7MiB)", "Downloading pip (1.9MiB)", " Downloaded pip"),
    *("Installed 147 packages in 1.26s", " + pip==26.0", "error: no room"),
)


@pytest.mark.parametrize("code", [0, 2])
def test_the_environment_tells_of_its_large_packages_and_of_what_went_wrong(
    tmp_path: Path, code: int
) -> None:
    for name in ("Makefile", "python_env.yaml", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(INSTALLS.format(code=code) % "\\n".join([*SAID_BY_UV, ""]))
    python.chmod(0o755)
    command = ["make", ".venv/.ready", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line in SAID_BY_UV] == [
        *("Downloading scipy (33.7MiB)", "Installed 147 packages in 1.26s", "error: no room")
    ]
    assert (done.returncode != 0) == bool(code)
    assert ("export UV_SYSTEM_CERTS=true" in done.stderr) == bool(code)
    assert (tmp_path / ".venv" / ".ready").exists() != bool(code)


@pytest.mark.parametrize(
    ("version", "home", "found", "manager", "said"),
    [
        ("3.11.7", "/srv/me", True, "local", ""),
        ("3.12.1", "/srv/me", True, "uv", "demo: once, MLflow makes an environment of Python 3.1"),
        ("3.12.1", "/srv/me", False, "local", "demo: no Python 3.11.7 here and none to be downlo"),
        ("3.12.1", "/srv/m e", True, "local", "demo: MLflow can make no environment in /srv/m e"),
    ],
)
def test_the_demo_makes_a_second_environment_only_where_it_is_another_one(
    tmp_path: Path, version: str, home: str, found: bool, manager: str, said: str
) -> None:
    for name in ("Makefile", "python_env.yaml", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    texts = {
        "python": PYTHON.format(version=version),
        "uv": UV.format(code=0 if found else 1),
        "mlflow": MLFLOW,
    }
    for name, text in texts.items():
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    command = ["make", "--assume-old=.venv/.ready", "demo"]
    (tmp_path / ".venv" / ".ready").touch()
    env = os.environ | {"HOME": home}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"mlflow run . --env-manager {manager} --experiment-name" in done.stdout
    assert f"    mlflow run . --env-manager {manager} -e hpo" in done.stdout  # the same environment
    assert said in done.stdout
    assert ("demo: " in done.stdout) == bool(said)
    # a hint about the line that main prints to run it again
    is_lost = "mlflow run --env-manager uv fails here: write local." in done.stdout
    assert is_lost == (not found)


@pytest.mark.parametrize("uri", ["", "https://team"])
def test_the_demo_says_that_mlflow_misreads_a_folder_before_mlflow_does(
    tmp_path: Path, uri: str
) -> None:
    folder = tmp_path / "50 %"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "python_env.yaml", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder)
    for name, text in {"mlflow": MLFLOW, "python": PYTHON.format(version="3.11.7")}.items():
        (folder / ".venv" / "bin" / name).write_text(text)
        (folder / ".venv" / "bin" / name).chmod(0o755)
    (folder / ".venv" / ".ready").touch()
    command = ["make", "--assume-old=.venv/.ready", "demo"]
    env = os.environ | {"MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert ("mlflow run" in done.stdout) == bool(uri)  # a server keeps everything elsewhere
    assert ("50 %, because of a sign in its path: make doctor" in done.stderr) != bool(uri)


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("", "its own"),
        ("sqlite:////shared/runs.db", "sqlite:////shared/runs.db"),
        ("https://team", ""),
    ],
)
def test_the_ui_opens_on_the_store_that_is_used_and_a_server_has_its_own(
    tmp_path: Path, uri: str, opened: str
) -> None:
    for name in ("Makefile", "python_env.yaml", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    for name in ("python", "mlflow"):
        (scripts / name).write_text(UI)
        (scripts / name).chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    env = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": "team"}
    command = ["make", "--no-print-directory", "--assume-old=.venv/.ready", "ui"]
    given: dict[str, Any] = {
        "cwd": tmp_path,
        "env": os.environ | env,
        "capture_output": True,
        "text": True,
    }
    done = subprocess.run(command, **given)
    assert done.returncode == 0, done.stderr
    where, *ui = done.stdout.splitlines()
    assert where.startswith("-m storage.tracking.pages 5000 on ") and where.endswith(", of team")
    assert [line.partition(" on ")[2] for line in ui] == ([f"{opened}, of team"] if opened else [])
