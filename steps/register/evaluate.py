"""Candidate and champion on the very same test trips, and what the gate makes of it."""

from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from steps.common.inputs import load_trips, log_inputs
from steps.common.results import SIMULATED, Candidate, PreprocessResult
from steps.common.served import load_served
from storage import UserError
from storage.tracking import models, tags
from storage.tracking.registry import Registry
from taxi import bootstrap, evaluation, gate
from taxi.bootstrap import Interval
from taxi.evaluation import Group
from taxi.gate import Champion, Check, GateDecision, GateThresholds, Overrides, Provenance
from taxi.model import write_frame
from taxi.schema import Trips
from taxi.scores import score_predictions

# what may become of a candidate
PROMOTED, REFUSED, UNCHANGED = "promoted", "refused", "unchanged"


class TestSet(NamedTuple):
    """The test trips, opened once."""

    taxi: str
    months: frozenset[str]
    trips: Trips  # n
    frame: pd.DataFrame  # [n], the same as a caller sends them


class TestResult(NamedTuple):
    """A candidate and how it did on the test trips."""

    candidate: Candidate
    predicted: np.ndarray  # [n] minutes
    digest: str  # of the model's files
    features: list[str]
    scores: dict[str, float]
    intervals: dict[str, Interval]
    groups: list[Group]


class GateResult(NamedTuple):
    """What becomes of the candidate; nothing is written yet."""

    outcome: str  # PROMOTED, REFUSED or UNCHANGED
    known: str  # version that holds this very model; empty where none does yet
    before: str  # the champion it was measured against; empty where there was none
    decision: GateDecision
    improvement: Interval | None

    @property
    def reasons(self) -> str:
        """Why, in one line."""
        return "; ".join(self.decision.reasons)


def open_test_set(preprocess: PreprocessResult) -> TestSet:
    """Read the test trips, and record that this run has.

    Raises:
        UserError: a month is among the train months too.
    """
    dataset = preprocess.dataset
    both = set(dataset.months["test"]) & set(dataset.months["train"])
    if both:
        raise UserError(
            f"Month {min(both)} is among the train and the test months of run "
            f"{preprocess.run_id}. Run preprocess again with other test_months."
        )
    trips = load_trips(preprocess, "test")
    log_inputs(preprocess, {"test": "test"})
    frame = write_frame(trips, dataset.taxi)
    return TestSet(dataset.taxi, frozenset(dataset.months["test"]), trips, frame)


def evaluate_candidate(candidate: Candidate, test: TestSet, *, seed: int) -> TestResult:
    """Score the candidate, through the very model that will be served, and log the scores."""
    model = load_served(candidate.model_uri, test.taxi)
    predicted = np.asarray(model.predict(test.frame))
    groups = evaluation.errors_by_group(test.trips, predicted)
    scores = score_predictions(test.trips.trip_minutes, predicted)
    intervals = bootstrap.intervals(test.trips.trip_minutes, predicted, seed=seed)
    mlflow.log_metrics({tags.TEST.of(name): value for name, value in scores.items()})
    mlflow.log_metrics(
        {tags.TEST.of(f"rmse_{end}"): getattr(intervals["rmse"], end) for end in ("low", "high")}
    )
    mlflow.log_metric("rmse", candidate.scores["rmse"])
    mlflow.set_tag(tags.MODEL, candidate.model)
    digest = models.digest(model, candidate.model_uri)
    features = model.unwrap_python_model().model.encoder.names
    return TestResult(candidate, predicted, digest, features, scores, intervals, groups)


def evaluate_champion(
    version: ModelVersion, test: TestSet, challenger: np.ndarray, *, seed: int
) -> Champion:
    """Score the champion, as it is served, on the trips the candidate was scored on.

    Args:
        version: the champion.
        test: n trips.
        challenger: [n] minutes that the candidate predicted.
        seed: of the bootstrap.
    Raises:
        StorageError: its files are gone, or it does not take these trips.
    """
    uri = f"models:/{version.name}/{version.version}"
    predicted = models.predict(load_served(uri, test.taxi), test.frame, uri)
    minutes = test.trips.trip_minutes
    gained = bootstrap.improvement(minutes, challenger, predicted, seed=seed)
    scores = score_predictions(minutes, predicted)
    mlflow.log_metrics({tags.CHAMPION_TEST.of(name): value for name, value in scores.items()})
    ends = {tags.GAINED.of("_low"): gained.low, tags.GAINED.of("_high"): gained.high}
    mlflow.log_metrics({tags.GAINED.of(""): gained.value, **ends})
    return Champion(gained, version_provenance(version))


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
    """Hold the candidate against the champion, holding the registry's lock."""
    current, known = registry.champion(), registry.known(tested.digest)
    before, version = (str(found.version) if found else "" for found in (current, known))
    if current and before == version:
        same = Check("the model", f"that of version {before}", "another one", True)
        return GateResult(UNCHANGED, version, before, GateDecision(True, (same,)), None)
    champion = evaluate_champion(current, test, tested.predicted, seed=seed) if current else None
    decision = gate.judge(
        tested.scores,
        thresholds,
        champion=champion,
        provenance=provenance,
        test_months=test.months,
        overrides=overrides,
        rolled_back=check_rolled_back(known) if known else None,
    )
    outcome = PROMOTED if decision.promoted else REFUSED
    improvement = champion.improvement if champion else None
    return GateResult(outcome, version, before, decision, improvement)


def version_provenance(version: ModelVersion) -> Provenance:
    """Read what a version was made from; one that does not tell counts as real and committed."""
    months = version.tags.get(tags.MONTHS.of("train"), "")
    return Provenance(
        is_simulated=version.tags.get(tags.DATA) == SIMULATED,
        is_dirty=version.tags.get(tags.DIRTY) == "true",
        train_months=frozenset(months.split(",")) - {""},
    )


def check_rolled_back(known: ModelVersion) -> Check:
    """Ask that nobody has taken this very model out of use."""
    at = known.tags.get(tags.ROLLED_BACK, "")
    return Check(
        f"rollback of version {known.version}",
        at or "none",
        f"none: delete the version's tag {tags.ROLLED_BACK} to use it again",
        not at,
    )
