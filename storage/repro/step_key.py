"""The key of a step: what its result depends on, as one sha256.

Equal keys mean equal results, whatever commit, checkout, machine or teammate they come from. Code
counts by its meaning: an edit of a comment, a docstring or a help text changes no key, nor does one
in a file that the step does not use; an uncommitted edit counts like any other.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from storage.checkout import ROOT
from storage.environment import OWN_PACKAGES
from storage.repro import meanings

ENVIRONMENT = ("requirements.txt", "python_env.yaml")  # pin every package, and Python, exactly
# the packages that numbers come from: --env-manager local runs whatever is installed
NUMERIC_PACKAGES = (
    *("holidays", "hyperopt", "numpy", "pandas", "pyarrow"),
    *("pyshp", "scikit-learn", "scipy", "shapely", "xgboost"),
)
# Files and folders that decide whether and where a step runs, where its input comes from and what
# its run is called: a step imports them, but its result does not depend on them.
FRAME = (
    "steps/common/cleaned_months.py",  # yields the same trips as cleaning them anew
    "steps/common/cluster_cleaning.py",  # the same trips, too
    "steps/common/command_line.py",
    "steps/common/parameter_file.py",
    "steps/common/declaration.py",
    "steps/common/parameters.py",  # values enter the key one by one
    "steps/common/step.py",
    "steps/common/pipeline.py",
    "steps/common/page.py",
    "steps/common/results.py",  # a run whose outputs can no longer be read is not reused
    "steps/common/validate.py",
    "steps/register/rollback.py",
    "steps/register/verdict.py",
    "storage/checkout.py",
    "storage/cluster/",
    "storage/environment.py",
    "storage/git.py",
    "storage/interruptions.py",
    "storage/repro/",
    "storage/scratch.py",
    "storage/data/cache.py",
    "storage/data/downloads.py",  # months enter the key by the sha256 of their bytes
    "storage/data/manifest.py",
    "storage/data/splits.py",  # the split of each month enters the key, too
    "storage/terminal.py",
    "storage/tracking/closing.py",
    "storage/tracking/datasets.py",
    "storage/tracking/duplicates.py",
    "storage/tracking/names.py",
    "storage/tracking/pages.py",
    "storage/tracking/processes.py",
    "storage/tracking/query.py",
    "storage/tracking/refusals.py",
    "storage/tracking/registry_lock.py",
    "storage/tracking/runs.py",
    "storage/tracking/stale_runs.py",
    "storage/tracking/store.py",
    "storage/tracking/tags.py",
    "storage/uris.py",
    "taxi/freed_memory.py",
)
N_SHOWN = 40  # characters of a value, in a line
SHA256 = re.compile(r"[0-9a-f]{64}")


class StepKey(NamedTuple):
    """What a step's result depends on; `sha256` is its short name."""

    step: str
    parameters: dict[str, Any]  # typed, so that 0.10 and 0.1 are equal
    inputs: dict[str, str]  # input -> its sha256, or the key of the step that made it
    code: dict[str, str]  # file of this repository -> sha256 of its meaning
    environment: dict[str, str]  # lock -> its sha256; and versions that differ from the lock

    @property
    def sha256(self) -> str:
        """The digest of the whole key."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the key as JSON; equal keys give equal texts."""
        return json.dumps(self._asdict(), indent=1, sort_keys=True)


def make(
    step: str, parameters: Mapping[str, Any], inputs: Mapping[str, str], root: Path = ROOT
) -> StepKey:
    """Make the key of a step.

    Args:
        step: entry point; its code is what it imports in this repository, FRAME left out.
        parameters: those that the result depends on: name -> typed value.
        inputs: input -> its sha256 or key.
        root: the repository.
    """
    environment = {name: hashlib.sha256((root / name).read_bytes()) for name in ENVIRONMENT}
    return StepKey(
        step,
        dict(parameters),
        dict(inputs),
        code(step, root),
        {name: digest.hexdigest() for name, digest in environment.items()}
        | version_differences(root),
    )


def read_loaded(root: Path = ROOT) -> None:
    """Read the files of all loaded modules now: their current text is what this process runs.

    Other files are forgotten and read again when needed: they may be edited before they are loaded.
    """
    names = [name for name in sys.modules if name.partition(".")[0] in (*OWN_PACKAGES, "__main__")]
    files = filter(None, (getattr(sys.modules[name], "__file__", None) for name in names))
    loaded = {(path, root) for path in map(Path, files) if path.is_relative_to(root)}
    for place in _FILES.keys() - loaded:
        del _FILES[place]
    code_reached.cache_clear()
    for place in loaded:
        _read(*place)
    meanings.save_cache()


@cache
def version_differences(root: Path = ROOT) -> dict[str, str]:
    """Return what differs from the lock: Python or package -> the version that is installed."""
    pinned = re.findall(r'^python: "(\d+\.\d+)', (root / "python_env.yaml").read_text(), re.M)
    lock = re.findall(r"^([\w.-]+)==([^\s;\\]+)", (root / "requirements.txt").read_text(), re.M)
    running = {"Python": "{}.{}".format(*sys.version_info)}
    running |= {name: version(name) for name in NUMERIC_PACKAGES}
    known = {*lock, *(("Python", minor) for minor in pinned)}
    return {name: seen for name, seen in running.items() if (name, seen) not in known}


def code(step: str, root: Path = ROOT) -> dict[str, str]:
    """Hash the files that a step's result depends on: path in the repository -> sha256."""
    return code_reached(_entry(step, root).relative_to(root).as_posix(), root=root)


@cache
def code_reached(*files: str, root: Path = ROOT) -> dict[str, str]:
    """Hash files of the repository and what they import, FRAME left out: path -> sha256.

    Cached: a process runs the code that it has read, not later edits.
    """
    reached: set[Path] = set()
    waiting = [root / file for file in files]
    while waiting:
        path = waiting.pop()
        if path not in reached and not path.relative_to(root).as_posix().startswith(FRAME):
            reached.add(path)
            waiting += _read(path, root).imports
    meanings.save_cache()
    return {path.relative_to(root).as_posix(): _read(path, root).sha256 for path in sorted(reached)}


def key_differences(then: Mapping[str, Any], now: StepKey) -> list[str]:
    """List the differences between an earlier key and this one, the likeliest cause first."""
    before = {part: then.get(part) or {} for part in StepKey._fields}
    return [
        *(f"{path} changed" for path in _changed_names(before["code"], now.code)),
        *_describe_values(before["parameters"], now.parameters),
        *_describe_values(before["inputs"], now.inputs),
        *_describe_values(before["environment"], now.environment, missing="as locked"),
    ]


def _changed_names(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _describe_values(
    before: Mapping[str, Any], now: Mapping[str, Any], missing: str = "not there"
) -> Iterator[str]:
    for name in _changed_names(before, now):
        if " " in name and not (name in before and name in now):
            continue  # an added or removed month: the list of months shows it
        then, value = (str(values.get(name, missing)) for values in (before, now))
        if SHA256.fullmatch(then) and SHA256.fullmatch(value):
            yield f"{name} changed"
        else:
            yield f"{name}={value[:N_SHOWN]} (was {then[:N_SHOWN]})"


class _File(NamedTuple):
    """The meaning of a file of this repository, and the files that it imports."""

    sha256: str
    imports: frozenset[Path]


def _entry(step: str, root: Path) -> Path:
    """Find the file that `python -m steps.<step>` runs."""
    places = (f"{step}/__main__.py", f"{step}.py", f"pipelines/{step}.py")
    return next(path for place in places if (path := root / "steps" / place).is_file())


_FILES: dict[tuple[Path, Path], _File] = {}  # file and root -> what was read first


def _read(path: Path, root: Path) -> _File:
    if (path, root) not in _FILES:
        meaning = meanings.read_meaning(path.read_bytes(), path.relative_to(root).parts[:-1])
        files = (_files_of(name, root) for name in meaning.imports)
        _FILES[path, root] = _File(meaning.sha256, frozenset(chain.from_iterable(files)))
    return _FILES[path, root]


@cache
def _files_of(name: str, root: Path) -> list[Path]:
    """List the files of the repository that run when a name is imported."""
    package, _, _ = name.rpartition(".")
    above = _files_of(package, root) if package else []  # importing a.b runs a's __init__ too
    place = root.joinpath(*name.split("."))
    files = (place.with_suffix(".py"), place / "__init__.py")
    return above + [file for file in files if file.is_file()]
