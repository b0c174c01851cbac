"""Run a pipeline again in a fresh clone, environment and store, and compare all that comes out.

python -m storage.repro.verify <run id of main>
"""

import argparse
import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from storage import UserError, checkout, environment, git, one_line, terminal
from storage.git import GitError
from storage.repro.comparison import Facts, Row, compare_runs, comparison_table, verdict_line
from storage.repro.reuse import N_CHILDREN
from storage.tracking import artifacts, refusals, runs, store, tags
from storage.tracking.model_references import logged_model
from storage.tracking.query import both, equals
from storage.uris import without_user

EXPERIMENT = "verify"
MANAGERS = ("uv", "local")  # what can make the environment of the run
# what may differ in a repetition of a pipeline: costs, how often a search was interrupted, and the
# comparison with the champion of that store
MAY_DIFFER = re.compile(
    rf"{tags.SYSTEM}.*|.*_seconds|n_trials_recorded|(.*\.)?(champion_|improvement).*"
)
BOOSTER = ".ubj"
RERUN_HINT = "Run this again: it leaves nothing behind."
NOT_RERUN = "The pipeline did not run again: see the output above."


class Verdict(NamedTuple):
    """The comparison of a pipeline with its repetition."""

    run: Run
    rows: list[Row]  # empty if it could not be run again
    problem: str = ""  # why not
    machines: tuple[str, str] = ("", "")  # first and again; empty = unknown

    @property
    def is_same(self) -> bool:
        """Whether all results are the same."""
        return not (self.problem or any(row.differences for row in self.rows))

    @property
    def line(self) -> str:
        """The verdict as one line."""
        if self.problem:
            return f"not verified: {self.problem}"
        before, after = (machine or "an unknown machine" for machine in self.machines)
        where = f"; the first run was on {before}, the second on {after}" if before != after else ""
        return verdict_line(self.rows) + ("" if self.is_same else where)


def main(argv: list[str] | None = None) -> None:
    """Repeat the run, print the comparison, and exit with 1 if anything differs."""
    environment.tolerate_output_errors()
    terminal.quieten()
    parser = argparse.ArgumentParser(prog="verify", description=__doc__)
    parser.add_argument("run_id", nargs="?", default="", help="of a finished run of main")
    parser.add_argument("--env-manager", choices=MANAGERS, default="uv")
    given = parser.parse_args(argv)
    try:
        if not given.run_id.strip():
            raise UserError("Name the pipeline's run: make verify RUN=<id>.")
        with store.loss_as_error(RERUN_HINT):
            if not store.exists():
                raise UserError("There is no store yet. Set MLFLOW_TRACKING_URI.")
            client = MlflowClient()
            verdict = verify(client, pipeline(client, given.run_id.strip()), given.env_manager)
    except UserError as error:
        print(f"verify: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join(comparison_table(verdict.rows)))
    if not verdict.is_same:
        sys.exit(1)


def verify(client: MlflowClient, first: Run, env_manager: str) -> Verdict:
    """Run a pipeline again and compare it; leaves nothing behind.

    Args:
        client: of the store that the run is in.
        first: the finished run of main.
        env_manager: how MLflow makes the environment; local = use that of this process.

    Raises:
        UserError: it cannot be repeated from scratch.
    """
    with TemporaryDirectory(prefix="verify-") as name:
        folder = Path(name)
        store = f"sqlite:///{folder}/mlflow.db"
        clone = fetch_code(client, first, folder / "clone")
        repeat(first, clone, folder, store, env_manager)
        again = MlflowClient(store)
        experiment = again.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise UserError(NOT_RERUN)
        is_main = equals(f"tags.{tags.STEP}", "main")
        (second,) = again.search_runs([experiment.experiment_id], is_main)
        before = {name: comparable_facts(client, run) for name, run in pipeline_runs(client, first)}
        after = {name: comparable_facts(again, run) for name, run in pipeline_runs(again, second)}
    rows = [compare_runs(name, before[name], after.get(name)) for name in before]
    then, now = (run.data.tags.get(tags.MACHINE, "") for run in (first, second))
    return Verdict(first, rows, machines=(then, now))


def pipeline(client: MlflowClient, run_id: str) -> Run:
    """Look up a finished pipeline that has a rerun command.

    Raises:
        UserError: there is no such run, or it cannot be repeated from scratch.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not refusals.is_no_such_id(error):
            raise
        raise UserError(f"No run {run_id!r} in this store. Check the id, and the store.") from error
    if problem := why_not_repeatable(run):
        raise UserError(problem)
    return run


def why_not_repeatable(run: Run) -> str:
    """Say why a run cannot be repeated from scratch; empty if it can."""
    run_id, run_tags = run.info.run_id, run.data.tags
    if tags.STEP not in run_tags:
        return f"Run {run_id} is of another project: it is of no step. Pass a run of main."
    if not run_tags.get(tags.RERUN) or run.info.status != "FINISHED":
        step, status = run_tags[tags.STEP], run.info.status
        return f"Run {run_id} is of {step} and {status}. Pass a FINISHED run of main."
    if given := re.findall(r"\w+_run_id=\w+", run_tags[tags.RERUN]):
        return f"Run {run_id} builds on runs of this store: {', '.join(given)}."
    if not run_tags.get(tags.COMMIT) or run_tags.get(tags.DIRTY) == checkout.UNKNOWN:
        return f"git could not tell the code of run {run_id}: it is lost."
    return ""


def fetch_code(client: MlflowClient, run: Run, folder: Path) -> Path:
    """Clone the code of a run and apply its uncommitted changes; return the folder.

    Raises:
        UserError: git cannot fetch the code, the changes are lost, or it is another project.
    """
    run_tags = run.data.tags
    repository = run_tags.get(tags.REPOSITORY) or str(checkout.ROOT)
    try:
        # no hooks; the user's settings only for how to reach the repository
        no_hooks = ("--no-checkout", "--template=")
        git.run_git(folder.parent, "clone", "--quiet", *no_hooks, "--", repository, str(folder))
        with git.without_settings() as env:
            git.run_git(folder, "checkout", "--quiet", run_tags[tags.COMMIT], "--", env=env)
            if run_tags[tags.DIRTY] == "true":
                uri = str(run.info.artifact_uri)
                with artifacts.open_under(uri, tags.UNCOMMITTED, client.tracking_uri) as diff:
                    git.run_git(folder, "apply", str(diff.resolve()), env=env)
    except GitError as error:
        raise UserError(
            f"The code cannot be fetched: {error}. Is the commit pushed, and may you fetch it?"
        ) from error
    except (MlflowException, OSError) as error:
        if refusals.is_unreachable(error):
            raise
        reason = without_user(one_line(error))
        raise UserError(
            f"{tags.UNCOMMITTED} of run {run.info.run_id} is lost: {reason}."
        ) from error
    # checked before any of this code runs
    run_project, own_project = (project_name(root) for root in (folder, checkout.ROOT))
    if run_project != own_project:
        raise UserError(
            f"Run {run.info.run_id} is of the project {run_project!r}, and this is {own_project!r}."
        )
    return folder


def project_name(root: Path) -> str:
    """Read the name of a project; empty if it is not one of MLflow's."""
    path = root / checkout.PROJECT_FILE
    found = re.findall(r"^name: (.*)$", path.read_text(), re.M) if path.is_file() else []
    return str(found[0]).strip() if found else ""


def repeat(run: Run, clone: Path, folder: Path, store: str, env_manager: str) -> None:
    """Run a pipeline again in a clone, with its parameters and a store of its own.

    Raises:
        UserError: the pipeline failed.
    """
    command = shlex.split(run.data.tags[tags.RERUN])
    values = [value for flag, value in pairwise(command) if flag == "-P"]
    values = [value for value in values if not value.startswith("reuse=")] + ["reuse=false"]
    words = [word for value in values for word in ("-P", value)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env |= {
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_ENV_ROOT": str(folder / "envs"),
        runs.TEMPORARY_STORE: "true",  # no links: the store is deleted afterwards
        terminal.LEVEL: os.environ.get(terminal.LEVEL, terminal.QUIET),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    again = [sys.executable, "-m", "mlflow", "run", str(clone), "--env-manager", env_manager]
    done = subprocess.run(
        [*again, "--experiment-name", EXPERIMENT, *words], cwd=folder, env=env, check=False
    )
    if done.returncode:
        raise UserError(NOT_RERUN)


def pipeline_runs(client: MlflowClient, run: Run) -> Iterator[tuple[str, Run]]:
    """Yield a pipeline's finished runs by name: main, steps (also reused), children, trials."""
    yield "main", run
    for step, step_tag in tags.RUN_IDS.items():
        if run_id := run.data.tags.get(step_tag):
            step_run = client.get_run(run_id)
            yield step, step_run
            for child in client.search_runs(
                [step_run.info.experiment_id],
                both(
                    equals(f"tags.{tags.PARENT}", run_id), equals("attributes.status", "FINISHED")
                ),
                order_by=["attributes.start_time ASC"],
                max_results=N_CHILDREN,
            ):
                if not {tags.STEP, tags.TRIAL} & set(child.data.tags):
                    yield f"{step}/{child.info.run_name}", child
    yield from trials(client, run)


def trials(client: MlflowClient, run: Run) -> Iterator[tuple[str, Run]]:
    """Yield the finished trials of a pipeline's search, also those of a search that it resumed.

    The search's own table lists them.
    """
    if run_id := run.data.tags.get(tags.RUN_IDS["hpo"]):
        uri = str(client.get_run(run_id).info.artifact_uri)
        with artifacts.open_under(uri, tags.TRIALS_TABLE, client.tracking_uri) as path:
            rows = artifacts.parse_csv(path.read_text())
        for trial in (client.get_run(row["run_id"]) for row in rows):
            if trial.info.status == "FINISHED":
                yield f"hpo/{trial.info.run_name}", trial


def comparable_facts(client: MlflowClient, run: Run) -> Facts:
    """Collect what must not differ: metrics, hashes of the trips and of the boosters."""
    facts = {name: repr(value) for name, value in run.data.metrics.items() if not may_differ(name)}
    facts |= {
        tags.SHA256.of(split): sha for split, sha in tags.SHA256.select(run.data.tags).items()
    }
    for output in run.outputs.model_outputs if run.outputs else ():
        model = logged_model(client, output.model_id, run.info.run_id)
        for path, sha256 in hash_boosters(model.artifact_location, client.tracking_uri):
            facts[f"{model.name}/{path}"] = sha256
    return facts


def may_differ(metric: str) -> bool:
    """Whether a metric may differ in a repetition."""
    return bool(MAY_DIFFER.fullmatch(metric))


def hash_boosters(uri: str, store: str) -> Iterator[tuple[str, str]]:
    """Yield the boosters under a URI: file name and sha256."""
    for name in artifacts.list_files(uri, store):
        if name.endswith(BOOSTER):
            with artifacts.open_under(uri, name, store) as path:
                yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
