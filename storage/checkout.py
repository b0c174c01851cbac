"""The checkout that runs come from: its MLproject, its commit, what is not committed."""

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
    """Where the code stands; empty texts where git does not tell."""

    commit: str
    repository: str  # URL or folder of the remote, without credentials
    diff: str  # what the work tree holds beyond the commit; empty where it is clean
    unknown: str = ""  # why git does not answer for the code that runs; empty where it does

    @property
    def dirty(self) -> str:
        """Return whether code runs that is in no commit: true, false, or unknown."""
        return UNKNOWN if self.unknown else as_text(bool(self.diff))

    @property
    def url(self) -> str:
        """Return the remote where `mlflow run` clones it, and does not fetch into it."""
        return "" if is_folder(self.repository) else self.repository


def read(root: Path = ROOT) -> Checkout:
    """Ask git what code is about to run."""
    commit = repository = ""
    try:
        commit = _head(root)
        repository = without_credentials(_remote(root))
        return Checkout(commit, repository, _difference(root, commit))
    except GitError as error:
        return Checkout(commit, repository, "", str(error))


def is_folder(remote: str) -> bool:
    """Whether a remote is a folder of this machine, by git's rule for an address.

    `mlflow run` takes it for a checkout of its own: it fetches into that very folder, which moves
    the HEAD of a checkout, and hides what a bare repository holds.
    """
    return re.match(r"(?!file:)[^/]+:", remote) is None


def is_unpushed(commit: str, root: Path = ROOT) -> bool:
    """Whether no branch that git has pushed or fetched holds a commit; False where it has none."""
    try:
        known = git.ask(root, "for-each-ref", "--count=1", "refs/remotes")
        where = (f"--contains={commit}", "refs/remotes", "refs/tags")
        return bool(known) and not git.ask(root, "for-each-ref", "--count=1", *where)
    except GitError:  # a clone that holds one commit alone, say
        return False


def committed_path(path: Path, content: bytes, root: Path = ROOT) -> str:
    """Return a file's path in this project if its commit holds this content; else nothing."""
    try:
        relative = path.resolve().relative_to(root).as_posix()
        held = git.ask(root, "cat-file", "blob", f"{_head(root)}:./{relative}")
    except (GitError, OSError, RuntimeError, ValueError):  # outside, or in no commit
        return ""
    is_held = held.encode(errors=git.ANY_BYTE).splitlines() == content.splitlines()
    return relative if is_held else ""


def user_name(root: Path = ROOT) -> str:
    """Return the name of the git user, empty where there is none."""
    try:
        return git.ask(root, "config", "user.name").strip()
    except GitError:
        return ""


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
    words = ["mlflow", "run", code.url or ".", "--env-manager", "uv"]
    words += ["--experiment-name", experiment]
    if entry_point != "main":
        words += ["-e", entry_point]
    if code.url and code.commit:
        words += ["-v", code.commit]
    for name, text in values.items():
        words += ["-P", f"{name}={text}"]
    return shlex.join(words)


def portable(source: str) -> str:
    """Write a source so that it means the same from any folder, without credentials."""
    if "://" in source:
        return without_credentials(source)
    folder = existing_folder(source)
    return str(folder) if folder and not folder.is_relative_to(ROOT) else source


def _head(root: Path) -> str:
    """Return the commit that this code is of."""
    git.ask(root, "rev-parse", "--git-dir")
    try:
        head = git.ask(root, "rev-parse", "--verify", "HEAD").strip()
    except GitError as error:
        raise GitError("there is no commit yet") from error
    # the repository may be that of a folder further up, which does not hold this code
    git.ask(root, "rev-parse", f"{head}:./{PROJECT_FILE}")
    return head


def _remote(root: Path) -> str:
    """Return the URL or folder of origin, or of the only remote; empty where there is none."""
    # `git remote get-url` puts the user's own abbreviations in
    settings = git.ask(root, "config", "--local", "--null", "--list").split("\0")
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
        new = git.ask(root, "ls-files", "-z", "--others", excluded, "--", *CODE, env=env)
        if new:
            named = ("--pathspec-from-file=-", "--pathspec-file-nul")
            added = ("--literal-pathspecs", "add", "--intent-to-add")
            git.ask(root, *added, *named, stdin=new, env=env)
        diff = git.ask(root, "diff", "--binary", "--no-renames", commit, "--", ".", env=env)
    return diff.encode(errors=git.ANY_BYTE).decode(errors="replace")
