"""Whether the candidate's intervals hold on test what they promise, asked as a caller asks."""

from typing import Any

import mlflow
import numpy as np

from steps.common.served import gives_intervals
from steps.register.testset import TestSet, request_frames
from storage.tracking import artifacts, models, tags
from taxi import coverage
from taxi.coverage import ALL, ASKED_BLIND, HIGH, LOW, GroupCoverage
from taxi.distances import METERED, MISSING, as_known
from taxi.schema import knows_distance


def measure_coverage(model: Any, uri: str, test: TestSet) -> list[GroupCoverage]:
    """Count by group how many test trips are within p10 to p90, and log it.

    Args:
        model: as it is served.
        uri: of the model, for messages.
        test: n trips, their distances as metered.
    Returns:
        All trips first; last those whose distances were all taken away. By distance nothing where
        no trip of the taxi has one; empty where the model answers no quantiles.
    """
    if not gives_intervals(model):
        return []
    found = _count(model, uri, test, METERED)
    if knows_distance(test.taxi):
        without = _count(model, uri, test, MISSING)[0]
        found.append(without._replace(kind="distance", group=ASKED_BLIND))
    else:  # all trips are of one band, and asked with none as they are
        found = [one for one in found if one.kind != "distance"]
    mlflow.log_metric(tags.TEST_COVERAGE, overall(found))
    artifacts.log_table([one._asdict() for one in found], tags.COVERAGE_TABLE)
    return found


def overall(groups: list[GroupCoverage]) -> float:
    """Return the share of all trips that are within their intervals."""
    return next(one.coverage for one in groups if one.kind == ALL)


def _count(model: Any, uri: str, test: TestSet, kind: str) -> list[GroupCoverage]:
    trips = as_known(test.known_by(kind), kind)
    asked = {"quantiles": [LOW, HIGH]}
    answers = [
        models.predict_columns(model, frame, uri, asked)
        for frame in request_frames(trips, test.taxi)
    ]
    low, high = (np.concatenate([part[name] for part in answers]) for name in ("p10", "p90"))
    return coverage.coverage_by_group(trips, low, high)
