"""The checkout that runs come from: its MLproject, its commit, what is not committed."""

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from storage.uris import existing_folder, without_credentials

ROOT = Path(__file__).resolve().parents[1]
# untracked files that can change a result; anything else untracked might be a secret
CODE = ("MLproject", "*.py", "python_env.yaml", "requirements.txt")


def as_text(value: object) -> str:
    """Write a parameter's value as MLproject and its users do: true, 7, 0.5."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


class Checkout(NamedTuple):
    """Where the code stands; empty texts where the folder is no git checkout."""

    commit: str
    repository: str  # URL of the remote, without credentials
    diff: str  # what the work tree holds beyond the commit; empty where it is clean


def read(root: Path = ROOT) -> Checkout:
    """Ask git what code is about to run."""
    return Checkout(
        commit=_git(root, "rev-parse", "HEAD").strip(),
        repository=without_credentials(_git(root, "remote", "get-url", "origin").strip()),
        diff=_git(root, "diff", "HEAD", "--binary") + _untracked(root),
    )


def user_name(root: Path = ROOT) -> str:
    """Return the name of the git user, empty where there is none."""
    return _git(root, "config", "user.name").strip()


def run_command(
    entry_point: str, values: Mapping[str, str], *, experiment: str, code: Checkout | None = None
) -> str:
    """Write the command that runs an entry point again, quoted for a shell.

    Args:
        entry_point: of MLproject.
        values: the texts of its parameters, those that are to be in the command.
        experiment: its name: what it holds is reused, what another one holds is not.
        code: what ran; without it what is here now.
    """
    code = code or read()
    words = ["mlflow", "run", code.repository or ".", "--env-manager", "uv"]
    words += ["--experiment-name", experiment]
    if entry_point != "main":
        words += ["-e", entry_point]
    if code.repository and code.commit:
        words += ["-v", code.commit]
    for name, text in values.items():
        words += ["-P", f"{name}={text}"]
    return shlex.join(words)


def portable(source: str, root: Path = ROOT) -> str:
    """Write a source so that it means the same from any folder, without credentials."""
    if "://" in source:
        return without_credentials(source)
    folder = existing_folder(source)
    return str(folder) if folder and not folder.is_relative_to(root) else source


def _untracked(root: Path) -> str:
    # -z: otherwise names that are not ASCII come quoted
    names = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *CODE).split("\0")
    return "".join(
        _git(root, "diff", "--no-index", "--", os.devnull, name) for name in names if name
    )


def _git(root: Path, *arguments: str) -> str:
    # a checkout may be broken, absent, or git may be: each is «not known», never a failed run
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, errors="replace"
        )
    except OSError:
        return ""
    # `diff --no-index` answers 1 where it found a difference
    return done.stdout if done.returncode in (0, 1) else ""
