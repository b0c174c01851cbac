"""The trials of a search as runs in MLflow: all that a search is, and all it needs to go on."""

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
from storage.tracking import closing, doubles, processes, stale_runs
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

MAX_METRICS, MAX_ENTITIES = 1000, 1000  # of one call to the store
UNDONE = "the search ended before it did"


class TrialRun(NamedTuple):
    """A trial that was finished and written down whole."""

    run_id: str
    params: dict[str, str]
    metrics: dict[str, float]
    curve: list[float]
    tags: dict[str, str]


class TrialRuns:
    """The child runs of a search, written in few calls: a trial costs little more.

    A run is FINISHED in the last call that writes it, so what a killed process leaves is either
    whole or RUNNING. Leaving the context closes what still runs as KILLED.
    """

    def __init__(self, search_key: str, tags: Mapping[str, str]) -> None:
        """Write trials of this search under the active run."""
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
        self.run_ids: dict[int, str] = {}  # of the trials that run

    def __enter__(self) -> "TrialRuns":
        """Write from here on."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what still runs."""
        if kind is not None and issubclass(kind, StoreGoneError):
            return  # the next search of this key closes them
        refused = (MlflowException,) if error else ()  # what came first is raised
        reason = closing.reason_of(error) if error else UNDONE
        for run_id in self.run_ids.values():
            with closing.in_seconds(error), suppress(*refused):
                self._close(run_id, "KILLED", reason)

    def recorded(self) -> dict[int, TrialRun]:
        """Read the finished trials of this search, whoever ran them; the first of each number.

        Runs that a process left behind when it died are closed as KILLED on the way.
        """
        trials: dict[int, TrialRun] = {}
        for run in _all(self.parent.info.experiment_id, self.search_key):
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
        doubles.close_runs(run)

    def finish(
        self,
        number: int,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curve: Mapping[int, float],
        tags: Mapping[str, str],
    ) -> str:
        """Write what a trial came to, with tags, and close its run; returns the run's id.

        Args:
            number: of the trial.
            params: of xgboost.
            metrics: of the whole trial.
            curve: round, counted from 0 -> valid RMSE after it, minutes.
            tags: of the run.
        """
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, 0) for name, value in metrics.items()]
        points += [Metric(CURVE, value, now, step) for step, value in curve.items()]
        entries = [Param(name, str(value)) for name, value in params.items()]
        run_tags = [RunTag(name, value) for name, value in tags.items()]
        run_id = self.run_ids[number]
        room = MAX_ENTITIES - len(entries) - len(run_tags)
        self.client.log_batch(run_id, metrics=points[:room], params=entries, tags=run_tags)
        for start in range(room, len(points), MAX_METRICS):
            self.client.log_batch(run_id, metrics=points[start : start + MAX_METRICS])
        self.client.set_terminated(run_id, "FINISHED")
        return self.run_ids.pop(number)

    def fail(self, number: int, reason: str) -> str:
        """Close the run of a trial that came to nothing, with the reason; returns the run's id."""
        self._close(self.run_ids[number], "FAILED", reason)
        return self.run_ids.pop(number)

    def _close(self, run_id: str, status: str, reason: str) -> None:
        marks = [RunTag(*mark) for mark in closing.failure_tags(status, reason).items()]
        self.client.log_batch(run_id, tags=marks)
        self.client.set_terminated(run_id, status)

    def _read(self, run: Run) -> TrialRun:
        history = self.client.get_metric_history(run.info.run_id, CURVE)
        curve = [point.value for point in sorted(history, key=lambda point: point.step)]
        return TrialRun(
            run.info.run_id, run.data.params, run.data.metrics, curve, dict(run.data.tags)
        )


def n_finished(experiment_id: str, search_key: str) -> int:
    """Count the trials of a search that need not be run again."""
    trials = _all(experiment_id, search_key)
    return len({run.data.tags[TRIAL] for run in trials if run.info.status == "FINISHED"})


def _all(experiment_id: str, search_key: str) -> list[Run]:
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
        space_key: tag of searches that would try the same points on other rows.
        search_key: of the search that asks.
        n_most: at most so many.
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
