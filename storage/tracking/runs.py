"""Runs in MLflow: opening and finding them, and the tags that say where they come from."""

import atexit
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import mlflow
import psutil
from mlflow.entities import LifecycleStage, Run, RunInfo
from mlflow.exceptions import MlflowException
from mlflow.utils import name_utils

from storage import StorageError, UserError, checkout, environment
from storage.tracking import (
    closing,
    duplicates,
    experiments,
    heartbeat,
    processes,
    refusals,
    stale_runs,
    store,
    tags,
)
from storage.tracking.cost import Meter
from storage.tracking.heartbeat import Heartbeat
from storage.tracking.query import begins, both, equals
from storage.uris import without_credentials

N_NAMED = 3  # run ids that fit on a line
ADOPTED = "MLFLOW_RUN_ID"  # id of the run that `mlflow run` created for a step
# set if the store is temporary: nobody will look its runs up
TEMPORARY_STORE = "TAXI_PASSING_STORE"


class StepRun:
    """The MLflow run of one step: the one that `mlflow run` created, or a new one.

    Leaving the context closes the run: FINISHED, FAILED with the reason as tag `failure`, or KILLED
    if the step was interrupted.
    """

    def __init__(
        self, step: str, developer: str, next_command: Callable[[], str] | None = None
    ) -> None:
        """Describe the run.

        Args:
            step: entry point.
            developer: who starts it; empty = git's user name, or else the login name.
            next_command: returns the command to run after a failure, once its cause is mended.
        """
        self.step = step
        self.developer = developer
        self.next_command = next_command
        self.meter: Meter | None = None
        self.is_adopted = bool(os.environ.get(ADOPTED))
        self.outer: mlflow.ActiveRun | None = None  # active before this run, and not closed with it
        self.heartbeat: Heartbeat | None = None

    def __enter__(self) -> None:
        """Start or adopt the run, and tag it with its origin."""
        self.meter = Meter(whole_process=self.is_adopted)
        store.prepare_store()
        _check_adopted()
        self.outer = mlflow.active_run()
        atexit.register(self._close_at_exit)
        try:
            self._open()
        except BaseException as error:
            self._close(error)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the run with the matching status and reason.

        Raises:
            KeyboardInterrupt: the pipeline has died, and the next one may be running this step.
        """
        if error is None and self.heartbeat and self.heartbeat.is_orphan:
            error = KeyboardInterrupt()
            self._close(error)
            raise error
        self._close(error)

    def _open(self) -> None:
        experiment_id = None if self.is_adopted else experiments.use_experiment()
        # set at creation, so that others can close the run even if this process dies right away
        begun = {str(tags.STEP): self.step, **processes.process_tags(), **heartbeat.first_beat()}
        run = mlflow.start_run(experiment_id=experiment_id, tags=begun)
        duplicates.close_duplicate_runs(run)
        if self.is_adopted:
            experiments.check_writable(str(run.info.artifact_uri))
        above = run.data.tags.get(tags.PARENT, "")
        self.heartbeat = Heartbeat(run.info.run_id, _tags_of(above))
        code = checkout.read()
        mlflow.set_tags(self._tags(run, code))
        if above:
            return
        if self.is_adopted:
            experiments.add_page_and_view(mlflow.get_experiment(run.info.experiment_id))
        if code.unknown:
            print(
                f"{self.step}: git cannot tell the state of this code ({code.unknown}), so it "
                f"counts as uncommitted: {tags.DIRTY}={code.dirty}. `make doctor` has the cure."
            )
        if code.diff:
            mlflow.log_text(code.diff, tags.UNCOMMITTED)
        is_project = tags.ENTRY_POINT in run.data.tags
        self._close_stale_runs(run.data.tags[tags.PROJECT_URI] if is_project else "")

    def _close(self, error: BaseException | None) -> None:
        if self.heartbeat:
            self.heartbeat.stop()
        run = None
        while (active := mlflow.active_run()) and active is not self.outer:
            run = active  # nested runs come first, the step's own run last
            closing.close_active(error, self.meter, self.next_command)
        is_interrupted = isinstance(error, KeyboardInterrupt)
        if error and (is_interrupted or refusals.explain_refusal(error)):
            # runs that were being opened, or whose creation was never confirmed
            with closing.limit_retries(error), suppress(MlflowException):
                stale_runs.close_own_runs(closing.reason_of(error))
        if is_interrupted and run and self.is_adopted and tags.PARENT not in run.data.tags:
            environment.restore_later(run.info.run_id)
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        """Close the run if an interruption cut its closing short.

        MLflow's own exit handler, which runs after this one, would mark it FINISHED.
        """
        if mlflow.active_run() is not self.outer:
            self._close(KeyboardInterrupt())

    def _close_stale_runs(self, project: str) -> None:
        closed, refused = stale_runs.close_stale_runs(project)
        if closed:
            print(f"{self.step}: closed {_n_runs(closed)} that a dead process had left RUNNING")
        if refused:
            print(
                f"{self.step}: left {_n_runs(refused)} of dead processes RUNNING, which this user "
                f"may not close: {', '.join(refused[:N_NAMED])}"
            )

    def _tags(self, run: Run, code: checkout.Checkout) -> dict[str, str]:
        values: dict[str, str] = {
            tags.RUN_NAME: _run_name(run, self.step),
            tags.DEVELOPER: self.developer or checkout.user_name() or environment.login_name(),
            tags.DIRTY: code.dirty,
            tags.MACHINE: environment.describe_machine(),
        }
        if code.commit or tags.COMMIT in run.data.tags:  # MLflow's may be another folder's
            values[tags.COMMIT] = code.commit
        source = run.data.tags.get(tags.PROJECT_URI, "")
        if code.repository:
            values[tags.REPOSITORY] = code.repository
            # MLflow names the temporary clone of a cloned project, which is of no use later
            if Path(source).resolve().is_relative_to(tempfile.gettempdir()):
                source = code.repository
        if source:
            values[tags.PROJECT_URI] = without_credentials(source)
        return values


def _tags_of(run_id: str) -> dict[str, str]:
    return dict(fetch_run(run_id).data.tags) if run_id else {}


def _n_runs(ids: Sequence[str]) -> str:
    return f"{len(ids)} run{'s' if ids[1:] else ''}"


@contextmanager
def plan_run() -> Iterator[None]:
    """Adopt the run that `mlflow run` created for a plan; if it created none, do nothing."""
    if not os.environ.get(ADOPTED):
        yield
        return
    store.prepare_store()
    _check_adopted()
    about: dict[str, str] = {tags.STEP: "plan", tags.RUN_NAME: "plan"}
    mlflow.start_run(tags=about | processes.process_tags())
    with closing.closing_run():
        yield


def experiment_id() -> str:
    """Return the id of the experiment for runs, without creating it; empty if there is none."""
    if active := mlflow.active_run():
        return str(active.info.experiment_id)
    if not store.exists():
        return ""
    experiment = experiments.find_experiment()
    return str(experiment.experiment_id) if experiment else ""


def finished(run_id: str, step: str, *, parameter: str = "") -> Run:
    """Look up a run that must be a finished run of this step.

    Args:
        run_id: as the user gave it.
        step: entry point.
        parameter: the parameter it was given as; empty = `<step>_run_id`.
    Raises:
        UserError: there is no such run, it belongs to another step, or it has not finished.
    """
    parameter = parameter or f"{step}_run_id"
    if not store.exists():
        raise UserError(f"No run {run_id!r}: there is no store yet. Check {parameter}.")
    run = _find(run_id, parameter)
    actual = run.data.tags.get(tags.STEP)
    if actual != step:
        of = f"step {actual!r}" if actual else "no step of this project"
        raise UserError(f"Run {run_id} is of {of}. Pass a {step} run.")
    if run.info.status != "FINISHED":
        raise UserError(f"Run {run_id} is {run.info.status}. Pass a FINISHED {step} run.")
    return run


def recorded_text(params: Mapping[str, str], name: str) -> str | None:
    """Return the value that a run had for a parameter, as text; None if it was not logged.

    MLflow logs what was typed, or the default, quoted for a shell. A value from a parameter file
    overrides it and is logged under a name of its own, unquoted.

    Args:
        params: the logged parameters of the run.
        name: the parameter's name.
    """
    of_file = params.get(tags.FROM_CONFIG.of(name))
    if of_file is not None or name not in params:
        return of_file
    return "".join(shlex.split(params[name]))


def _find(run_id: str, named_by: str) -> Run:
    try:
        return fetch_run(run_id)
    except MlflowException as error:
        if not refusals.is_no_such_id(error):
            raise
        raise UserError(f"No run {run_id!r} in this store. Check {named_by}.") from error


def _check_adopted() -> None:
    """Refuse to adopt a run that has ended: its results would be overwritten.

    Raises:
        UserError: MLFLOW_RUN_ID names no run, or one that has ended or was deleted.
    """
    run_id = os.environ.get(ADOPTED)
    if not run_id:
        return
    info = _find(run_id, ADOPTED).info
    is_deleted = info.lifecycle_stage == LifecycleStage.DELETED
    if is_deleted or info.status not in ("RUNNING", "SCHEDULED"):
        state = "deleted" if is_deleted else info.status
        raise UserError(
            f"{ADOPTED} names the run {run_id}, which is {state}, and would be written over. "
            f"It is for `mlflow run` to set: unset {ADOPTED}."
        )


def active() -> Run:
    """Fetch the active run from the store, with all its tags and metrics."""
    return fetch_run(active_info().run_id)


def fetch_run(run_id: str) -> Run:
    """Fetch a run, with all its tags and metrics.

    Raises:
        StorageError: the response is not this run; MLflow turns such a response into an empty run.
        MlflowException: there is no such run, or the store refuses.
    """
    run = mlflow.get_run(run_id)
    if run.info.run_id != run_id:
        raise StorageError(
            f"The server answers with what is not run {run_id}. {refusals.PROXY_ADVICE}"
        )
    return run


def experiment_name() -> str:
    """Return the name of the active run's experiment."""
    return str(mlflow.get_experiment(active_info().experiment_id).name)


def is_user_facing(run: Run) -> bool:
    """Whether people will look this run up: it has no parent, and its store is not temporary."""
    return tags.PARENT not in run.data.tags and not os.environ.get(TEMPORARY_STORE)


def active_info() -> RunInfo:
    """Return what is known of the active run, without a request to the store.

    Raises:
        RuntimeError: no run is active.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("No run is active here.")
    return run.info


def write_page(note: str, about: str = "") -> None:
    """Write the page of the active run, and name the run after its subject and its developer.

    A run that somebody named keeps that name, and a step of a pipeline keeps the step's name.

    Args:
        note: the page, markdown; MLflow shows the first lines and folds the rest.
        about: the subject, such as `green 2021-01 > 02 · 5.39 min`; empty = keep the name.
    """
    run = active()
    values: dict[str, str] = {tags.NOTE: closing.fit_page(note)}
    step = run.data.tags.get(tags.STEP, "")
    if about and run.info.run_name == step and tags.PARENT not in run.data.tags:
        parts = [about, run.data.tags.get(tags.DEVELOPER, "")]
        values[tags.RUN_NAME] = " · ".join(parts if step == "main" else [step, *parts])
    mlflow.set_tags(values)


def children(run_id: str) -> list[Run]:
    """List the child runs of a run, without grandchildren, oldest first."""
    run = fetch_run(run_id)
    below: list[Run] = mlflow.search_runs(
        [run.info.experiment_id],
        filter_string=equals(f"tags.{tags.PARENT}", run_id),
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return below


def latest_finished(
    experiment_id: str, step: str, n_most: int, *, scored_by: str = ""
) -> list[Run]:
    """List the latest finished runs of a step in an experiment, newest first.

    Args:
        experiment_id: where to search.
        step: entry point.
        n_most: the most runs to return.
        scored_by: for runs of score: only those whose model's URI begins with this text.
    """
    found: list[Run] = mlflow.search_runs(
        [experiment_id],
        filter_string=both(
            equals(f"tags.{tags.STEP}", step),
            equals("attributes.status", "FINISHED"),
            begins(f"tags.{tags.SCORED_BY}", scored_by) if scored_by else "",
        ),
        order_by=["attributes.start_time DESC"],
        max_results=n_most,
        output_format="list",
    )
    return found


@contextmanager
def child_run(name: str, tag_values: Mapping[str, str]) -> Iterator[mlflow.ActiveRun]:
    """Open a child of the active run, with the developer and code tags of its parent.

    Args:
        name: the child's name.
        tag_values: tags of its own.
    """
    inherited = inherited_tags(active()) | processes.process_tags()
    run = mlflow.start_run(run_name=name, nested=True, tags={**inherited, **tag_values})
    with closing.closing_run():
        duplicates.close_duplicate_runs(run)
        yield run


def inherited_tags(parent: Run) -> dict[str, str]:
    """Return the tags that a child run inherits: its developer, and which code runs."""
    return {
        key: value
        for key, value in parent.data.tags.items()
        if key in (tags.DEVELOPER, tags.DIRTY) or key.startswith(tags.CODE)
    }


def _run_name(run: Run, step: str) -> str:
    """Return the step as the run's name, or the name that somebody gave it."""
    name = str(run.info.run_name or "")
    return name if name and (_is_given_name(name) or not _is_generated_name(name)) else step


def _is_generated_name(name: str) -> bool:
    """Whether MLflow may have generated a name from its word lists: fearless-fox-123."""
    words = re.fullmatch(r"([a-z]+)-([a-z]+)-[0-9]+", name)
    if not words:
        return False
    predicates = {word.lower() for word in name_utils._GENERATOR_PREDICATES}
    nouns = {word.lower() for word in name_utils._GENERATOR_NOUNS}
    return words[1] in predicates and words[2] in nouns


def _is_given_name(name: str) -> bool:
    """Whether an ancestor process was started with this name: mlflow run --run-name ..."""
    commands = []
    for process in psutil.Process().parents():
        with suppress(psutil.Error):  # a process that this user may not inspect
            commands.append(process.cmdline())
    options = {("--run-name", name)}
    return any(
        f"--run-name={name}" in words or options & set(pairwise(words)) for words in commands
    )
