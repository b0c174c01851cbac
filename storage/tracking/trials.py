"""The trials of a search as runs in MLflow: its only record, and all it needs to resume."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from storage import StoreGoneError
from storage.tracking import closing, duplicates, processes, stale_runs
from storage.tracking.query import both, differs, equals
from storage.tracking.runs import active, active_info, inherited_tags
from storage.tracking.tags import (
    BEST_POINT,
    CURVE,
    PARENT,
    SEARCH_KEY,
    SPACE_KEY,
    TRIAL,
)

MAX_METRICS, MAX_ENTITIES = 1000, 1000  # per call to the store
CUT_SHORT = "the search ended before it did"


class TrialRun(NamedTuple):
    """A finished trial, completely recorded."""

    run_id: str
    params: dict[str, str]
    metrics: dict[str, float]
    curve: list[float]
    tags: dict[str, str]


class TrialRuns:
    """The child runs of a search, written in few calls so that they add little to a trial's cost.

    The last call that writes a run sets it FINISHED, so a killed process leaves runs that are
    either complete or RUNNING. Leaving the context closes the open runs as KILLED.
    """

    def __init__(self, search_key: str, tags: Mapping[str, str]) -> None:
        """Prepare to write the trials of this search under the active run."""
        self.client = MlflowClient()
        self.search_key = search_key
        self.parent = active()
        self.tags = {
            **inherited_tags(self.parent),
            **processes.process_tags(),
            **tags,
            SEARCH_KEY: search_key,
            PARENT: self.parent.info.run_id,
        }
        self.run_ids: dict[int, str] = {}  # of the trials in progress

    def __enter__(self) -> "TrialRuns":
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the open runs as KILLED."""
        if kind is not None and issubclass(kind, StoreGoneError):
            return  # the next search of this key closes them
        refused = (MlflowException,) if error else ()  # the original error is raised, not this one
        reason = closing.reason_of(error) if error else CUT_SHORT
        for run_id in self.run_ids.values():
            with closing.limit_retries(error), suppress(*refused):
                self._close(run_id, "KILLED", reason)

    def recorded(self) -> dict[int, TrialRun]:
        """Read the finished trials of this search, by number, whichever process ran them.

        Of several with the same number the first counts. Runs that a dead process left RUNNING are
        closed as KILLED.
        """
        trials: dict[int, TrialRun] = {}
        for run in _trial_runs(self.parent.info.experiment_id, self.search_key):
            number = int(run.data.tags[TRIAL])
            if run.info.status == "FINISHED" and number not in trials:
                trials[number] = self._read(run)
            elif run.info.status == "RUNNING" and processes.is_dead(run.data.tags):
                stale_runs.close_run(self.client, run.info.run_id, stale_runs.REASON)
        return trials

    def start(self, number: int) -> None:
        """Open the run of a trial."""
        run = self.client.create_run(
            self.parent.info.experiment_id,
            run_name=f"trial {number}",
            tags=self.tags | {TRIAL: str(number)},
        )
        self.run_ids[number] = run.info.run_id
        duplicates.close_duplicate_runs(run)

    def finish(
        self,
        number: int,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curve: Mapping[int, float],
        tags: Mapping[str, str],
    ) -> str:
        """Record the result of a trial, close its run as FINISHED and return the run's id.

        Args:
            number: the trial's number.
            params: parameters of xgboost.
            metrics: metrics of the whole trial.
            curve: round, counted from 0 -> valid RMSE after it, minutes.
            tags: further tags of the run.
        """
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, 0) for name, value in metrics.items()]
        points += [Metric(CURVE, value, now, step) for step, value in curve.items()]
        entries = [Param(name, str(value)) for name, value in params.items()]
        run_tags = [RunTag(name, value) for name, value in tags.items()]
        run_id = self.run_ids[number]
        n_free = MAX_ENTITIES - len(entries) - len(run_tags)
        self.client.log_batch(run_id, metrics=points[:n_free], params=entries, tags=run_tags)
        for start in range(n_free, len(points), MAX_METRICS):
            self.client.log_batch(run_id, metrics=points[start : start + MAX_METRICS])
        self.client.set_terminated(run_id, "FINISHED")
        return self.run_ids.pop(number)

    def fail(self, number: int, reason: str) -> str:
        """Close the run of a failed trial with the reason; return the run's id."""
        self._close(self.run_ids[number], "FAILED", reason)
        return self.run_ids.pop(number)

    def _close(self, run_id: str, status: str, reason: str) -> None:
        tag_values = [RunTag(*pair) for pair in closing.failure_tags(status, reason).items()]
        self.client.log_batch(run_id, tags=tag_values)
        self.client.set_terminated(run_id, status)

    def _read(self, run: Run) -> TrialRun:
        history = self.client.get_metric_history(run.info.run_id, CURVE)
        curve = [point.value for point in sorted(history, key=lambda point: point.step)]
        return TrialRun(
            run.info.run_id, run.data.params, run.data.metrics, curve, dict(run.data.tags)
        )


def n_finished(experiment_id: str, search_key: str) -> int:
    """Count the trials of a search that need not be run again."""
    trials = _trial_runs(experiment_id, search_key)
    return len({run.data.tags[TRIAL] for run in trials if run.info.status == "FINISHED"})


def _trial_runs(experiment_id: str, search_key: str) -> list[Run]:
    trials: list[Run] = mlflow.search_runs(
        [experiment_id],
        filter_string=both(equals(f"tags.{SEARCH_KEY}", search_key), differs(f"tags.{TRIAL}", "")),
        order_by=["attributes.start_time ASC"],
        output_format="list",
    )
    return trials


def earlier_points(space_key: str, search_key: str, n_most: int) -> list[dict[str, float]]:
    """Read the best point of each of the latest finished searches, other than this one.

    Args:
        space_key: of searches with the same search space and features, but other rows.
        search_key: of this search, which is left out.
        n_most: the most points to return.
    """
    searches = mlflow.search_runs(
        [active_info().experiment_id],
        filter_string=both(
            equals(f"tags.{SPACE_KEY}", space_key),
            differs(f"tags.{SEARCH_KEY}", search_key),
            equals("attributes.status", "FINISHED"),
        ),
        order_by=["attributes.start_time DESC"],
        max_results=n_most,
        output_format="list",
    )
    return [json.loads(run.data.tags[BEST_POINT]) for run in searches]
