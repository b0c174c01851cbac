"""What the doctor finds, and the command it gives for each problem."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import platformdirs.macos
import platformdirs.unix
import pytest

from storage.checkout import ROOT, Checkout
from storage.data.cache import cache_dir
from tests.stores import Store
from tests.tools.checkout_root import problems
from tools import doctor

LIBRARIES = ("hyperopt", "mlflow")


def test_it_runs_where_nothing_is_installed_and_leaves_with_1(tmp_path: Path) -> None:
    env = {"PATH": "", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-S", "-m", "tools.doctor"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 1
    assert "-> make .venv/.ready  # brings uv" in done.stdout
    assert "mlflow is missing" in done.stdout or " more\n" in done.stdout


def test_a_sound_environment_is_all_ok(store: Store, root: Path) -> None:
    assert problems(doctor.python) == []
    assert problems(doctor.installed_packages) == []
    assert problems(doctor.store) == []
    assert problems(doctor.run_environments) == []


def test_a_python_that_is_not_the_pinned_one(root: Path) -> None:
    (root / "python_env.yaml").write_text('python: "3.10.1"\n')
    assert "(runs are pinned to 3.10.1)" in next(doctor.python()).seen
    assert problems(doctor.python) == []


def test_a_python_that_the_lock_is_not_resolved_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 4))
    (problem,) = problems(doctor.python)
    assert problem.seen == "3.10.4, not 3.11 to 3.14"
    assert problem.cure == "rm -rf .venv && make doctor PYTHON=python3.11"


def test_makefile_and_pyproject_name_the_same_pythons() -> None:
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    (_, oldest), (_, newest) = doctor.OLDEST, doctor.NEWEST
    assert needed == f">=3.{oldest},<3.{newest + 1}"
    makefile = (ROOT / "Makefile").read_text()
    assert f"(3, {oldest}) <= sys.version_info[:2] <= (3, {newest})" in makefile
    names = " ".join(f"python3.{minor}" for minor in range(oldest, newest + 1))
    assert f"for name in {names} python3 python;" in makefile


def test_a_package_that_is_not_the_locked_one(root: Path) -> None:
    (root / "requirements.txt").write_text(
        "mlflow==0.1 \\\n    --hash=sha256:0\nno-such-package==1\nother==2 ; sys_platform == 'x'\n"
    )
    (problem,) = problems(doctor.installed_packages)
    assert "mlflow " in problem.seen
    assert " instead of 0.1, no-such-package is missing" in problem.seen
    assert "other" not in problem.seen
    assert "make .venv/.ready" in problem.cure


def test_a_venv_that_is_half_built_or_older_than_the_lock(root: Path) -> None:
    (root / ".venv").mkdir()
    assert problems(doctor.installed_packages)[0].cure == "rm -rf .venv && make .venv/.ready"
    (root / ".venv" / ".ready").touch()
    os.utime(root / ".venv" / ".ready", (0, 0))
    assert problems(doctor.installed_packages)[0].cure == doctor.REBUILD_VENV


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_an_xgboost_that_cannot_be_loaded(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problems(doctor.boosters) == []
    (tmp_path / "xgboost.py").write_text("raise OSError('libomp.dylib: not found')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", system)
    (problem,) = problems(doctor.boosters)
    assert problem.seen == "cannot be loaded: OSError: libomp.dylib: not found"
    assert ("brew" in problem.cure) == (system == "darwin")


def test_no_way_to_make_an_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = {problem.what: problem.cure for problem in problems(doctor.tools)}
    assert found["uv, pyenv, conda"].startswith("make .venv/.ready")
    assert "git" in found


def test_a_venv_is_a_way_to_run_where_the_pinned_python_is_not_to_be_had(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".venv").mkdir()
    (root / ".venv" / ".ready").touch()
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    monkeypatch.setattr(doctor, "_answers", lambda *_: "")
    assert problems(doctor.tools) == []
    seen = {found.what: found.seen for found in doctor.tools()}
    assert seen["uv"] == f"--env-manager uv, after: uv python install {doctor.pinned_python()}"
    assert seen[".venv"].startswith("--env-manager local")


@pytest.mark.parametrize(
    ("unknown", "cure"),
    [
        ("", ""),
        ("not a git repository", "git clone <url>"),
        ("detected dubious ownership in repository", "git config --global --add safe.directory "),
    ],
)
def test_code_that_git_does_not_answer_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, unknown: str, cure: str
) -> None:
    monkeypatch.setattr(doctor.checkout, "read", lambda _: Checkout("", "", "", unknown))
    (found,) = doctor.commit()
    assert found.cure.startswith(cure)
    assert bool(found.cure) == bool(unknown)
    assert unknown in found.seen


def test_one_way_to_make_an_environment_is_enough(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name != "conda" else None)
    monkeypatch.setattr(doctor, "_answers", lambda name, *_: "yes" if name == "pyenv" else "")
    assert problems(doctor.tools) == []
    monkeypatch.setattr(doctor, "_answers", lambda *_: "")
    cures = {problem.what: problem.cure for problem in problems(doctor.tools)}
    pinned = doctor.pinned_python()
    assert cures == {"uv": f"uv python install {pinned}", "pyenv": f"pyenv install {pinned}"}


# --- what is left over


def test_environments_that_are_half_built_or_of_another_lock(root: Path, tmp_path: Path) -> None:
    def make(number: int, *packages: str) -> Path:
        place = tmp_path / "envs" / f"mlflow-{number:040}"
        library = place / "lib" / "python3.11" / "site-packages"
        for package in packages:
            noted = library / f"{package}.dist-info" / "RECORD"
            noted.parent.mkdir(parents=True)
            noted.write_text(f"{package}.py,,\n__pycache__/{package}.pyc,,\n\n")  # .pyc to come
            (library / f"{package}.py").touch()
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").touch()
        return place

    locked = doctor.locked_versions("requirements.txt")
    names = [f"{name.replace('-', '_')}-{version}" for name, version in locked]
    hyperopt, mlflow = (next(n for n in names if n.startswith(f"{w}-")) for w in LIBRARIES)
    make(1, *names)
    make(2, mlflow)  # of a served model
    make(3, "dvc-1")  # of another project
    library = "lib/python3.11/site-packages"
    cut = make(10, mlflow)
    needs = "Requires-Dist: flask<4\nRequires-Dist: boto3; extra == 's3'\n"
    (cut / library / f"{mlflow}.dist-info/METADATA").write_text(needs)
    torn, noteless = make(4, *names), make(5, *names)
    (torn / library / f"{hyperopt}.py").unlink()
    (noteless / library / f"{mlflow}.dist-info/RECORD").unlink()
    bad = {
        torn: "is half built: hyperopt is not whole",
        noteless: "is half built: mlflow is not whole",
        cut: "is half built: flask is missing",
        make(6): "is half built",
        make(7, hyperopt): "is half built",
        make(8, *names[1:]): f"is half built: {locked[0][0]} is missing",
        make(9, hyperopt, "mlflow-0.1"): "is of another lock",
    }
    assert {problem.cure: problem.seen for problem in problems(doctor.run_environments)} == {
        f"rm -r {place}": f"{place.name} {seen}" for place, seen in bad.items()
    }
    assert "1 usable" in list(doctor.run_environments())[-1].seen


def test_a_user_id_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(doctor.user) == []
    monkeypatch.setattr("storage.environment.login_name", lambda: str(os.getuid()))
    assert problems(doctor.user)[0].cure == "export LOGNAME=$(id -u)"


def test_a_lock_that_mlflow_would_install_instead(root: Path) -> None:
    assert list(doctor.other_lock()) == []
    (root / "pylock.toml").touch()
    assert list(doctor.other_lock()) == []
    (root / "uv.lock").touch()
    (problem,) = problems(doctor.other_lock)
    assert problem.cure == "rm uv.lock"


def test_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    assert {problem.cure for problem in problems(doctor.disk)} == {"uv cache prune"}


def test_a_cached_month_that_is_not_whole(cache: Path) -> None:
    assert cache_dir() == cache
    cache_folder = cache / "https-1"
    cache_folder.mkdir(parents=True)
    (cache_folder / "green_tripdata_2021-01.parquet").write_bytes(b"PAR1 and so on PAR1")
    torn = cache_folder / "green_tripdata_2021-02.parquet"
    torn.write_bytes(b"PAR1 and no more")
    (problem,) = problems(doctor.months)
    assert problem.cure == f"rm '{torn}'"
    assert list(doctor.months())[-1].seen.startswith("1, 0.0 MB in ")


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_cache_that_is_looked_at_is_the_one_that_months_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str
) -> None:
    monkeypatch.delenv("TAXI_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", system)
    is_mac = system == "darwin"
    kind = platformdirs.macos.MacOS if is_mac else platformdirs.unix.Unix
    monkeypatch.setattr("platformdirs.PlatformDirs", kind)
    place = tmp_path / "Library/Caches/nyc-taxi" if is_mac else cache_dir()
    assert cache_dir() == place
    (finding,) = doctor.months()
    assert finding.seen == f"0, 0.0 MB in {place}"


def test_a_cache_whose_place_is_not_known_yet_is_said_and_not_guessed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAXI_CACHE")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    (finding,) = doctor.months()
    assert finding.seen.startswith("not looked at: platformdirs")
    assert [finding.what for finding in doctor.disk()] == ["disk here"]


def test_a_cached_month_that_cannot_be_read_is_not_called_broken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    month = cache / "green_tripdata_2021-01.parquet"
    month.write_bytes(b"PAR1 and so on PAR1")

    def fail(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor, "_is_parquet", fail)
    (problem,) = problems(doctor.months)
    assert problem.seen == f"{month.name} cannot be read: Permission denied"
    assert "rm" not in problem.cure


@pytest.mark.parametrize(("home", "is_wrong"), [("my home", True), ("höme-1.2", False)])
def test_a_folder_in_which_mlflow_can_make_no_environment(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, is_wrong: bool
) -> None:
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / home))
    found = problems(doctor.run_environments)
    assert [one.cure for one in found] == (
        ["export MLFLOW_ENV_ROOT=/var/tmp/mlflow-envs-$(id -u)"] if is_wrong else []
    )
