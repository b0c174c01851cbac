"""Score candidate and champion on the same test trips, and have the gate judge them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion

from steps.common.candidates import log_errors, log_worst
from steps.common.results import LEARNING_SPLITS, RMSES, SIMULATED, Candidate
from steps.common.served import load_served
from steps.register.coverage import measure_coverage, overall
from steps.register.old_months import compare_on_old_months
from steps.register.testset import TestSet, predict_minutes
from storage.tracking import datasets, models, tags
from storage.tracking.registry import Registry
from storage.tracking.tags import Family
from taxi import bootstrap, evaluation, gate
from taxi.bootstrap import Interval
from taxi.breakdown import break_down
from taxi.coverage import GroupCoverage
from taxi.distances import METERED, apply_distance_kind
from taxi.evaluation import GroupErrors
from taxi.gate import Champion, Check, GateDecision, GateThresholds, Overrides, Provenance
from taxi.scores import score_predictions
from taxi.slices import pair_slices
from taxi.worst import find_worst

# outcomes for a candidate
PROMOTED, REFUSED, UNCHANGED = "promoted", "refused", "unchanged"


class TestResult(NamedTuple):
    """A candidate and how it did on the test trips."""

    candidate: Candidate
    predicted: dict[str, np.ndarray]  # kind of distance -> minutes [m], of `TestSet.trips_for` it
    digest: str  # of the model's files
    features: list[str]
    scores: dict[str, dict[str, float]]  # kind of distance -> its scores
    intervals: dict[str, Interval]  # with metered distance, as are the groups
    groups: list[GroupErrors]
    coverage: list[GroupCoverage]  # of the 80 % interval; [] if the model gives none


class GateResult(NamedTuple):
    """The gate's outcome for the candidate, before anything is written to the registry."""

    outcome: str  # PROMOTED, REFUSED or UNCHANGED
    version: str  # that holds this very model; empty if there is none yet
    champion_before: str  # version of the champion it was compared with; empty if there was none
    decision: GateDecision
    improvement: Interval | None
    distance: str  # kind of distance that both were judged by
    earlier_judgement: str = ""  # if UNCHANGED: how the version was judged at the time

    @property
    def reasons(self) -> str:
        """The reasons for the outcome, in one line."""
        return "; ".join(filter(None, [*self.decision.reasons, self.earlier_judgement]))


def evaluate_candidate(candidate: Candidate, test: TestSet, *, seed: int) -> TestResult:
    """Score the candidate, in the form in which it will be served, and log the scores."""
    model = load_served(candidate.model_uri, test.taxi)
    predicted = predict_served(model, candidate.model_uri, test)
    groups = evaluation.errors_by_group(test.trips, predicted[METERED])
    log_errors(groups, break_down(test.trips, predicted[METERED]))
    log_worst(find_worst(test.trips, predicted[METERED]))
    scores = score_by_distance(predicted, test)
    intervals = bootstrap.score_intervals(test.trips.trip_minutes, predicted[METERED], seed=seed)
    _, low, high = intervals["rmse"]
    ends = {tags.TEST.of("rmse_low"): low, tags.TEST.of("rmse_high"): high}
    found = to_metrics(tags.TEST, scores) | ends
    datasets.log_scores(found, model_uri=candidate.model_uri, dataset=test.dataset)
    mlflow.log_metric("rmse", candidate.scores["rmse"])
    mlflow.set_tag(tags.MODEL, candidate.model)
    digest = models.digest(model, candidate.model_uri)
    features = models.unwrapped(model).encoder.names
    covered = measure_coverage(model, candidate.model_uri, test)
    return TestResult(candidate, predicted, digest, features, scores, intervals, groups, covered)


def predict_served(model: Any, uri: str, test: TestSet) -> dict[str, np.ndarray]:
    """Predict the test trips with a served model, by kind of distance: kind -> minutes [m].

    Raises:
        StorageError: the model does not take these trips.
    """
    return {
        kind: predict_minutes(
            model, uri, apply_distance_kind(test.trips_for(kind), kind), test.taxi
        )
        for kind in RMSES
    }


def score_by_distance(
    predicted: Mapping[str, np.ndarray], test: TestSet
) -> dict[str, dict[str, float]]:
    """Score the predictions for each kind of distance: kind -> its scores."""
    return {
        kind: score_predictions(test.trips_for(kind).trip_minutes, minutes)
        for kind, minutes in predicted.items()
    }


def to_metrics(family: Family, scores: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """Return as metrics all scores with metered distance, and the RMSE with every kind."""
    rmses = {name: scores[kind]["rmse"] for kind, name in RMSES.items()}
    return {family.of(name): value for name, value in (scores[METERED] | rmses).items()}


def evaluate_champion(
    version: ModelVersion,
    test: TestSet,
    tested: TestResult,
    seen_months: frozenset[str],
    *,
    seed: int,
) -> Champion:
    """Score the champion, as it is served, on the trips that the candidate was scored on.

    Args:
        version: the champion.
        test: n trips.
        tested: the candidate.
        seen_months: months that the candidate was fitted to or chosen on.
        seed: of the bootstrap.
    Raises:
        StorageError: the champion's files are gone, or it does not take these trips.
    """
    uri = f"models:/{version.name}/{version.version}"
    predicted = predict_served(load_served(uri, test.taxi), uri, test)
    both = tested.predicted[test.distance], predicted[test.distance]
    improvement = bootstrap.rmse_improvement(test.trips.trip_minutes, *both, seed=seed)
    found = to_metrics(tags.CHAMPION_TEST, score_by_distance(predicted, test))
    name = tags.RMSE_IMPROVEMENT
    ends = {name.of("_low"): improvement.low, name.of("_high"): improvement.high}
    mlflow.log_metrics(found | {name.of(""): improvement.value, **ends})
    old = compare_on_old_months(version, tested.candidate.model_uri, test, seen_months)
    slices = [*pair_slices(test.trips, *both, test.city), *old.errors]
    return Champion(improvement, version_provenance(version), slices, old.missing_comparison)


def judge_candidate(
    registry: Registry,
    tested: TestResult,
    test: TestSet,
    provenance: Provenance,
    thresholds: GateThresholds,
    overrides: Overrides,
    *,
    seed: int,
) -> GateResult:
    """Judge the candidate against the champion; the caller holds the registry's lock."""
    distance = test.distance
    current, known = registry.champion(), registry.find_version(tested.digest)
    whole = known if known and models.has_files(f"models:/{known.name}/{known.version}") else None
    champion_before, version = (str(found.version) if found else "" for found in (current, whole))
    if current and champion_before == version:
        same = Check("the model", f"that of version {champion_before}, the champion", "", True)
        decision, earlier = GateDecision(True, (same,)), describe_earlier_judgement(current)
        return GateResult(UNCHANGED, version, champion_before, decision, None, distance, earlier)
    champion = None
    if current:
        champion = evaluate_champion(current, test, tested, provenance.seen_months, seed=seed)
    decision = gate.judge(
        tested.scores[distance],
        thresholds,
        distance=distance,
        coverage=overall(tested.coverage) if tested.coverage else None,
        champion=champion,
        provenance=provenance,
        test_months=test.months,
        overrides=overrides,
        rolled_back=check_rolled_back(known) if known else None,
    )
    outcome = PROMOTED if decision.promoted else REFUSED
    improvement = champion.improvement if champion else None
    return GateResult(outcome, version, champion_before, decision, improvement, distance)


def describe_earlier_judgement(version: ModelVersion) -> str:
    """Say how the gate judged a version, in case the run that asked was cut short after that."""
    outcome, reasons = (version.tags.get(name, "") for name in (tags.OUTCOME, tags.REASONS))
    return f"{outcome} when it was judged: {reasons}" if outcome and reasons else ""


def version_provenance(version: ModelVersion) -> Provenance:
    """Read what a version was made from; without tags it counts as real and committed."""
    months = ",".join(version.tags.get(tags.MONTHS.of(split), "") for split in LEARNING_SPLITS)
    return Provenance(
        is_simulated=version.tags.get(tags.DATA) == SIMULATED,
        is_dirty=version.tags.get(tags.DIRTY, "false") != "false",
        seen_months=frozenset(months.split(",")) - {""},
    )


def check_rolled_back(known: ModelVersion) -> Check:
    """Check that nobody has rolled back this very model."""
    at = known.tags.get(tags.ROLLED_BACK, "")
    return Check(
        f"rollback of version {known.version}",
        at or "none",
        f"none: pass restore={known.version} to use it again",
        not at,
    )
