"""What a step's key depends on, and what it does not."""

import subprocess
from pathlib import Path

import pytest

from storage.repro import step_key
from storage.repro.checkout import ROOT
from storage.repro.step_key import StepKey

CODE = {
    "steps/__init__.py": "import storage.tracking.runs\n",
    "steps/hpo.py": "from steps import _shared\nfrom taxi import search, TripError\n",
    "steps/_shared.py": "def lazily():\n    import taxi.zones\n",
    "steps/main.py": "import taxi.search\n",
    "storage/__init__.py": "",
    "storage/runs.py": "from . import checkout\n",
    "storage/checkout.py": "import os\n",
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


def checkout(folder: Path, **edits: str) -> Path:
    """Write a checkout; edits are text at the end of a file."""
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
        *("steps/__init__.py", "steps/_shared.py", "steps/hpo.py"),
        *("storage/__init__.py", "storage/checkout.py", "storage/runs.py"),
        *("taxi/__init__.py", "taxi/points.py", "taxi/search.py", "taxi/zones.py"),
    }


@pytest.mark.parametrize("name", CODE)
def test_an_edit_counts_where_the_step_can_reach_it_and_only_there(
    tmp_path: Path, name: str
) -> None:
    before = key(checkout(tmp_path / "before"))
    after = key(checkout(tmp_path / "after", **{name: "# edited\n"}))
    unreachable = {"steps/main.py", "taxi/baselines.py", "README.md"}
    assert (before.sha256 == after.sha256) == (name in unreachable)
    changes = [] if name in unreachable else [f"{name} changed"]
    assert step_key.difference(before._asdict(), after) == changes


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


@pytest.mark.parametrize(
    "name", ["developer", "reuse", "plan", "scheduler", "source", "train_months", "hpo_run_id"]
)
def test_what_changes_no_number_is_not_in_the_key(tmp_path: Path, name: str) -> None:
    root = checkout(tmp_path)
    assert key(root, PARAMETERS | {name: "ana"}).sha256 == key(root).sha256


def test_a_difference_is_told_by_value_where_a_person_can_read_it(tmp_path: Path) -> None:
    then = key(checkout(tmp_path), test="2021-03", **{"test 2021-03": "a" * 64, "month": "c" * 64})
    now = key(
        tmp_path,
        {"rate": 0.2, "seed": 42},
        test="2021-04",
        **{"test 2021-04": "b" * 64, "month": "d" * 64},
    )
    assert step_key.difference(then._asdict(), now) == [
        "rate=0.2 (was 0.1)",
        "month changed",
        "test=2021-04 (was 2021-03)",
    ]


@pytest.mark.parametrize(
    ("step", "elsewhere"),
    [
        (
            "hpo",
            {"taxi/baselines.py", "taxi/cleaning.py", "taxi/simulation.py", "steps/main/plan.py"},
        ),
        (
            "baseline",
            {"taxi/search.py", "taxi/spaces.py", "taxi/cleaning.py", "storage/tracking/trials.py"},
        ),
        (
            "preprocess",
            {"taxi/search.py", "taxi/baselines.py", "taxi/model.py", "taxi/features.py"},
        ),
    ],
)
def test_the_steps_here_do_not_reach_each_others_code(step: str, elsewhere: set[str]) -> None:
    assert all((ROOT / name).is_file() for name in elsewhere)
    assert set(step_key.code(step)) & elsewhere == set()
    entry = ROOT / "steps" / step / "__main__.py"
    name = entry if entry.is_file() else ROOT / "steps" / f"{step}.py"
    assert name.relative_to(ROOT).as_posix() in step_key.code(step)
