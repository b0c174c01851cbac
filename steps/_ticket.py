"""The line that repeats a pipeline somewhere else, and what it cannot carry."""

import argparse
import shlex
from pathlib import Path

from mlflow.entities import Run

from storage import checkout, months, runs

# who asks, and whether only to look: neither belongs to what is repeated
LEFT_OUT = ("developer", "plan")


def command(run: Run, args: argparse.Namespace) -> str:
    """Write the command that repeats this pipeline: repository, full commit, every parameter.

    Runs to build on are named only where they were given: they are of one store.
    """
    code = run.data.tags
    repository, commit = code.get("mlflow.source.git.repoURL"), code.get("mlflow.source.git.commit")
    words = ["mlflow", "run", repository or ".", "--env-manager", "uv"]
    if repository and commit:
        words += ["-v", commit]
    for name, value in vars(args).items():
        text = source(value) if name == "source" else runs.as_text(value)
        if name not in LEFT_OUT and (text or not name.endswith("_run_id")):
            words += ["-P", f"{name}={text}"]
    return shlex.join(words)


def lines(run: Run, args: argparse.Namespace) -> list[str]:
    """Write the command as a part of the run's page, and what somebody needs besides it."""
    return ["Run it again:", "", f"    {command(run, args)}", *missing(run, args)]


def missing(run: Run, args: argparse.Namespace) -> list[str]:
    """Say what the command alone does not bring along."""
    code, found = run.data.tags, []
    commit = code.get("mlflow.source.git.commit")
    if not code.get("mlflow.source.git.repoURL"):
        where = f"a checkout of commit {commit}" if commit else "this folder: it is no git checkout"
        found.append(f"It has no remote repository to name: run it in {where}.")
    if code["git_dirty"] == "true":
        diff = f"mlflow artifacts download -r {run.info.run_id} -a uncommitted.diff -d ."
        found += [
            "**The work tree had changes that are in no commit**, and the command misses them. "
            "They are this run's artifact `uncommitted.diff`; in a checkout of that commit:",
            f"    {diff} && git apply uncommitted.diff",
            "and then the command with `.` for the repository, without `-v`.",
        ]
    if source(args.source) != args.source and "://" in args.source:
        found.append("The source wants credentials, which are not kept: put in your own.")
    if given := [name for name in vars(args) if name.endswith("_run_id") and getattr(args, name)]:
        found.append(f"It builds on runs of this store ({', '.join(given)}).")
    return [line for text in found for line in ("", text)]


def source(text: str) -> str:
    """Name the source so that it means the same from any folder, without credentials."""
    if "://" in text:
        return months.public_uri(text)
    folder = Path(text).expanduser().resolve()
    inside = folder.is_relative_to(checkout.ROOT)
    return str(folder) if folder.is_dir() and not inside else text
