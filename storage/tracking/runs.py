"""Runs in MLflow: opening them, looking them up, lineage tags."""

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
    doubles,
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

N_NAMED = 3  # runs that fit a line
ADOPTED = "MLFLOW_RUN_ID"  # of the run that `mlflow run` has made for a step
PASSING = "TAXI_PASSING_STORE"  # set where the store goes away with what runs in it


class StepRun:
    """The MLflow run of one step: the one `mlflow run` made, or a new one.

    Leaving it closes the run: FINISHED, FAILED with the reason as tag `failure`, or KILLED where
    the step was interrupted.
    """

    def __init__(
        self, step: str, developer: str, next_command: Callable[[], str] | None = None
    ) -> None:
        """Describe the run.

        Args:
            step: entry point.
            developer: who starts it; empty = as git or the machine knows them.
            next_command: names what to run where this fails, once that is mended.
        """
        self.step = step
        self.developer = developer
        self.next_command = next_command
        self.meter: Meter | None = None
        self.is_adopted = bool(os.environ.get(ADOPTED))
        self.outer: mlflow.ActiveRun | None = None  # which is not this one's to close
        self.heartbeat: Heartbeat | None = None

    def __enter__(self) -> None:
        """Start or adopt the run and tag it with where it comes from."""
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
        """Close the run with the status and the reason that fit.

        Raises:
            KeyboardInterrupt: the pipeline has died, and the next one may be at this step by now.
        """
        if error is None and self.heartbeat and self.heartbeat.is_orphan:
            error = KeyboardInterrupt()
            self._close(error)
            raise error
        self._close(error)

    def _open(self) -> None:
        experiment_id = None if self.is_adopted else experiments.use()
        # with its creation, so that a run that was hardly begun can be closed by others
        begun = {str(tags.STEP): self.step, **processes.process_tags(), **heartbeat.first_beat()}
        run = mlflow.start_run(experiment_id=experiment_id, tags=begun)
        doubles.close_runs(run)
        if self.is_adopted:
            experiments.check_writable(str(run.info.artifact_uri))
        above = run.data.tags.get(tags.PARENT, "")
        self.heartbeat = Heartbeat(run.info.run_id, _tags_of(above))
        code = checkout.read()
        mlflow.set_tags(self._tags(run, code))
        if above:
            return
        if self.is_adopted:
            experiments.dress(mlflow.get_experiment(run.info.experiment_id))
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
            run = active  # the last one is the step's: those below it come first
            closing.close_active(error, self.meter, self.next_command)
        is_interrupted = isinstance(error, KeyboardInterrupt)
        if error and (is_interrupted or refusals.explain_refusal(error)):
            # what was being opened, or was made without anybody being told
            with closing.in_seconds(error), suppress(MlflowException):
                stale_runs.close_own(closing.reason_of(error))
        if is_interrupted and run and self.is_adopted and tags.PARENT not in run.data.tags:
            environment.restore_later(run.info.run_id)
        atexit.unregister(self._close_at_exit)

    def _close_at_exit(self) -> None:
        """Close what an interruption has cut off while it was closed.

        MLflow would call it FINISHED; its own turn is after this one.
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
            tags.MACHINE: environment.machine(),
        }
        if code.commit or tags.COMMIT in run.data.tags:  # MLflow also takes another folder's
            values[tags.COMMIT] = code.commit
        source = run.data.tags.get(tags.PROJECT_URI, "")
        if code.repository:
            values[tags.REPOSITORY] = code.repository
            # a step of a cloned project names the temporary clone, which helps nobody
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
    """Open the run that `mlflow run` made for a plan; where it made none, there is none."""
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
    """Find the experiment that runs go to, without making it; empty where there is none yet."""
    if active := mlflow.active_run():
        return str(active.info.experiment_id)
    if not store.exists():
        return ""
    experiment = experiments.find_experiment()
    return str(experiment.experiment_id) if experiment else ""


def finished(run_id: str, step: str, *, parameter: str = "") -> Run:
    """Look up a run that must be a finished one of this step.

    Args:
        run_id: as it was given.
        step: entry point.
        parameter: that it was given by; empty = the step's run id.
    Raises:
        UserError: there is no such run, it is of another step, or it has not finished.
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


def noted_text(params: Mapping[str, str], name: str) -> str | None:
    """Read what a run had for a parameter; None where nobody has noted it.

    MLflow notes what was typed, or the default, quoted for a shell; what a file of parameters said
    instead stands beside it as it is.

    Args:
        params: all that is noted of the run.
        name: of the parameter.
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
    """Refuse to go on with a run that has ended: its results are somebody's.

    Raises:
        UserError: MLFLOW_RUN_ID names no run, or one that is not open.
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
    """Read the active run anew, with all its tags and metrics."""
    return fetch_run(active_info().run_id)


def fetch_run(run_id: str) -> Run:
    """Read a run, with all its tags and metrics.

    Raises:
        StorageError: what answers sends something else, from which MLflow makes an empty run.
        MlflowException: there is no such run, or the store refuses.
    """
    run = mlflow.get_run(run_id)
    if run.info.run_id != run_id:
        raise StorageError(f"The server answers with what is not run {run_id}. {refusals.PROXY}")
    return run


def experiment_name() -> str:
    """Return the name of the experiment that the active run is in."""
    return str(mlflow.get_experiment(active_info().experiment_id).name)


def is_looked_up(run: Run) -> bool:
    """Whether the page of a run is where people go: it has no parent's, and its store stays."""
    return tags.PARENT not in run.data.tags and not os.environ.get(PASSING)


def active_info() -> RunInfo:
    """Return what is known of the active run without asking the store.

    Raises:
        RuntimeError: no run is active.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("No run is active here.")
    return run.info


def write_page(note: str, about: str = "") -> None:
    """Write the page of the active run, and name it by what it is about and who started it.

    It keeps a name that somebody gave it, and a step of a pipeline keeps the step's.

    Args:
        note: its page, markdown; MLflow shows the first lines and folds the rest.
        about: such as `green 2021-01 > 02 · 5.39 min`; empty = it keeps its name.
    """
    run = active()
    values: dict[str, str] = {tags.NOTE: closing.fit_page(note)}
    step = run.data.tags.get(tags.STEP, "")
    if about and run.info.run_name == step and tags.PARENT not in run.data.tags:
        parts = [about, run.data.tags.get(tags.DEVELOPER, "")]
        values[tags.RUN_NAME] = " · ".join(parts if step == "main" else [step, *parts])
    mlflow.set_tags(values)


def children(run_id: str) -> list[Run]:
    """List the runs directly under a run, oldest first."""
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
        experiment_id: of the experiment.
        step: whose runs they are.
        n_most: of them.
        scored_by: what the model's URI begins with, of runs of score.
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
def child_run(name: str, marks: Mapping[str, str]) -> Iterator[mlflow.ActiveRun]:
    """Open a run nested in the active one, with the parent's developer and state of the code.

    Args:
        name: of the run.
        marks: its own tags.
    """
    inherited = inherited_tags(active()) | processes.process_tags()
    run = mlflow.start_run(run_name=name, nested=True, tags={**inherited, **marks})
    with closing.closing_run():
        doubles.close_runs(run)
        yield run


def inherited_tags(parent: Run) -> dict[str, str]:
    """Return the tags a nested run has from its parent: who, and which code."""
    return {
        key: value
        for key, value in parent.data.tags.items()
        if key in (tags.DEVELOPER, tags.DIRTY) or key.startswith(tags.CODE)
    }


def _run_name(run: Run, step: str) -> str:
    """Name a run for its step, unless somebody gave it a name of its own."""
    name = str(run.info.run_name or "")
    return name if name and (_is_given(name) or not _is_made_up(name)) else step


def _is_made_up(name: str) -> bool:
    """Whether MLflow may have made a name from its lists of words: fearless-fox-123."""
    words = re.fullmatch(r"([a-z]+)-([a-z]+)-[0-9]+", name)
    if not words:
        return False
    predicates = {word.lower() for word in name_utils._GENERATOR_PREDICATES}
    nouns = {word.lower() for word in name_utils._GENERATOR_NOUNS}
    return words[1] in predicates and words[2] in nouns


def _is_given(name: str) -> bool:
    """Whether a process above this one was started with this name: mlflow run --run-name ..."""
    commands = []
    for process in psutil.Process().parents():
        with suppress(psutil.Error):  # one that may not be looked at
            commands.append(process.cmdline())
    options = {("--run-name", name)}
    return any(
        f"--run-name={name}" in words or options & set(pairwise(words)) for words in commands
    )
