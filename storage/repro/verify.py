"""Run a pipeline again in a fresh clone, environment and store, and compare all that comes out.

python -m storage.repro.verify <run id of main>
"""

import argparse
import csv
import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from storage import UserError, checkout, environment, git, terminal
from storage.git import GitError
from storage.tracking import artifacts, tags
from storage.tracking.query import both, equals

N_CHILDREN = 50_000  # the most that MLflow gives at once
EXPERIMENT = "verify"
# what another run of the same pipeline may have otherwise: what things cost, how often a search was
# interrupted, and how the champion of that store compares
FREE = re.compile(rf"{tags.SYSTEM}.*|.*_seconds|n_trials_recorded|(.*\.)?(champion_|improvement).*")
BOOSTER = ".ubj"

Facts = dict[str, str]  # what is compared: metric, hash -> value


class Row(NamedTuple):
    """A run of the pipeline, and what became of it the second time."""

    name: str
    n_facts: int
    differences: list[str]


def main(argv: list[str] | None = None) -> None:
    """Repeat the run named, print a table, leave with 1 where anything differs."""
    environment.show_what_can_be_shown()
    terminal.quieten()
    parser = argparse.ArgumentParser(prog="verify", description=__doc__)
    parser.add_argument("run_id", nargs="?", default="", help="of a finished run of main")
    parser.add_argument("--env-manager", choices=["uv", "local"], default="uv")
    given = parser.parse_args(argv)
    try:
        if not given.run_id.strip():
            raise UserError("Name the pipeline's run: make verify RUN=<id>.")
        rows = verify(given.run_id.strip(), given.env_manager)
    except UserError as error:
        print(f"verify: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join(comparison_table(rows)))
    if any(row.differences for row in rows):
        sys.exit(1)


def verify(run_id: str, env_manager: str = "uv") -> list[Row]:
    """Run a pipeline again and compare it; leaves nothing behind.

    Args:
        run_id: of a finished run of main.
        env_manager: what MLflow makes the environment with; local: it is this process's.

    Raises:
        UserError: there is no such run, or it cannot be repeated from nothing.
    """
    client = MlflowClient()
    first = pipeline(client, run_id)
    with TemporaryDirectory(prefix="verify-") as name:
        folder = Path(name)
        store = f"sqlite:///{folder}/mlflow.db"
        clone = fetch_code(first, folder / "clone")
        repeat(first, clone, folder, store, env_manager)
        again = MlflowClient(store)
        experiment = again.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise UserError("The pipeline did not run again: see the output above.")
        is_main = equals(f"tags.{tags.STEP}", "main")
        (second,) = again.search_runs([experiment.experiment_id], is_main)
        before = {name: comparable_facts(client, run) for name, run in parts(client, first)}
        after = {name: comparable_facts(again, run) for name, run in parts(again, second)}
    return [compare_runs(name, before[name], after.get(name)) for name in before]


def pipeline(client: MlflowClient, run_id: str) -> Run:
    """Look up a finished pipeline that has a rerun command.

    Raises:
        UserError: it is something else.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"No run {run_id!r} in this store. Check RUN.") from error
    if tags.RERUN not in run.data.tags or run.info.status != "FINISHED":
        step, status = run.data.tags.get(tags.STEP, "no step"), run.info.status
        raise UserError(f"Run {run_id} is of {step} and {status}. Pass a FINISHED run of main.")
    if given := re.findall(r"\w+_run_id=\w+", run.data.tags[tags.RERUN]):
        raise UserError(f"Run {run_id} builds on runs of this store: {', '.join(given)}.")
    return run


def fetch_code(run: Run, folder: Path) -> Path:
    """Clone the code that a run ran, with the changes that were in no commit.

    Raises:
        UserError: no commit is known to hold it, or git cannot get it.
    """
    marks = run.data.tags
    if not marks.get(tags.COMMIT) or marks[tags.DIRTY] == checkout.UNKNOWN:
        raise UserError(f"git did not answer for the code of run {run.info.run_id}: it is lost.")
    repository = marks.get(tags.REPOSITORY) or str(checkout.ROOT)
    try:
        # no hooks, and the user's settings only where they say how to reach the repository
        hookless = ("--no-checkout", "--template=")
        git.ask(folder.parent, "clone", "--quiet", *hookless, repository, str(folder))
        with git.without_settings() as env:
            git.ask(folder, "checkout", "--quiet", marks[tags.COMMIT], env=env)
            if marks[tags.DIRTY] == "true":
                with artifacts.open_file(run.info.run_id, tags.UNCOMMITTED) as diff:
                    git.ask(folder, "apply", str(diff.resolve()), env=env)
    except GitError as error:
        raise UserError(f"The code cannot be fetched: {error}. Is the commit pushed?") from error
    return folder


def repeat(run: Run, clone: Path, folder: Path, store: str, env_manager: str) -> None:
    """Run a pipeline's parameters on a clone, in a store of their own.

    Raises:
        UserError: it failed.
    """
    command = shlex.split(run.data.tags[tags.RERUN])
    values = [value for flag, value in pairwise(command) if flag == "-P"]
    values = [value for value in values if not value.startswith("reuse=")] + ["reuse=false"]
    words = [word for value in values for word in ("-P", value)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    env |= {
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_ENV_ROOT": str(folder / "envs"),
        terminal.LEVEL: os.environ.get(terminal.LEVEL, terminal.QUIET),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    again = [sys.executable, "-m", "mlflow", "run", str(clone), "--env-manager", env_manager]
    done = subprocess.run(
        [*again, "--experiment-name", EXPERIMENT, *words], cwd=folder, env=env, check=False
    )
    if done.returncode:
        raise UserError("The pipeline did not run again: see the output above.")


def parts(client: MlflowClient, run: Run) -> Iterator[tuple[str, Run]]:
    """List the finished runs of a pipeline: main, its steps whoever ran them, what is below."""
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
    """List the finished trials of a pipeline's search, also those of a search that it went on with.

    The search's own table says which they are.
    """
    if run_id := run.data.tags.get(tags.RUN_IDS["hpo"]):
        uri = str(client.get_run(run_id).info.artifact_uri)
        with artifacts.open_at(uri, tags.TRIALS_TABLE) as path:
            rows = list(csv.DictReader(path.read_text().splitlines()))
        for trial in (client.get_run(row["run_id"]) for row in rows):
            if trial.info.status == "FINISHED":
                yield f"hpo/{trial.info.run_name}", trial


def comparable_facts(client: MlflowClient, run: Run) -> Facts:
    """Collect what must come out the same: metrics, hashes of the trips and of the boosters."""
    facts = {name: repr(value) for name, value in run.data.metrics.items() if not is_free(name)}
    facts |= {
        tags.SHA256.of(split): sha for split, sha in tags.SHA256.select(run.data.tags).items()
    }
    for output in run.outputs.model_outputs if run.outputs else ():
        model = client.get_logged_model(output.model_id)
        for path, sha256 in hash_boosters(model.artifact_location):
            facts[f"{model.name}/{path}"] = sha256
    return facts


def is_free(metric: str) -> bool:
    """Whether a metric may differ from one run to the next."""
    return bool(FREE.fullmatch(metric))


def hash_boosters(uri: str) -> Iterator[tuple[str, str]]:
    """Hash the boosters below a URI: file name -> sha256."""
    for name in artifacts.list_files(uri):
        if name.endswith(BOOSTER):
            with artifacts.open_at(uri, name) as path:
                yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def compare_runs(name: str, before: Facts, after: Mapping[str, str] | None) -> Row:
    """Hold a run against its repetition."""
    if after is None:
        return Row(name, len(before), ["it did not run again"])
    differences = [
        f"{what}: {before.get(what, 'not there')} became {after.get(what, 'not there')}"
        for what in sorted({*before, *after})
        if before.get(what) != after.get(what)
    ]
    return Row(name, len(before), differences)


def comparison_table(rows: list[Row]) -> Iterator[str]:
    """Lay the comparison out, with a line for each difference and one that sums up."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        verdict = "differs" if row.differences else "identical"
        yield f"{row.name:<{width}}  {row.n_facts:>3} compared, {verdict}"
        yield from (f"    {difference}" for difference in row.differences)
    n_facts, n_bad = sum(row.n_facts for row in rows), sum(bool(row.differences) for row in rows)
    yield f"{n_facts} metrics and hashes of {len(rows)} runs: " + (
        f"{n_bad} runs differ" if n_bad else "all identical"
    )


if __name__ == "__main__":
    main()
