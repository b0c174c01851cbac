"""The checkout that runs: its MLproject, its commit and its uncommitted changes."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from storage import git
from storage.git import GitError
from storage.uris import existing_folder, without_credentials

ROOT = Path(__file__).resolve().parents[1]
UNKNOWN = "unknown"
PROJECT_FILE = "MLproject"
# untracked files that can change a result; anything else untracked might be a secret
CODE = (PROJECT_FILE, "*.py", "python_env.yaml", "requirements.txt")


def as_text(value: object) -> str:
    """Write a parameter's value as MLproject and its users do: true, 7, 0.5."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


class Checkout(NamedTuple):
    """The state of the code; empty texts if git does not tell."""

    commit: str
    repository: str  # URL or folder of the remote, without credentials
    diff: str  # uncommitted changes of the work tree; empty if it is clean
    unknown: str = ""  # why git cannot tell which code runs; empty if it can

    @property
    def dirty(self) -> str:
        """Return whether uncommitted code runs: true, false, or unknown."""
        return UNKNOWN if self.unknown else as_text(bool(self.diff))

    @property
    def url(self) -> str:
        """Return the remote if `mlflow run` would clone it; empty if it would fetch into it."""
        return "" if is_folder(self.repository) else self.repository


def read(root: Path = ROOT) -> Checkout:
    """Ask git which code is about to run."""
    commit = repository = ""
    try:
        commit = _head(root)
        repository = without_credentials(_remote(root))
        return Checkout(commit, repository, _difference(root, commit))
    except GitError as error:
        return Checkout(commit, repository, "", str(error))


def is_folder(remote: str) -> bool:
    """Whether a remote is a local folder, by git's rule for addresses.

    `mlflow run` would not clone it but fetch into that very folder, which moves the HEAD of a
    checkout, and hides what a bare repository contains.
    """
    return re.match(r"(?!file:)[^/]+:", remote) is None


def is_unpushed(commit: str, root: Path = ROOT) -> bool:
    """Whether no remote branch or tag contains a commit; False if there is no remote branch."""
    try:
        known = git.run_git(root, "for-each-ref", "--count=1", "refs/remotes")
        where = (f"--contains={commit}", "refs/remotes", "refs/tags")
        return bool(known) and not git.run_git(root, "for-each-ref", "--count=1", *where)
    except GitError:  # such as in a clone of one commit
        return False


def committed_path(path: Path, content: bytes, root: Path = ROOT) -> str:
    """Return a file's path in this project if the commit has it with this content; else empty."""
    try:
        relative = path.resolve().relative_to(root).as_posix()
        held = git.run_git(root, "cat-file", "blob", f"{_head(root)}:./{relative}")
    except (GitError, OSError, RuntimeError, ValueError):  # outside, or in no commit
        return ""
    is_held = held.encode(errors=git.ANY_BYTE).splitlines() == content.splitlines()
    return relative if is_held else ""


def user_name(root: Path = ROOT) -> str:
    """Return the name of the git user; empty if there is none."""
    try:
        return git.run_git(root, "config", "user.name").strip()
    except GitError:
        return ""


def run_command(
    entry_point: str, values: Mapping[str, str], *, experiment: str, code: Checkout | None = None
) -> str:
    """Write the command that runs an entry point again, quoted for a shell.

    Args:
        entry_point: of MLproject.
        values: the parameters to name in the command -> their values as text.
        experiment: its name; results of other experiments are not reused.
        code: the code that ran; None = the code that is here now.
    """
    code = code or read()
    words = ["mlflow", "run", code.url or ".", "--env-manager", "uv"]
    words += ["--experiment-name", experiment]
    if entry_point != "main":
        words += ["-e", entry_point]
    if code.url and code.commit:
        words += ["-v", code.commit]
    for name, text in values.items():
        words += ["-P", f"{name}={text}"]
    return shlex.join(words)


def portable_source(source: str) -> str:
    """Return a source, without credentials, so that it means the same from any folder."""
    if "://" in source:
        return without_credentials(source)
    folder = existing_folder(source)
    return str(folder) if folder and not folder.is_relative_to(ROOT) else source


def _head(root: Path) -> str:
    """Return the commit of this code."""
    git.run_git(root, "rev-parse", "--git-dir")
    try:
        head = git.run_git(root, "rev-parse", "--verify", "HEAD").strip()
    except GitError as error:
        raise GitError("there is no commit yet") from error
    # the repository may be that of a parent folder, which does not contain this code
    git.run_git(root, "rev-parse", f"{head}:./{PROJECT_FILE}")
    return head


def _remote(root: Path) -> str:
    """Return the URL or folder of origin, or of the only remote; empty if there is none."""
    # `git remote get-url` would apply the user's own abbreviations (url.*.insteadOf)
    settings = git.run_git(root, "config", "--local", "--null", "--list").split("\0")
    pairs = [setting.partition("\n") for setting in settings]
    urls = {
        name: url for name, _, url in pairs if name.startswith("remote.") and name.endswith(".url")
    }
    only = next(iter(urls.values())) if len(urls) == 1 else ""
    remote = urls.get("remote.origin.url", only)
    folder = existing_folder(f"{root}/{remote}") if remote and not remote.startswith("/") else None
    return str(folder) if folder and is_folder(remote) else remote


def _difference(root: Path, commit: str) -> str:
    with git.fresh_copy(root, commit) as env:
        excluded = "--exclude-per-directory=.gitignore"
        new = git.run_git(root, "ls-files", "-z", "--others", excluded, "--", *CODE, env=env)
        if new:
            named = ("--pathspec-from-file=-", "--pathspec-file-nul")
            added = ("--literal-pathspecs", "add", "--intent-to-add")
            git.run_git(root, *added, *named, stdin=new, env=env)
        diff = git.run_git(root, "diff", "--binary", "--no-renames", commit, "--", ".", env=env)
    return diff.encode(errors=git.ANY_BYTE).decode(errors="replace")
