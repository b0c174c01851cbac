"""Check what a run needs before it fails for lack of it; each problem is shown with its cure.

python -m tools.doctor

It runs on any Python that the lock is resolved for, and imports nothing that an environment may
lack.
"""

import configparser
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from storage import checkout, environment
from storage.checkout import ROOT
from storage.data.cache import cache_dir
from storage.tracking import sqlite_file
from storage.uris import without_credentials
from tools import named_experiment, packages

LOCK, DEV_LOCK = "requirements.txt", "requirements-dev.txt"
OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons that the lock is resolved for
NEED_GB = 5.0  # an environment takes 2 GB, months and models some more
OTHER_STORE_COMMAND = "unset MLFLOW_TRACKING_URI  # or start it"
LOG_IN = "export MLFLOW_TRACKING_USERNAME=<user> MLFLOW_TRACKING_PASSWORD=<password>"
NETRC = "${EDITOR:-vi} ~/.netrc  # its entry for this host goes before MLFLOW_TRACKING_USERNAME"
NOT_ASCII = f"{LOG_IN}  # of letters that are ASCII: MLflow's own server reads no others"
USERS = "~/.mlflow/credentials"
LOOKUP_ERRORS = (OSError, ValueError, KeyError, HTTPException, sqlite3.Error, configparser.Error)
REBUILD_VENV = "rm -f .venv/.ready && make .venv/.ready"


class Finding(NamedTuple):
    """The result of one check."""

    what: str
    seen: str
    cure: str = ""  # a command; empty if nothing is wrong


def python() -> Iterator[Finding]:
    """Compare the running Python with those of the lock."""
    pinned, running = pinned_python(), ".".join(map(str, sys.version_info[:3]))
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        yield Finding("Python", f"{running} (runs are pinned to {pinned})")
    else:
        minor = pinned.rpartition(".")[0]
        span = " to ".join(".".join(map(str, end)) for end in (OLDEST, NEWEST))
        yield Finding(
            "Python", f"{running}, not {span}", f"rm -rf .venv && make doctor PYTHON=python{minor}"
        )


def tools() -> Iterator[Finding]:
    """List the available ways to make the environment of a run."""
    if not shutil.which("git"):
        yield Finding("git", "missing: runs will not know their commit", "install git")
    pinned = pinned_python()
    cures = {
        name: cure(pinned) for name, (_, cure) in ENVIRONMENT_MANAGERS.items() if shutil.which(name)
    }
    if not cures:
        yield Finding(
            ", ".join(ENVIRONMENT_MANAGERS), "none of them", "make .venv/.ready  # brings uv"
        )
    is_ready = (ROOT / ".venv" / ".ready").exists()
    if is_ready:
        yield Finding(".venv", "--env-manager local, where .venv/bin is first on the PATH")
    one_works = is_ready or "" in cures.values()
    for name, cure in cures.items():
        how = f"--env-manager {ENVIRONMENT_MANAGERS[name][0]}"
        if cure and one_works:
            yield Finding(name, f"{how}, after: {cure}")
        else:
            yield Finding(name, how, cure)


def uv_cure(pinned: str) -> str:
    """Return the command that gives uv the pinned Python; empty if it has it."""
    return "" if _answers("uv", "python", "find", pinned) else f"uv python install {pinned}"


def pyenv_cure(pinned: str) -> str:
    """Return the command that gives pyenv the pinned Python; empty if it has it."""
    return "" if _answers("pyenv", "prefix", pinned) else f"pyenv install {pinned}"


def conda_cure(_pinned: str) -> str:
    """Return the command that makes conda's environment; empty if it exists."""
    is_made = "nyc-taxi-duration" in _answers("conda", "env", "list")
    return "" if is_made else "conda env create -f conda.yaml"


# what makes environments -> its name for `mlflow run`, and how it gets the pinned Python
ENVIRONMENT_MANAGERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "uv": ("uv", uv_cure),
    "pyenv": ("virtualenv", pyenv_cure),
    "conda": ("local, in conda.yaml's environment", conda_cure),
}


def commit() -> Iterator[Finding]:
    """Check that git can tell which code runs: otherwise it counts as uncommitted."""
    unknown = checkout.read(ROOT).unknown
    if "dubious ownership" in unknown:
        trust = f"git config --global --add safe.directory {shlex.quote(str(ROOT))}"
        yield Finding("code", unknown, f"{trust}  # if you trust its owner")
    elif unknown:
        yield Finding("code", f"git does not answer for it: {unknown}", "git clone <url>")
    else:
        yield Finding("code", "git answers for it")


def other_lock() -> Iterator[Finding]:
    """Look for a lock that MLflow would use instead of requirements.txt."""
    if (ROOT / "uv.lock").exists():
        seen = "there: --env-manager uv would install it instead of requirements.txt"
        yield Finding("uv.lock", seen, "rm uv.lock")


def user() -> Iterator[Finding]:
    """Check that the user has a name: without one, `mlflow run` itself fails."""
    name = environment.login_name()
    nameless = name == str(os.getuid())
    cure = "export LOGNAME=$(id -u)" if nameless else ""
    yield Finding("user", f"{name}{' has no name' if nameless else ''}", cure)


def installed_packages() -> Iterator[Finding]:
    """Compare the installed packages with the lock."""
    is_tools = (ROOT / ".venv").resolve() == Path(sys.prefix).resolve()
    lock = DEV_LOCK if is_tools else LOCK
    ready = ROOT / ".venv" / ".ready"
    if (ROOT / ".venv").is_dir() and not ready.exists():
        yield Finding(".venv", "half built", "rm -rf .venv && make .venv/.ready")
    elif ready.exists() and ready.stat().st_mtime < (ROOT / DEV_LOCK).stat().st_mtime:
        yield Finding(".venv", f"older than {DEV_LOCK}", REBUILD_VENV)
    wrong = _differences(lock, map(Path, sys.path))
    what = f"packages of {lock}"
    if wrong:
        more = f" and {len(wrong) - 3} more" if wrong[3:] else ""
        yield Finding(what, f"{', '.join(wrong[:3])}{more}", REBUILD_VENV)
    else:
        yield Finding(what, f"all here, in {sys.prefix}")


def boosters() -> Iterator[Finding]:
    """Load xgboost, whose package for macOS comes without OpenMP."""
    if not find_spec("xgboost"):
        return  # reported with the packages
    command = [sys.executable, "-c", "import xgboost"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        yield Finding("xgboost", "can be loaded")
    else:
        why = done.stderr.strip().rpartition("\n")[2]
        is_mac = sys.platform == "darwin"
        cure = "brew install libomp" if is_mac else "rm -rf .venv && make .venv/.ready"
        yield Finding("xgboost", f"cannot be loaded: {why}", cure)


def store() -> Iterator[Finding]:
    """Check that the store can be used as it is."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    place = _address_or_path(uri)
    if isinstance(place, str):
        yield _server(place)
    elif place:
        if uri.removeprefix("sqlite:///")[:1] not in ("", "/"):
            cure = f"export MLFLOW_TRACKING_URI=sqlite:///{place}"
            yield Finding("store", f"{uri} is another file in each folder", cure)
        yield _sqlite(place)
    else:
        yield Finding("store", f"{without_credentials(uri)}: not looked at")


def experiment() -> Iterator[Finding]:
    """Ask the store for the experiment that runs go to, if the environment names one."""
    place = _address_or_path(os.environ.get("MLFLOW_TRACKING_URI", ""))
    requested = named_experiment.requested_experiment()
    if not requested or not place:
        return
    try:
        if isinstance(place, str):
            found = named_experiment.ask_server(place, requested)
        else:
            found = named_experiment.ask_file(place, requested)
    except LOOKUP_ERRORS:  # reported with the store
        return
    (named,) = requested.values()
    if found and found.is_deleted:
        cure = f"mlflow experiments restore --experiment-id {found.number}  # or name another"
        yield Finding(f"experiment {found.name}", "is deleted: no run can begin in it", cure)
    elif found and isinstance(place, str) and not named_experiment.may_write(place, found.number):
        seen = "this user may not write to it: no run can begin in it"
        cure = "export MLFLOW_EXPERIMENT_NAME=<another>  # or ask its owner for EDIT"
        yield Finding(f"experiment {found.name}", seen, cure)
    elif found:
        yield Finding(f"experiment {found.name}", "is there")
    elif "experiment_id" in requested:
        yield Finding(f"experiment {named}", "is not in this store", "unset MLFLOW_EXPERIMENT_ID")
    else:
        yield Finding(f"experiment {named}", "not there yet: the first run makes it")


def run_environments() -> Iterator[Finding]:
    """Check the environments that `mlflow run` made: it uses incomplete ones as they are."""
    folder = Path(os.environ.get("MLFLOW_ENV_ROOT") or Path.home() / ".mlflow" / "envs")
    n_usable, locked_names = 0, {name for name, _ in locked_versions(LOCK)}
    for place in sorted(folder.glob("mlflow-*")):
        libraries = list(place.glob("lib/python*/site-packages"))
        installed, cure = packages.installed(libraries), environment.repair_command(place)
        # a served model's has MLflow and the model's needs, another project's other packages
        is_begun = "mlflow" not in installed and set(installed) <= locked_names
        is_own = "hyperopt" in installed
        wrong = _differences(LOCK, libraries) if is_own else packages.find_gaps(installed)
        if not (place / "bin" / "python").exists() or is_begun:
            yield Finding("environment", f"{place.name} is half built", cure)
        elif any(" instead of " in one for one in wrong):
            yield Finding("environment", f"{place.name} is of another lock", cure)
        elif wrong:
            seen = f"{place.name} is half built: {', '.join(wrong[:3])}"
            yield Finding("environment", seen, cure)
        else:
            n_usable += is_own
    # MLflow passes the path to a shell unquoted, and alembic interpolates a %
    if re.search(r"[^\w@+=:,./~-]", str(folder)):
        seen = f"MLflow can make none in {folder}, because of a blank or a sign in its path"
        cure = "export MLFLOW_ENV_ROOT=/var/tmp/mlflow-envs-$(id -u)"
        yield Finding("environments of runs", seen, cure)
    else:
        yield Finding("environments of runs", f"{n_usable} usable in {folder}")


def disk() -> Iterator[Finding]:
    """Check the free disk space."""
    cache = _cache()
    places = {"disk here": ROOT} | ({"disk of the cache": cache} if cache else {})
    for what, folder in places.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free_gb = shutil.disk_usage(existing).free / 1e9
        cure = "uv cache prune" if free_gb < NEED_GB else ""
        yield Finding(what, f"{free_gb:.1f} GB free, {NEED_GB:.0f} needed", cure)


def months() -> Iterator[Finding]:
    """Count the cached months, and find incomplete ones."""
    cache = _cache()
    if cache is None:
        yield Finding("cached months", "not looked at: platformdirs, which knows where, is missing")
        return
    paths = [path for path in cache.rglob("*_tripdata_*") if path.is_file()]
    broken = []
    for path in paths:
        try:
            if path.suffix == ".parquet" and not _is_parquet(path):
                broken.append(path)
                yield Finding("month", f"{path.name} is not whole", f"rm '{path}'")
        except OSError as error:
            yield Finding(
                "month", f"{path.name} cannot be read: {error.strerror}", f"ls -l '{path}'"
            )
    n_bytes = sum(path.stat().st_size for path in paths)
    whole = len(paths) - len(broken)
    yield Finding("cached months", f"{whole}, {n_bytes / 1e6:.1f} MB in {cache}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    tools,
    commit,
    other_lock,
    user,
    installed_packages,
    boosters,
    store,
    experiment,
    run_environments,
    disk,
    months,
)


def main() -> None:
    """Print the findings as a table; exit with 1 if something needs a cure."""
    environment.tolerate_output_errors()
    findings = [finding for check in CHECKS for finding in check()]
    width = max(len(finding.what) for finding in findings)
    for what, seen, cure in findings:
        print(f"{'PROBLEM' if cure else 'ok':<8} {what:<{width}}  {seen}")
        if cure:
            print(f"{'':<8} {'':<{width}}  -> {cure}")
    sys.exit(any(finding.cure for finding in findings))


def pinned_python() -> str:
    """Read the exact Python that runs use."""
    return re.findall(r'^python: "(.+)"', (ROOT / "python_env.yaml").read_text(), re.MULTILINE)[0]


def locked_versions(lock: str) -> list[tuple[str, str]]:
    """Read the packages of a lock that every machine needs: name, version."""
    lines = re.findall(r"^([\w.-]+)==([^\s;\\]+) *([;\\].*)?$", (ROOT / lock).read_text(), re.M)
    return [(name, locked) for name, locked, marker in lines if not marker.startswith(";")]


def _cache() -> Path | None:
    """Return the cache folder; None if this cannot be known without platformdirs."""
    try:
        return cache_dir()
    except ModuleNotFoundError:
        return None


def _differences(lock: str, folders: Iterable[Path]) -> list[str]:
    """List how the packages in these folders differ from a lock, one line for each that does."""
    installed = packages.installed(folders)
    deviations = (packages.deviation(*pair, installed) for pair in locked_versions(lock))
    return [one for one in deviations if one]


def _answers(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _address_or_path(uri: str) -> str | Path | None:
    """Return the address of a server, or the file of an sqlite store; None if it is neither."""
    if uri.startswith(("http://", "https://")):
        return without_credentials(uri).rstrip("/")
    if uri and not uri.startswith("sqlite:///"):
        return None
    name = unquote(uri.removeprefix("sqlite:///"))  # as SQLAlchemy does
    return Path(name or "mlflow.db").resolve()  # without a URI, the one that MLflow creates here


def _server(address: str) -> Finding:
    what = f"store {address}"
    try:
        named_experiment.ask_experiments(address, "search", {"max_results": 1})
    except urllib.error.HTTPError as error:
        return Finding(what, f"answers {error.code} {error.reason}", _cure(error.code, address))
    except configparser.Error:
        return Finding(what, f"not asked: MLflow cannot read {USERS}", f"${{EDITOR:-vi}} {USERS}")
    except OSError as error:
        reason = getattr(error, "reason", type(error).__name__)
        return Finding(what, f"does not answer: {reason}", OTHER_STORE_COMMAND)
    except (ValueError, HTTPException):
        return Finding(what, "answers with what is not MLflow's, such as a login's page", LOG_IN)
    return Finding(what, "answers")


def _cure(code: int, address: str) -> str:
    if code == 401 and any(named_experiment.read_netrc(urlsplit(address).hostname)):
        return NETRC
    if code == 401 and not "".join(named_experiment.find_user()).isascii():
        return NOT_ASCII
    return LOG_IN if code in (401, 403) else OTHER_STORE_COMMAND


def _sqlite(path: Path) -> Finding:
    if folder := sqlite_file.find_misread_folder(Path.cwd(), path):
        home, here = "~/nyc-taxi-duration", shlex.quote(str(ROOT))
        seen = f"MLflow misreads {folder}, because of an apostrophe, a %, a ? or a # in its path"
        return Finding("store", seen, f"rm -rf .venv && mv {here} {home} && cd {home}")
    if not path.exists():
        return Finding("store", f"{path}: not there yet; `make store` makes it")
    what, newest = f"store {path}", sqlite_file.newest_revision()
    try:
        revision = sqlite_file.read_revision(path)
    except sqlite3.Error as error:
        return Finding(
            what, f"cannot be opened: {error}", sqlite_file.repair_file_command(path, error)
        )
    if not revision:
        return Finding(what, "is not MLflow's, or half made", sqlite_file.set_aside_command(path))
    if newest and revision != newest:
        seen = f"is of another MLflow (schema {revision}, not {newest})"
        return Finding(what, seen, sqlite_file.upgrade_command(path))
    return Finding(what, "can be read" + (" and is migrated" if newest else ""))


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        begins = file.read(4)
        file.seek(-min(4, path.stat().st_size), os.SEEK_END)
        return begins == file.read(4) == b"PAR1"


if __name__ == "__main__":
    main()
