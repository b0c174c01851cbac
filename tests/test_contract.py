"""What the parts of this project promise each other, read from the files themselves."""

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from steps.common import step as step_frame
from tests.entry import entry

ROOT = Path(__file__).parent.parent
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
ENTRY_POINTS: dict[str, dict[str, Any]] = PROJECT["entry_points"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = {room: sorted((ROOT / room).rglob("*.py")) for room in ("taxi", "storage", "steps")}


# --- entry points and their parameters


def declared(entry_point: str) -> dict[str, dict[str, Any]]:
    return ENTRY_POINTS[entry_point]["parameters"]


def arguments(entry_point: str) -> dict[str, argparse.Action]:
    parser = entry(entry_point).build_parser()
    return {action.dest: action for action in parser._actions if action.dest != "help"}


def test_every_entry_point_is_a_step_and_every_step_an_entry_point() -> None:
    steps = ROOT / "steps"
    files = {path.stem for path in steps.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in steps.glob("*/__main__.py")}
    assert files | packages == set(ENTRY_POINTS)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_a_step_takes_exactly_the_parameters_that_mlproject_declares(entry_point: str) -> None:
    taken = arguments(entry_point)
    defaults = {name: about["default"] for name, about in declared(entry_point).items()}
    assert {name: action.default for name, action in taken.items()} == {
        name: str(default) for name, default in defaults.items()
    }
    assert [action.option_strings for action in taken.values()] == [[f"--{name}"] for name in taken]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_a_command_passes_every_parameter_under_its_name(entry_point: str) -> None:
    program, *passed = ENTRY_POINTS[entry_point]["command"].split(" --")
    assert program == f"python -m steps.{entry_point}"
    assert sorted(passed) == sorted(f"{name}={{{name}}}" for name in declared(entry_point))


def test_parameters_of_one_name_have_one_type_and_one_default() -> None:
    every = [item for entry_point in ENTRY_POINTS for item in declared(entry_point).items()]
    once = dict(every)
    assert [(name, about) for name, about in every if about != once[name]] == []


def test_every_described_parameter_is_used_and_every_used_one_described() -> None:
    used = {name for entry_point in ENTRY_POINTS for name in declared(entry_point)}
    assert set(step_frame.PARAMETERS) == used


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_help_says_what_a_step_does_and_what_its_parameters_mean(entry_point: str) -> None:
    module = entry(entry_point)
    shown = " ".join(module.build_parser().format_help().split())
    assert module.__doc__.partition("\n")[0] in shown
    assert f"python -m steps.{entry_point} " in shown
    assert [name for name, action in arguments(entry_point).items() if not action.help] == []


# --- the environment


class Pin(NamedTuple):
    name: str
    marker: str
    version: str
    n_hashes: int


def pins(path: str) -> list[Pin]:
    lines = (ROOT / path).read_text().replace("\\\n", " ").splitlines()
    return [pin(line) for line in lines if line.strip()]


def pin(line: str) -> Pin:
    wanted, *hashes = line.split(" --hash=")
    found = re.fullmatch(r"([a-z0-9.-]+)==([^\s;,*]+)(?: ; (.+?))?\s*", wanted)
    assert found, f"{line!r} is not name==version --hash=..."
    assert [given for given in hashes if not re.fullmatch(r"sha256:[0-9a-f]{64}\s*", given)] == []
    return Pin(canonicalize_name(found[1]), found[3] or "", found[2], len(hashes))


LOCKS = ("requirements.txt", "requirements-dev.txt")
ENVIRONMENTS = ("python_env.yaml", "conda.yaml")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_one_version_with_its_hashes(lock: str) -> None:
    found = pins(lock)
    assert len(found) > 50
    assert [pin.name for pin in found if not pin.n_hashes] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_registry(lock: str) -> None:
    assert re.findall(r".*(?:://|--(?!hash)|^-|#).*", (ROOT / lock).read_text(), re.MULTILINE) == []


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.txt", []), ("requirements-dev.txt", ["dev"])]
)
def test_a_lock_holds_every_direct_dependency_in_a_version_asked_for(
    lock: str, extras: list[str]
) -> None:
    project = PYPROJECT["project"]
    wanted = list(project["dependencies"])
    wanted += [line for extra in extras for line in project["optional-dependencies"][extra]]
    versions: dict[str, list[str]] = {}
    for pin in pins(lock):
        versions.setdefault(pin.name, []).append(pin.version)
    assert len(wanted) > 10
    for requirement in map(Requirement, wanted):
        found = versions.get(canonicalize_name(requirement.name), [])
        assert found, f"{requirement} is not in {lock}"
        assert all(map(requirement.specifier.contains, found)), f"{lock} has {found}"


def test_the_tests_run_on_the_very_versions_that_runs_use() -> None:
    runs, tests = ({(p.name, p.marker): p.version for p in pins(lock)} for lock in LOCKS)
    assert runs.items() <= tests.items()


def test_one_python_version_everywhere() -> None:
    venv, conda = (yaml.safe_load((ROOT / name).read_text()) for name in ENVIRONMENTS)
    exact = venv["python"]
    minor = exact.rpartition(".")[0]
    assert re.fullmatch(r"3\.\d+\.\d+", exact)
    assert f"python={exact}" in conda["dependencies"]
    assert Requirement(f"x{PYPROJECT['project']['requires-python']}").specifier.contains(exact)
    makefile = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"python(?:-version )?(3[.\d]+)", makefile)) == {minor}
    assert PYPROJECT["tool"]["mypy"]["python_version"] == minor
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{minor.replace('.', '')}"
    assert ".".join(map(str, sys.version_info[:2])) == minor


def test_both_environments_install_the_one_lock() -> None:
    venv, conda = (yaml.safe_load((ROOT / name).read_text()) for name in ENVIRONMENTS)
    assert PROJECT["python_env"] == "python_env.yaml"
    assert "conda_env" not in PROJECT
    assert venv["dependencies"] == ["-r requirements.txt"]
    assert {"pip": ["-r requirements.txt"]} in conda["dependencies"]
    assert set(map(str, conda["dependencies"][:-1])) == {f"python={venv['python']}", "pip"}


def test_no_other_lock_competes() -> None:
    assert [
        path for path in repository() if re.search(r"(^|/)(uv\.lock|pylock.*\.toml)$", path)
    ] == []


# --- the README


def table(*headings: str) -> list[list[str]]:
    """Read the rows below the one table of README that has these headings."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        for line in (ROOT / "README.md").read_text().splitlines()
    ]
    assert lines.count(list(headings)) == 1, f"README.md needs one table headed {headings}"
    below = lines[lines.index(list(headings)) + 2 :]
    return below[: below.index([])] if [] in below else below


def coded(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def test_readme_lists_the_entry_points() -> None:
    names = [name for row in table("entry point", "does") for name in coded(row[0])]
    assert sorted(names) == sorted(ENTRY_POINTS)


def test_readme_lists_the_parameters_with_their_defaults() -> None:
    told = [
        (name, default)
        for names, defaults, _ in table("parameter", "default", "meaning")
        for name, default in zip(coded(names), spread(coded(defaults), names), strict=True)
    ]
    true = {
        name: about for entry_point in ENTRY_POINTS for name, about in declared(entry_point).items()
    }
    assert sorted(told) == sorted(
        (name, str(about["default"]) or '""') for name, about in true.items()
    )


def spread(defaults: list[str], names: str) -> list[str]:
    """Give a default said once to every parameter that shares the row."""
    return defaults * len(coded(names)) if len(defaults) == 1 else defaults


# --- who may import whom

PICKLERS = {"pickle", "cloudpickle", "dill"}
# taxi computes: it neither reads, writes, tracks, parses a command line nor looks around itself
OUTSIDE = (
    *("argparse", "fsspec", "http", "io", "mlflow", "os", "pathlib", "pooch", "requests", "shutil"),
    *("socket", "sqlite3", "steps", "storage", "subprocess", "sys", "tempfile", "urllib"),
    *("pyarrow.csv", "pyarrow.dataset", "pyarrow.fs", "pyarrow.parquet"),
)


class Import(NamedTuple):
    name: str  # in full; `from a import b` is a.b
    is_relative: bool


def imports(path: Path) -> Iterator[Import]:
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = [*start, *([node.module] if node.module else [])]
            for alias in node.names:
                yield Import(".".join([*base, alias.name]), node.level > 0)


def packages(found: Iterator[Import]) -> set[str]:
    return {name.partition(".")[0] for name, _ in found}


def within(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def file_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ROOMS["steps"], ids=file_id)
def test_a_step_imports_no_other_step(path: Path) -> None:
    mine = path.relative_to(ROOT / "steps").with_suffix("").parts[0]
    others = [f"steps.{name}" for name in ENTRY_POINTS if name != mine]
    assert [name for name, _ in imports(path) if within(name, others)] == []


@pytest.mark.parametrize("path", ROOMS["storage"], ids=file_id)
def test_storage_knows_neither_taxis_nor_steps(path: Path) -> None:
    assert packages(imports(path)) & {"taxi", "steps"} == set()


@pytest.mark.parametrize("path", ROOMS["taxi"], ids=file_id)
def test_taxi_only_computes(path: Path) -> None:
    assert [name for name, _ in imports(path) if within(name, OUTSIDE)] == []
    nodes = ast.walk(ast.parse(path.read_text()))
    assert [node.lineno for node in nodes if isinstance(node, ast.Name) and node.id == "open"] == []


@pytest.mark.parametrize("path", ROOMS["taxi"], ids=file_id)
def test_taxi_imports_itself_relatively_so_that_a_copy_stands_alone(path: Path) -> None:
    absolute = (found for found in imports(path) if not found.is_relative)
    assert "taxi" not in packages(absolute)


# sends tasks to the workers of a cluster, which is what cloudpickle is for; it writes no file
SENDS = ROOT / "storage" / "cluster.py"


@pytest.mark.parametrize(
    "path", [path for room in ROOMS.values() for path in room if path != SENDS], ids=file_id
)
def test_nothing_is_pickled(path: Path) -> None:
    assert packages(imports(path)) & PICKLERS == set()
    assert (
        re.findall(
            r"\.pkl|\.pickle|cloudpickle|joblib\W+(?:import )?(?:dump|load)", path.read_text()
        )
        == []
    )


# --- the repository


def repository() -> list[str]:
    """List the files that are committed or would be."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [name for name in names if (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    names = repository()
    assert "MLproject" in names
    machine = re.compile(rb"(?<![\w.:/-])/(?:work|root|home|Users)/[\w.]+")
    found = {name: machine.findall((ROOT / name).read_bytes()) for name in names}
    assert {name: paths for name, paths in found.items() if paths} == {}
