"""The key of a step: what its result depends on, as one sha256.

Equal keys mean equal results, whatever commit, checkout, machine or teammate they come from: an
edit in README or in a step that this one does not import changes nothing, an uncommitted edit does.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from storage.repro.checkout import ROOT

ENVIRONMENT = ("requirements.txt", "python_env.yaml")  # every package and Python, exact
# what changes who asks, how fast it goes or where it is looked for, and never a number
IRRELEVANT = {"developer", "plan", "reuse", "rollback", "scheduler"}
N_SHOWN = 40  # characters of a value, in a line
SHA256 = re.compile(r"[0-9a-f]{64}")
# what enters as an input instead: months by their bytes, runs to build on by theirs
INPUTS = re.compile(r"source|.*_(months|run_id)")


class StepKey(NamedTuple):
    """What a step's result depends on; `sha256` is its short name."""

    step: str
    parameters: dict[str, Any]  # typed, so that 0.10 and 0.1 are one
    inputs: dict[str, str]  # what goes in -> its sha256, or the key of the step that made it
    code: dict[str, str]  # file of this repository -> its sha256
    environment: dict[str, str]  # lock -> its sha256

    @property
    def sha256(self) -> str:
        """Hash all of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Write it down; equal keys are equal texts."""
        return json.dumps(self._asdict(), indent=1, sort_keys=True)


def make(
    step: str, parameters: Mapping[str, Any], inputs: Mapping[str, str], root: Path = ROOT
) -> StepKey:
    """Make the key of a step.

    Args:
        step: entry point; its code is steps/<step>.py and what that imports in this repository.
        parameters: name -> typed value; those that no number depends on are left out here.
        inputs: what goes in -> its sha256 or key.
    """
    return StepKey(
        step,
        {name: value for name, value in parameters.items() if _counts(name)},
        dict(inputs),
        code(step, root),
        {name: _sha256(root / name) for name in ENVIRONMENT},
    )


@cache
def code(step: str, root: Path = ROOT) -> dict[str, str]:
    """Hash the files that a step can reach by import: path in the repository -> sha256.

    The first answer stays: a process runs the code it has read, not what an editor wrote since.
    """
    found: set[Path] = set()
    waiting = [_entry(step, root)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path, root)
    return {path.relative_to(root).as_posix(): _sha256(path) for path in sorted(found)}


def _entry(step: str, root: Path) -> Path:
    """Find the file that `python -m steps.<step>` runs."""
    package = root / "steps" / step / "__main__.py"
    return package if package.is_file() else root / "steps" / f"{step}.py"


def difference(then: Mapping[str, Any], now: StepKey) -> list[str]:
    """Name what differs between a key written down earlier and this one, the likeliest first."""
    before = {part: then.get(part) or {} for part in StepKey._fields}
    return [
        *(f"{path} changed" for path in _changed(before["code"], now.code)),
        *_said(before["parameters"], now.parameters),
        *_said(before["inputs"], now.inputs),
        *(f"{name} changed" for name in _changed(before["environment"], now.environment)),
    ]


def _counts(name: str) -> bool:
    return name not in IRRELEVANT and not INPUTS.fullmatch(name)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _said(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in _changed(before, now):
        if " " in name and not (name in before and name in now):
            continue  # a month that came or went: the list of months says so
        then, value = (str(values.get(name, "not there")) for values in (before, now))
        if SHA256.fullmatch(then) and SHA256.fullmatch(value):
            yield f"{name} changed"
        else:
            yield f"{name}={value[:N_SHOWN]} (was {then[:N_SHOWN]})"


@cache
def _imported(path: Path, root: Path) -> frozenset[Path]:
    """List the files of this repository that a file imports, wherever in it the import stands."""
    package = path.relative_to(root).parts[:-1]
    found = set()
    for name in _names(path.read_text(), package):
        parts = name.split(".")
        for n_parts in range(1, len(parts) + 1):  # importing a.b runs a's __init__ too
            place = root.joinpath(*parts[:n_parts])
            found |= {place.with_suffix(".py"), place / "__init__.py"}
    return frozenset(file for file in found if file.is_file())


def _names(text: str, package: tuple[str, ...]) -> Iterator[str]:
    """Name in full what a text of Python imports; `from a import b` is a.b."""
    for node in _statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = [*start, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the statements at any depth; no import stands in an expression."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from _statements(child)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
