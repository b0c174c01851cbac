"""git, called so that the user's own settings do not change its answers."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from storage import UserError

# variables for the folders that are safe, and for where git itself is; others select another
# repository, or change what git prints
KEPT_VARIABLES = ("GIT_CONFIG_", "GIT_EXEC_PATH")
# Line ends and permissions do not change what Python runs, and depend on who made the checkout.
ANY_BYTE = "surrogateescape"
SETTINGS = "[core]\nautocrlf = input\nfileMode = false\n"


class GitError(UserError):
    """git is missing or failed; the message says why, in one line."""


def run_git(
    folder: Path, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> str:
    """Run git in a folder; return what it prints.

    Args:
        folder: its working directory.
        arguments: its command line.
        stdin: its input.
        env: its environment; None = that of this process, without what would mislead git.
    Raises:
        GitError: it failed, with its reason in one line, or it is missing.
    """
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=_environment() if env is None else env,
            input=stdin.encode(errors=ANY_BYTE),
            capture_output=True,
        )
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise GitError(reason.splitlines()[0].removeprefix("fatal: "))
    # not read as text, which would drop the CR of line ends
    return done.stdout.decode(errors=ANY_BYTE)


@contextmanager
def without_settings() -> Iterator[dict[str, str]]:
    """Yield an environment in which git has no settings but SETTINGS."""
    with TemporaryDirectory() as home:
        Path(home, ".gitconfig").write_text(SETTINGS)
        settings = {"HOME": home, "XDG_CONFIG_HOME": home, "GIT_CONFIG_NOSYSTEM": "1"}
        yield _environment(kept=KEPT_VARIABLES[1:]) | settings | {"GIT_ATTR_NOSYSTEM": "1"}


@contextmanager
def fresh_copy(root: Path, commit: str) -> Iterator[dict[str, str]]:
    """Yield an environment in which git compares a work tree with a commit, and nothing else.

    Its repository shares the objects of the user's repository, but has no settings, attributes,
    exclusions, hooks or replaced commits, and its index hides no file.
    """
    top = run_git(root, "rev-parse", "--show-toplevel").removesuffix("\n")
    objects = run_git(root, "rev-parse", "--git-path", "objects").removesuffix("\n")
    with without_settings() as env:
        folder = Path(env["HOME"], "repository")
        env["GIT_DEFAULT_HASH"] = "sha1" if len(commit) == 40 else "sha256"
        run_git(root, "init", "--quiet", "--bare", "--template=", str(folder), env=env)
        with (folder / "config").open("a") as config:
            config.write(SETTINGS)  # overrides what init has found out about the file system
        env |= {"GIT_DIR": str(folder), "GIT_WORK_TREE": top}
        # quoted as git expects it: the path may contain a colon
        env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = json.dumps(
            str(root / objects), ensure_ascii=False
        )
        run_git(root, "read-tree", commit, env=env)
        yield env


def _environment(kept: tuple[str, ...] = KEPT_VARIABLES) -> dict[str, str]:
    """Return this process's environment without the variables that would mislead git."""
    env = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(kept)
    }
    return env | {"LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_OPTIONAL_LOCKS": "0"}
