"""The line that repeats a pipeline somewhere else, and what it cannot bring along."""

import argparse

from mlflow.entities import Run

from storage.repro import checkout
from storage.repro.checkout import Checkout


def command(run: Run, args: argparse.Namespace) -> str:
    """Write the command that repeats the pipeline of this run: the code it began with."""
    return checkout.run_command("main", vars(args), code_of(run))


def code_of(run: Run) -> Checkout:
    """Read from a run which code it ran."""
    tags = run.data.tags
    diff = "uncommitted.diff" if tags["git_dirty"] == "true" else ""
    commit, repository = "mlflow.source.git.commit", "mlflow.source.git.repoURL"
    return Checkout(tags.get(commit, ""), tags.get(repository, ""), diff)


def lines(run: Run, args: argparse.Namespace) -> list[str]:
    """Write the command as a part of the run's page, and what somebody needs besides it."""
    told = [line for text in missing(run, args) for line in ("", text)]
    return ["Run it again:", "", f"    {command(run, args)}", *told]


def missing(run: Run, args: argparse.Namespace) -> list[str]:
    """Say what the command alone does not bring along."""
    code, found = code_of(run), []
    if not code.repository:
        where = f"a checkout of commit {code.commit}" if code.commit else "a copy of this folder"
        found.append(f"The checkout has no remote to name, so run it in {where}.")
    if code.diff:
        found += [
            "**Changes that are in no commit ran too**, and the command misses them. They are the "
            "artifact `uncommitted.diff`; in a checkout of that commit, before the command with "
            "`.` for the repository and without `-v`:",
            f"    mlflow artifacts download -r {run.info.run_id} -a {code.diff} -d . "
            f"&& git apply {code.diff}",
        ]
    if "://" in args.source and checkout.portable(args.source) != args.source:
        found.append("The source wants credentials, which are not kept: put in your own.")
    if given := [name for name in vars(args) if name.endswith("_run_id") and getattr(args, name)]:
        found.append(f"It builds on runs of this store ({', '.join(given)}).")
    return found
