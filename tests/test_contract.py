"""Rules between the parts of this project, checked on the files themselves."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from steps.common.command_line import make_parser
from steps.common.declaration import Parameters
from steps.common.parameters import ENTRY_POINTS
from steps.common.pipeline import UPSTREAM
from storage.repro.imports import imported_names
from storage.repro.step_key import code
from storage.tracking import tags
from taxi.model import MODULES
from tests.entry import entry
from tools import contract, doctor

ROOT = Path(__file__).parent.parent
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
BLOCKS: dict[str, dict[str, Any]] = PROJECT["entry_points"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TREES = ("taxi", "storage", "steps", "tools", "bench")
PACKAGES = {tree: sorted((ROOT / tree).rglob("*.py")) for tree in TREES}
EVERY_FILE = [path for paths in PACKAGES.values() for path in paths]
RUNS = [*PACKAGES["taxi"], *PACKAGES["storage"], *PACKAGES["steps"]]


# --- entry points and their parameters


def declared_in(cls: type[Parameters]) -> list[type[Parameters]]:
    return [base for base in cls.__mro__ if issubclass(base, Parameters)]


def test_every_entry_point_is_a_step_and_every_step_an_entry_point() -> None:
    steps = ROOT / "steps"
    files = {path.stem for path in steps.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in steps.glob("*/__main__.py")}
    pipelines = {name for name, declared in ENTRY_POINTS.items() if declared.package != "steps"}
    assert files | packages == set(ENTRY_POINTS) - pipelines
    assert [name for name in pipelines if not find_spec(ENTRY_POINTS[name].module())] == []


def test_what_is_generated_is_what_the_declarations_say() -> None:
    """If this fails, run `make contract`."""
    for path, text in contract.generate():
        assert (ROOT / path).read_text() == text, path


@pytest.mark.parametrize("step", ENTRY_POINTS)
def test_mlflow_reads_the_parameters_and_defaults_that_are_declared(step: str) -> None:
    read = {name: str(about["default"]) for name, about in BLOCKS[step]["parameters"].items()}
    assert read == ENTRY_POINTS[step]().texts()


@pytest.mark.parametrize("step", ENTRY_POINTS)
def test_a_command_passes_every_parameter_under_its_name(step: str) -> None:
    program, *passed = BLOCKS[step]["command"].split(" --")
    assert program == f"python -m {ENTRY_POINTS[step].module()}"
    assert sorted(passed) == sorted(
        f"{name}={{{name}}}" for name in ENTRY_POINTS[step].model_fields
    )


def test_a_parameter_is_declared_in_one_class() -> None:
    classes = {base for cls in ENTRY_POINTS.values() for base in declared_in(cls)}
    own = [inspect.get_annotations(cls).keys() & cls.model_fields for cls in classes]
    names = [name for part in own for name in part]
    assert len(names) > 30
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("step", ENTRY_POINTS)
def test_a_text_means_the_value_that_it_was_written_from(step: str) -> None:
    defaults = ENTRY_POINTS[step]()
    assert ENTRY_POINTS[step](**defaults.texts()) == defaults


@pytest.mark.parametrize("step", ENTRY_POINTS)
def test_help_says_what_a_step_does_and_what_its_parameters_mean(step: str) -> None:
    description = entry(step).__doc__
    shown = " ".join(make_parser(ENTRY_POINTS[step], description).format_help().split())
    assert description.partition("\n")[0] in shown
    assert f"python -m {ENTRY_POINTS[step].module()} " in shown
    for name, field in ENTRY_POINTS[step].model_fields.items():
        assert f"--{name}" in shown
        assert field.description
        assert " ".join(field.description.replace("`", "").split()) in shown


def test_a_reworded_meaning_changes_no_key(tmp_path: Path) -> None:
    for tree in ("steps", "storage", "taxi"):
        shutil.copytree(ROOT / tree, tmp_path / tree)
    parameters = tmp_path / "steps" / "common" / "parameters.py"
    text = parameters.read_text()
    meaning = "population stability index above which a feature has drifted"
    assert text.count(meaning) == 1
    parameters.write_text(text.replace(meaning, "how much a feature may move"))
    for step in UPSTREAM:
        assert code(step, tmp_path) == code(step)


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
    oldest, newest = (".".join(map(str, end)) for end in (doctor.OLDEST, doctor.NEWEST))
    assert oldest == minor  # the lock is resolved for versions from this one on
    after = f"{doctor.NEWEST[0]}.{doctor.NEWEST[1] + 1}"
    assert PYPROJECT["project"]["requires-python"] == f">={oldest},<{after}"
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"--python-version (3[.\d]+)", makefile) == [minor]
    assert re.findall(r"for name in python(3[.\d]+)", makefile) == [minor]  # it is tried first
    for name in ("Makefile", "README.md"):
        spans = re.findall(r"Python from ([.\d]+) to ([.\d]+)", (ROOT / name).read_text())
        assert {*spans} == {(oldest, newest)}, name
    for name in (".github/workflows/ci.yml", "docs/retrain.yml"):
        assert re.findall(r'python-version: "(.+?)"', (ROOT / name).read_text()) == [exact], name
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{minor.replace('.', '')}"
    assert doctor.OLDEST <= sys.version_info[:2] <= doctor.NEWEST


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


# --- who may import whom

PICKLERS = {"pickle", "cloudpickle", "dill"}
# taxi only computes: no files, no tracking, no command line, no environment
OUTSIDE = (
    *("argparse", "fsspec", "http", "io", "mlflow", "os", "pathlib", "pooch", "requests", "shutil"),
    *("socket", "sqlite3", "steps", "storage", "subprocess", "sys", "tempfile", "urllib"),
    *("pyarrow.csv", "pyarrow.dataset", "pyarrow.fs", "pyarrow.parquet"),
)
IN_MEMORY = ("io.BytesIO", "io.StringIO")  # allowed: bytes in memory, for functions that take files


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@cache
def imports(path: Path) -> list[str]:
    return list(imported_names(tree_of(path), path.relative_to(ROOT).parts[:-1]))


def packages(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def within(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def found(look: Callable[[Path], Iterable[object]], *paths: Path) -> list[str]:
    """List what was found, one line each, with its file."""
    return [f"{path.relative_to(ROOT)}: {what}" for path in paths for what in look(path)]


def test_a_saved_model_holds_every_module_that_its_code_imports() -> None:
    def lacking(path: Path) -> list[str]:
        # what stands in a function, or for types alone, a served model does without
        above = [node for node in tree_of(path).body if isinstance(node, ast.ImportFrom)]
        imported = imported_names(ast.Module(above, []), path.relative_to(ROOT).parts[:-1])
        own = {name.split(".")[1] for name in imported if within(name, ["taxi"])}
        there = {name for name in own if (ROOT / "taxi" / f"{name}.py").is_file()}
        return [f"{name} belongs to MODULES, taxi/model.py" for name in there - {*MODULES}]

    assert found(lacking, *(ROOT / "taxi" / f"{name}.py" for name in MODULES)) == []


def test_no_step_imports_another() -> None:
    def others(path: Path) -> list[str]:
        own = path.relative_to(ROOT / "steps").with_suffix("").parts[0]
        steps = [f"steps.{step}" for step in ENTRY_POINTS if step != own]
        return [name for name in imports(path) if within(name, steps)]

    assert found(others, *PACKAGES["steps"]) == []


def test_storage_knows_neither_taxis_nor_steps() -> None:
    known = set(TREES) - {"storage"}
    assert found(lambda path: packages(imports(path)) & known, *PACKAGES["storage"]) == []


def test_taxi_only_computes() -> None:
    def outside(path: Path) -> Iterator[object]:
        yield from (name for name in {*imports(path)} - {*IN_MEMORY} if within(name, OUTSIDE))
        names = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name))
        yield from (f"open in line {node.lineno}" for node in names if node.id == "open")

    assert found(outside, *PACKAGES["taxi"]) == []


def test_taxi_imports_itself_relatively_so_that_a_copy_stands_alone() -> None:
    itself = re.compile(r"^\s*(?:from|import) taxi\b.*", re.MULTILINE)
    assert found(lambda path: itself.findall(path.read_text()), *PACKAGES["taxi"]) == []


def test_what_runs_needs_neither_tools_nor_measurements() -> None:
    beside = {"tools", "bench", "tests"}
    assert found(lambda path: packages(imports(path)) & beside, *RUNS) == []


def test_no_module_is_private() -> None:
    private = re.compile(r"_[^_]")
    parts = {path: path.relative_to(ROOT).parts for path in EVERY_FILE}
    assert found(lambda path: filter(private.match, parts[path]), *EVERY_FILE) == []


def test_a_public_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for path in [*RUNS, *PACKAGES["tools"]]:
        for node in tree_of(path).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if paths[1:]}.keys() == {"main"}


def unknown_arguments(function: ast.FunctionDef) -> set[str]:
    """Return the arguments that a function's docstring names, but that it does not have."""
    said = re.search(r"Args:\n(.*?)(?=\n\w|\Z)", ast.get_docstring(function) or "", re.DOTALL)
    named = re.findall(r"^    (\w[\w, ]*):", said[1], re.MULTILINE) if said else []
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return {name for names in named for name in names.split(", ")} - {a.arg for a in every if a}


def test_a_docstring_names_no_argument_that_is_not_there() -> None:
    def lies(path: Path) -> Iterator[object]:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef) and (names := unknown_arguments(node)):
                yield f"{node.name}: {sorted(names)}"

    assert found(lies, *EVERY_FILE) == []


def test_the_steps_are_few_packages_on_few_floors() -> None:
    packages = {
        path.relative_to(ROOT / "steps").parts[0].removesuffix(".py") for path in PACKAGES["steps"]
    }
    packages -= {"__init__"}
    arrows = {
        (importer, imported)
        for importer, imported in contract.package_imports(ROOT)
        if importer.startswith("steps/") and imported.startswith("steps/")
    }
    assert len(packages) <= 8, (
        "what main does not chain may stand in steps/pipelines, with its `package`"
    )
    assert arrows == {(f"steps/{package}", "steps/common") for package in packages - {"common"}}


def test_the_diagram_of_imports_shows_packages_that_are_there() -> None:
    packages = {package for arrow in contract.package_imports(ROOT) for package in arrow}
    there = {package for package in packages if any(ROOT.glob(f"{package}*"))}
    assert len(packages) > 10
    assert packages - there == set()


# --- what a run carries


def test_every_name_is_used_and_by_the_files_that_it_says_write_it() -> None:
    declared, users = contract.declared_names(), contract.users_of_names(ROOT)
    assert len(declared) > 50
    assert [called for called in declared if not users[called]] == []
    writers = {
        called: {w for one in names for w in one.writers} for called, names in declared.items()
    }
    wrong = {
        called: sorted(users[called]) for called in declared if writers[called] - users[called]
    }
    assert not wrong, f"of these tags.py names as writers files that do not use them: {wrong}"


def test_a_tag_is_no_bare_text() -> None:
    every = {str(value) for value in vars(tags).values() if isinstance(value, tags.Name)}
    telling = {name for name in every if re.search(r"[._]", name)}  # others may be ordinary words
    assert len(telling) > 30

    def bare(path: Path) -> Iterator[object]:
        texts = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant))
        return (f"{node.value} in line {node.lineno}" for node in texts if node.value in telling)

    own = ("tags.py", "served_model.py")  # the latter is saved with a model, without other modules
    paths = [*PACKAGES["storage"], *PACKAGES["steps"]]
    assert found(bare, *(path for path in paths if path.name not in own)) == []


# --- which modules pickle


# sends tasks to the workers of a cluster, for which cloudpickle is made; it writes no files
SENDS = ROOT / "storage" / "cluster" / "tasks.py"


def test_nothing_is_pickled() -> None:
    written = re.compile(r"\.pkl|\.pickle|cloudpickle|joblib\W+(?:import )?(?:dump|load)")

    def pickles(path: Path) -> list[str]:
        return [*(packages(imports(path)) & PICKLERS), *written.findall(path.read_text())]

    assert found(pickles, *(path for path in EVERY_FILE if path != SENDS)) == []
    assert found(pickles, SENDS) != []


def test_a_share_is_written_in_one_way() -> None:
    def shares(path: Path) -> list[str]:
        fields = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FormattedValue))
        specs = (ast.unparse(field.format_spec) for field in fields if field.format_spec)
        return [spec for spec in specs if spec.rstrip("'\"").endswith("%")]

    writes = ROOT / "taxi/words.py"
    assert found(shares, *(path for path in EVERY_FILE if path != writes)) == []
    assert found(shares, writes) != []


# --- the repository


def repository() -> list[str]:
    """List the files that are committed, or would be by `git add`."""
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
