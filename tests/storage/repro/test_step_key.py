"""What a step's key depends on, and what it does not."""

import subprocess
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType

import pytest

from storage.checkout import ROOT
from storage.repro import step_key
from storage.repro.meanings import read_meaning
from storage.repro.step_key import StepKey

CODE = {
    "steps/__init__.py": "import storage.tracking.trials\n",
    "steps/hpo/__init__.py": "",
    "steps/hpo/__main__.py": "from steps.hpo import search\nfrom steps.common import pipeline\n",
    "steps/hpo/search.py": "from taxi import search, TripError\nif 1:\n    import taxi.zones\n",
    "steps/common/__init__.py": "",
    "steps/common/pipeline.py": "import taxi.baselines\n",
    "steps/main.py": "import taxi.search\n",
    "storage/__init__.py": "",
    "storage/tracking/__init__.py": "",
    "storage/tracking/trials.py": "from . import models\n",
    "storage/tracking/models.py": "import os\n",
    "taxi/__init__.py": "class TripError(ValueError): ...\n",
    "taxi/search.py": "import numpy as np\nfrom .points import Point\n",
    "taxi/points.py": "from __future__ import annotations\n",
    "taxi/zones.py": "",
    "taxi/baselines.py": "",
    "requirements.txt": "numpy==2\n",
    "python_env.yaml": 'python: "3.11.7"\n',
    "README.md": "",
}
PARAMETERS = {"seed": 42, "rate": 0.1}
INSTALLED = {name: version(name) for name in step_key.NUMERIC_PACKAGES}


def checkout(folder: Path, **edits: str) -> Path:
    """Write a checkout; `edits` are appended to the files that they name."""
    for name, text in CODE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + edits.get(name, ""))
    return folder


def key(root: Path, parameters: dict[str, object] | None = None, **inputs: str) -> StepKey:
    return step_key.make("hpo", parameters or PARAMETERS, inputs, root)


def test_another_checkout_with_the_same_content_has_the_same_key(tmp_path: Path) -> None:
    mine, theirs = checkout(tmp_path / "mine"), checkout(tmp_path / "theirs")
    assert key(mine).sha256 == key(theirs).sha256
    assert key(mine).to_json() == key(theirs).to_json()


def test_a_key_covers_what_the_step_imports_wherever_the_import_stands(tmp_path: Path) -> None:
    assert set(key(checkout(tmp_path)).code) == {
        *("steps/__init__.py", "steps/common/__init__.py"),
        *("steps/hpo/__init__.py", "steps/hpo/__main__.py", "steps/hpo/search.py"),
        *("storage/__init__.py", "storage/tracking/__init__.py"),
        *("storage/tracking/models.py", "storage/tracking/trials.py"),
        *("taxi/__init__.py", "taxi/points.py", "taxi/search.py", "taxi/zones.py"),
    }


@pytest.mark.parametrize("name", CODE)
def test_an_edit_counts_where_the_step_can_reach_it_and_only_there(
    tmp_path: Path, name: str
) -> None:
    before = key(checkout(tmp_path / "before"))
    after = key(checkout(tmp_path / "after", **{name: "EDITED = True\n"}))
    # code that only decides whether a step runs does not count, nor does what only it imports
    unreachable = {"steps/common/pipeline.py", "steps/main.py", "taxi/baselines.py", "README.md"}
    assert (before.sha256 == after.sha256) == (name in unreachable)
    changes = [] if name in unreachable else [f"{name} changed"]
    assert step_key.key_differences(before._asdict(), after) == changes


def test_what_is_installed_counts_where_the_lock_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # tests run in the locked environment, with whichever Python
    assert set(step_key.version_differences()) <= {"Python"}
    before = step_key.make("hpo", {}, {})
    python = before.environment.get("Python", "as locked")
    step_key.version_differences.cache_clear()
    monkeypatch.setattr(sys, "version_info", (3, 99, 1))
    monkeypatch.setattr(step_key, "version", {**INSTALLED, "numpy": "2.0.1"}.__getitem__)
    after = step_key.make("hpo", {}, {})
    step_key.version_differences.cache_clear()
    assert step_key.key_differences(before._asdict(), after) == [
        f"Python=3.99 (was {python})",
        "numpy=2.0.1 (was as locked)",
    ]


@pytest.mark.parametrize(("running", "seen"), [((3, 11, 99), {}), ((3, 12, 7), {"Python": "3.12"})])
def test_a_python_counts_by_its_minor_version(
    running: tuple[int, int, int],
    seen: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = checkout(tmp_path)  # which pins 3.11.7
    (root / "requirements.txt").write_text("".join(f"{n}=={v}\n" for n, v in INSTALLED.items()))
    monkeypatch.setattr(sys, "version_info", running)
    assert step_key.version_differences(root) == seen


def test_another_commit_with_the_same_content_has_the_same_key(tmp_path: Path) -> None:
    before, root = key(checkout(tmp_path / "before")), checkout(tmp_path / "after")
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    assert key(root).sha256 == before.sha256


def test_parameters_count_by_value_and_inputs_by_content(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    then = key(root, train="a" * 64)
    assert key(root, {"rate": float("0.10"), "seed": int("042")}, train="a" * 64) == then
    for other in (
        key(root, {"rate": 0.2, "seed": 42}, train="a" * 64),
        key(root, {"rate": 0.1}, train="a" * 64),
        key(root, train="b" * 64),
        key(root),
    ):
        assert other.sha256 != then.sha256


BODY = '''"""What it does."""

def double(number, *, twice=2):
    """Double a number."""
    return number * twice  # as it says

class Empty:
    """Nothing."""
'''


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("  # as it says", "", True),
        ('"""Double a number."""', '"""Multiply a number by two."""', True),
        ('    """Double a number."""\n', "", True),
        ('"""What it does."""', '"""What it does not."""', True),
        ('    """Nothing."""', "    pass", True),
        ("number * twice", "(number *\n        twice)", True),
        ("twice=2", "twice=3", False),
        ("number * twice", "twice * number", False),
        ("return number * twice", "return 'Double a number.'", False),
    ],
)
def test_code_counts_by_its_meaning(tmp_path: Path, before: str, after: str, is_same: bool) -> None:
    assert BODY.count(before) == 1
    first = key(checkout(tmp_path / "a", **{"taxi/zones.py": BODY}))
    second = key(checkout(tmp_path / "b", **{"taxi/zones.py": BODY.replace(before, after)}))
    assert (first.sha256 == second.sha256) == is_same


def test_a_difference_is_told_by_value_where_a_person_can_read_it(tmp_path: Path) -> None:
    then = key(checkout(tmp_path), test="2021-03", **{"test 2021-03": "a" * 64, "month": "c" * 64})
    now = key(
        tmp_path,
        {"rate": 0.2, "seed": 42},
        test="2021-04",
        **{"test 2021-04": "b" * 64, "month": "d" * 64},
    )
    assert step_key.key_differences(then._asdict(), now) == [
        "rate=0.2 (was 0.1)",
        "month changed",
        "test=2021-04 (was 2021-03)",
    ]


def files(*names: str) -> set[str]:
    """Return the paths of files of taxi/."""
    return {f"taxi/{name}.py" for name in names}


FEATURES = files("features", "columns", "geometry", "one_hot", "surroundings", "days", "zones")
MODEL = FEATURES | files("__init__", "schema", "city", "learned_map")
MODEL |= files("model", "leaves", "expected_loss", "spread", "request_params", "request", "values")
MODEL |= files("threads")
SERVED = MODEL | files("live", "live_file", "recipes", "coverage", "distances", "drift", "profile")
PICTURES = files("style", "words")
SERVED |= PICTURES | files("groups")
SCORED = SERVED | files("evaluation", "breakdown", "scores", "worst")
BOOSTERS = files("boosting", "batches", "encoding", "spaces", "rows", "maps", "threads")
SEARCH = files("search", "search_results", "search_pictures")
LINEAR = files("baselines", "least_squares", "sampling")
FACTS = {
    "preprocess": files("__init__", "schema", "matching", "values", "cleaning", "profile")
    | files("simulation", "simulated_files", "city", "maps", "plausibility")
    | PICTURES,
    "baseline": SCORED | LINEAR,
    "hpo": SCORED | BOOSTERS | SEARCH | files("ensemble", "sampling"),
    "register": SCORED
    | BOOSTERS
    | LINEAR
    | files("fitting", "bootstrap", "card", "gate", "slices", "scrollable"),
}


@pytest.mark.parametrize("step", FACTS)
def test_a_step_is_known_by_what_can_change_its_result_and_no_more(step: str) -> None:
    reached = set(step_key.code(step))
    assert {path for path in reached if path.startswith("taxi/")} == FACTS[step]
    assert not {path for path in reached if path.startswith(step_key.FRAME)}
    months = {f"storage/data/{name}.py" for name in ("files", "months", "sources")}
    assert (months & reached == months) if step == "preprocess" else not months & reached


def test_every_package_that_facts_come_from_is_held_against_the_lock() -> None:
    others = {"joblib", "threadpoolctl", "matplotlib", "skops"}  # threads, pictures, files
    imported = {
        name.partition(".")[0]
        for path in set().union(*FACTS.values())
        for name in read_meaning((ROOT / path).read_bytes(), ["taxi"]).imports
    }
    packages = packages_distributions()
    came_from = {package for name in imported for package in packages.get(name, ())}
    assert {"numpy", "scikit-learn"} < came_from - others <= set(step_key.NUMERIC_PACKAGES)


def test_the_frame_names_files_that_are_there() -> None:
    assert [name for name in step_key.FRAME if not (ROOT / name).exists()] == []


def test_a_file_that_is_not_loaded_is_read_when_it_is(tmp_path: Path) -> None:
    """The fork server has read more files than it has imported."""
    (tmp_path / "taxi").mkdir()
    (tmp_path / "taxi" / "late.py").write_text("A = 1")
    before = step_key.code_reached("taxi/late.py", root=tmp_path)
    (tmp_path / "taxi" / "late.py").write_text("A = 2")
    assert step_key.code_reached("taxi/late.py", root=tmp_path) == before
    step_key.read_loaded(tmp_path)
    assert step_key.code_reached("taxi/late.py", root=tmp_path) != before


def test_a_loaded_file_stays_what_it_was_when_it_was_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taxi").mkdir()
    path = tmp_path / "taxi" / "early.py"
    path.write_text("A = 1")
    loaded = ModuleType("taxi.early")
    loaded.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "taxi.early", loaded)
    step_key.read_loaded(tmp_path)
    path.write_text("A = 2")
    before = step_key.code_reached("taxi/early.py", root=tmp_path)
    step_key.read_loaded(tmp_path)
    assert step_key.code_reached("taxi/early.py", root=tmp_path) == before
