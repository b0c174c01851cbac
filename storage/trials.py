"""The trials of a search as runs in MLflow."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from .runs import inherited_tags

MAX_METRICS = 1000  # in one call


class TrialRuns:
    """Child runs of a search, written from one thread in few calls: a trial costs little more."""

    def __init__(self, parent_run_id: str, tags: Mapping[str, str]) -> None:
        self.client = MlflowClient()
        self.parent = self.client.get_run(parent_run_id)
        self.tags = inherited_tags(self.parent) | dict(tags) | {"mlflow.parentRunId": parent_run_id}
        self.run_ids: dict[int, str] = {}

    def start(self, number: int) -> None:
        """Open the run of a trial."""
        run = self.client.create_run(
            self.parent.info.experiment_id,
            run_name=f"trial {number}",
            tags=self.tags | {"trial": str(number)},
        )
        self.run_ids[number] = run.info.run_id

    def finish(
        self,
        number: int,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        curves: Mapping[str, Sequence[float]],
    ) -> None:
        """Write what a trial came to and close its run."""
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, 0) for name, value in metrics.items()]
        for name, values in curves.items():
            points += [Metric(name, value, now, step) for step, value in enumerate(values)]
        run_id = self.run_ids.pop(number)
        entries = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(points), MAX_METRICS):
            self.client.log_batch(run_id, metrics=points[start : start + MAX_METRICS])
        self.client.log_batch(run_id, params=entries)
        self.client.set_terminated(run_id, "FINISHED")
