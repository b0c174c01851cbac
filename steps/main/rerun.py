"""The command that repeats a pipeline elsewhere, and what has to be done besides."""

import shlex

from mlflow.entities import Run

from steps.common.parameters import MainParameters
from storage import checkout
from storage.checkout import Checkout
from storage.tracking import tags
from storage.uris import FROM_ENVIRONMENT


def command(run: Run, params: MainParameters, experiment: str) -> str:
    """Write the command that repeats the pipeline of this run, with the code that it began with."""
    values = params.rerun_texts()
    return checkout.run_command("main", values, experiment=experiment, code=code_of(run))


def code_of(run: Run) -> Checkout:
    """Read from a run which code it ran."""
    run_tags = run.data.tags
    diff = tags.UNCOMMITTED if run_tags[tags.DIRTY] == "true" else ""
    return Checkout(run_tags.get(tags.COMMIT, ""), run_tags.get(tags.REPOSITORY, ""), diff)


def lines(run: Run, params: MainParameters, command: str) -> list[str]:
    """Write the command for a page, and what has to be done besides."""
    more = [line for text in missing(run, params) for line in ("", text)]
    return [f"    {command}", *more]


def missing(run: Run, params: MainParameters) -> list[str]:
    """List what the command alone does not cover."""
    code, texts = code_of(run), []
    if not code.url:
        texts += without_url(code)
    if code.repository and code.commit and checkout.is_unpushed(code.commit):
        texts.append("No branch that was pushed from here holds this commit yet: push it first.")
    if code.diff:
        texts += [
            "**Changes that are in no commit ran too**, and the command misses them. They are the "
            "artifact `uncommitted.diff`; in a checkout of that commit, before the command with "
            "`.` for the repository and without `-v`:",
            f"    mlflow artifacts download -r {run.info.run_id} -a {code.diff} -d . "
            f"&& git apply {code.diff}",
        ]
    if run.data.tags[tags.DIRTY] == checkout.UNKNOWN:
        texts.append("**git could not tell which code ran**, so no commit is known to contain it.")
    if "://" in params.source and checkout.portable_source(params.source) != params.source:
        texts.append("The source wants credentials, which are not kept: put in your own.")
    if params.source.startswith(FROM_ENVIRONMENT):
        name = params.source.removeprefix(FROM_ENVIRONMENT)
        texts.append(f"The source stood in the variable `{name}`, which is not kept: set it.")
    if given := params.run_ids():
        texts.append(f"It builds on runs of this store ({', '.join(given)}).")
    return texts


def without_url(code: Checkout) -> list[str]:
    """Say where to run the command if it cannot name a repository."""
    if code.repository and code.commit:
        return [
            "The checkout's remote is a folder, and `mlflow run` would fetch into that very one. "
            "So run it in a clone:",
            f"    git clone {shlex.quote(code.repository)} nyc-taxi && cd nyc-taxi && "
            f"git checkout {code.commit}",
        ]
    where = f"a checkout of commit {code.commit}" if code.commit else "a copy of this folder"
    return [f"The checkout has no remote to name, so run it in {where}."]
