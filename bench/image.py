"""Check docs/Dockerfile without Docker: run its commands, then the job's, from nothing."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from mlflow import MlflowClient

from bench import ROOT, Result

DOCKERFILE, JOB = ROOT / "docs" / "Dockerfile", ROOT / "docs" / "job.yaml"
BUILT_BY_OTHERS = "apt-get "  # system packages are not installed: this machine's are used
SMALL = ("source=simulated:1000", "models=mean", "max_evals=2", "max_rmse=30", "min_r2=0")
# prefixes of variables that say where packages come from on this machine
KEPT = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "NO_PROXY")


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile: each instruction with its arguments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def measure() -> Iterator[Result]:
    """Build, and run a pipeline from a git URL, with only the image's environment variables."""
    with TemporaryDirectory(prefix="image-") as name, served_clone(Path(name)) as url:
        root = Path(name, "root")
        env = build(root)
        size = subprocess.run(["du", "-sm", root], capture_output=True, text=True, check=True)
        store = f"sqlite:///{root}/mlflow.db"
        done = run_job(root, env | {"MLFLOW_TRACKING_URI": store}, url)
        client = MlflowClient(store)
        experiment = client.get_experiment_by_name("nyc-taxi-experiment")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        ended = [run for run in runs if run.info.status == "FINISHED"]
    yield Result(
        f"docs/Dockerfile in an empty folder ({size.stdout.split()[0]} MB), then the command of "
        "docs/job.yaml on a git URL: exit code; runs FINISHED",
        f"{done}; {len(ended)} of {len(runs)}",
        "0; all",
    )


def build(root: Path) -> dict[str, str]:
    """Run the Dockerfile's commands below a folder; return the environment of its containers."""
    root.mkdir()
    folder, env = root, {"PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin", "HOME": str(root)}
    packages = {key: value for key, value in os.environ.items() if key.upper().startswith(KEPT)}
    for kind, words in instructions():
        here = inside(words, root)
        if kind == "COPY":
            source, target = here.split()
            Path(target).mkdir(parents=True)
            shutil.copy(ROOT / source, target)
        elif kind == "RUN" and not words.startswith(BUILT_BY_OTHERS):
            subprocess.run(["sh", "-c", here], cwd=folder, env=env | packages, check=True)
        elif kind == "ENV":
            env |= dict(word.split("=", 1) for word in here.split())
        elif kind == "WORKDIR":
            folder = Path(here)
            folder.mkdir()
    return env


def inside(words: str, root: Path) -> str:
    """Move the paths that the Dockerfile writes to below a folder."""
    return re.sub(r"(?<![\w/.])/(?=(?:opt|tmp)\b)", f"{root}/", words)


def run_job(root: Path, env: dict[str, str], url: str) -> int:
    """Run the job's own command, on this commit and on small months."""
    spec = yaml.safe_load(JOB.read_text())["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    git = ["git", "ls-remote", url, "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()[0]
    words = [re.sub(r"^https://\S+", url, word) for word in container["args"]]
    words = [re.sub("^(--version=).*", rf"\g<1>{head}", word) for word in words]
    words = [word for word in words if not word.endswith("max_evals=50")]
    words += [f"--param-list={value}" for value in SMALL]
    return subprocess.run(words, cwd=root / "tmp", env=env, check=False).returncode


@contextmanager
def served_clone(folder: Path) -> Iterator[str]:
    """Serve a bare clone of this repository with git daemon on loopback; yield its URL."""
    clone = ["git", "clone", "--quiet", "--bare", str(ROOT), str(folder / "taxi.git")]
    subprocess.run(clone, check=True)
    options = [f"--base-path={folder}", "--export-all", "--listen=127.0.0.1", "--port=9419"]
    daemon = subprocess.Popen(
        ["git", "daemon", *options, "--reuseaddr", "--verbose"], stderr=subprocess.PIPE, text=True
    )
    try:
        if daemon.stderr is None or "Ready" not in daemon.stderr.readline():
            raise RuntimeError("git daemon does not serve")
        yield "git://127.0.0.1:9419/taxi.git"
    finally:
        daemon.terminate()
        daemon.wait()
