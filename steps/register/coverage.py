"""Measure on test whether the candidate's 80 % intervals hold, asking as a caller would."""

from typing import Any

import mlflow
import numpy as np

from steps.common.served import gives_intervals
from steps.register.testset import TestSet, request_frames
from storage.tracking import artifacts, models, tags
from taxi import coverage
from taxi.coverage import ALL_TRIPS, ALL_WITHOUT_DISTANCE, HIGH, LOW, GroupCoverage
from taxi.distances import METERED, MISSING, apply_distance_kind
from taxi.schema import has_distance_column


def measure_coverage(model: Any, uri: str, test: TestSet) -> list[GroupCoverage]:
    """Measure by group the share of test trips between p10 and p90, and log it.

    Args:
        model: as it is served.
        uri: of the model, for messages.
        test: n trips with metered distances.
    Returns:
        A row for all trips first, and last one for all trips asked without their distances. No
        rows by distance if trips of this taxi have none; [] if the model gives no quantiles.
    """
    if not gives_intervals(model):
        return []
    found = _count(model, uri, test, METERED)
    if has_distance_column(test.taxi):
        without = _count(model, uri, test, MISSING)[0]
        found.append(without._replace(kind="distance", group=ALL_WITHOUT_DISTANCE))
    else:  # no trip has a distance: they are all one group, and asked without one anyway
        found = [one for one in found if one.kind != "distance"]
    mlflow.log_metric(tags.TEST_COVERAGE, overall(found))
    artifacts.log_table([one._asdict() for one in found], tags.COVERAGE_TABLE)
    return found


def overall(groups: list[GroupCoverage]) -> float:
    """Return the share of all trips that are within their intervals, 0..1."""
    return next(one.coverage for one in groups if one.kind == ALL_TRIPS)


def _count(model: Any, uri: str, test: TestSet, kind: str) -> list[GroupCoverage]:
    trips = apply_distance_kind(test.trips_for(kind), kind)
    params = {"quantiles": [LOW, HIGH]}
    answers = [
        models.predict_columns(model, frame, uri, params)
        for frame in request_frames(trips, test.taxi)
    ]
    low, high = (np.concatenate([part[name] for part in answers]) for name in ("p10", "p90"))
    return coverage.coverage_by_group(trips, low, high)
