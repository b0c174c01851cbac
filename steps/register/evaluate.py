"""How register judges: candidate and champion on the very same test trips, then the gate."""

from typing import NamedTuple

import mlflow
import numpy as np
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from steps.common.candidates import load_trips, log_inputs
from steps.common.served import load_served
from storage import StorageError
from storage.tracking import models, runs
from storage.tracking.registry import ROLL_BACK, ROLLED_BACK, Registry, previous
from taxi import bootstrap, evaluation, gate
from taxi.bootstrap import Interval
from taxi.gate import Check, GateDecision, GateThresholds, Overrides, Provenance
from taxi.model import write_frame
from taxi.schema import Trips

# what may become of a candidate, and of a run that only rolls back: tag `outcome`
PROMOTED, REFUSED, UNCHANGED = "promoted", "refused", "unchanged"
NO_HISTORY = (
    "No champion of {name} comes before {before}. Its history is in the tags promotion.* of the "
    "registered model; alias champion can be set by hand."
)


class TestResult(NamedTuple):
    """A candidate and how it did on the test trips."""

    run: Run  # that fitted it
    preprocess: Run
    trips: Trips
    predicted: np.ndarray  # [n]
    digest: str
    scores: dict[str, float]
    intervals: dict[str, Interval]
    features: list[str]
    seed: int

    @property
    def taxi(self) -> str:
        """Name the taxi whose trips these are."""
        return str(self.preprocess.data.tags["taxi"])

    @property
    def months(self) -> dict[str, list[str]]:
        """List the months: train, valid and test."""
        tags = self.preprocess.data.tags
        return {split: tags[f"months.{split}"].split(",") for split in ("train", "valid", "test")}


class GateResult(NamedTuple):
    """What was found of the candidate; nothing is written yet."""

    outcome: str  # PROMOTED, REFUSED or UNCHANGED
    known: str  # version that holds this very model; empty where none does
    before: str  # the champion it was measured against; empty where there was none
    decision: GateDecision
    improvement: Interval | None


def test(best: Run, preprocess: Run, *, seed: int) -> TestResult:
    """Score the candidate on the test months, through the very model that will be served.

    Raises:
        StorageError: it was trained on a month that it is to be tested on.
    """
    tags = preprocess.data.tags
    both = set(tags["months.test"].split(",")) & set(tags["months.train"].split(","))
    if both:
        raise StorageError(
            f"Month {min(both)} is among the train and the test months of run "
            f"{preprocess.info.run_id}. Run preprocess again with other test_months."
        )
    trips = load_trips(preprocess, "test")
    log_inputs(preprocess, {"test": "test"})
    uri = best.data.tags["model_uri"]
    model = load_served(uri, tags["taxi"])
    predicted = np.asarray(model.predict(write_frame(trips, tags["taxi"])))
    scores = evaluation.score(trips.trip_minutes, predicted)
    intervals = bootstrap.intervals(trips.trip_minutes, predicted, seed=seed)
    mlflow.log_metrics({f"test_{name}": value for name, value in scores.items()})
    mlflow.log_metrics(
        {f"test_rmse_{end}": getattr(intervals["rmse"], end) for end in ("low", "high")}
    )
    mlflow.log_metric("rmse", best.data.metrics["rmse"])
    mlflow.set_tag("model", best.data.tags["model"])
    digest = models.digest(model, uri)
    features = model.unwrap_python_model().model.encoder.names
    return TestResult(best, preprocess, trips, predicted, digest, scores, intervals, features, seed)


def judge(
    registry: Registry, tested: TestResult, thresholds: GateThresholds, allowed: Overrides
) -> GateResult:
    """Hold the candidate against the champion, holding the registry's lock."""
    champion, known = registry.champion(), registry.known(tested.digest)
    before, version = (str(found.version) if found else "" for found in (champion, known))
    if champion and before == version:
        checks = [Check("the model", f"that of version {before}", "another one", True)]
        return GateResult(UNCHANGED, version, before, gate.decide_promotion(checks), None)
    checks = gate.check_scores(tested.scores, thresholds)
    improvement = None
    if champion:
        improvement = score_champion(champion, tested)
        checks += gate.check_improvement(improvement, thresholds.min_improvement)
        test_months = frozenset(tested.months["test"])
        checks += gate.check_provenance(
            origin(tested), provenance_of(champion), test_months, allowed
        )
    if known:
        checks.append(check_rolled_back(known))
    decision = gate.decide_promotion(checks)
    outcome = PROMOTED if decision.promoted else REFUSED
    return GateResult(outcome, version, before, decision, improvement)


def score_champion(champion: ModelVersion, tested: TestResult) -> Interval:
    """Score the champion, as it is served, on the trips the candidate was scored on.

    Raises:
        StorageError: its files are gone, or it does not take these trips.
    """
    uri = f"models:/{champion.name}/{champion.version}"
    model = load_served(uri, tested.taxi)
    predicted = models.predict(model, write_frame(tested.trips, tested.taxi), uri)
    found = bootstrap.improvement(
        tested.trips.trip_minutes, tested.predicted, predicted, seed=tested.seed
    )
    scores = evaluation.score(tested.trips.trip_minutes, predicted)
    mlflow.log_metrics({f"champion_test_{name}": value for name, value in scores.items()})
    mlflow.log_metrics(
        {"improvement": found.value, "improvement_low": found.low, "improvement_high": found.high}
    )
    return found


def origin(tested: TestResult) -> Provenance:
    """Say what the candidate was made from: its months, and the code of each run behind it."""
    tags = tested.preprocess.data.tags
    return Provenance(
        is_simulated=tags.get("data") == "simulated",
        is_dirty=is_dirty(tested),
        train_months=frozenset(tested.months["train"]),
    )


def is_dirty(tested: TestResult) -> bool:
    """Tell whether any code behind this model is in no commit."""
    behind = (tested.preprocess, tested.run, runs.active())
    return any(run.data.tags.get("git_dirty") == "true" for run in behind)


def provenance_of(champion: ModelVersion) -> Provenance:
    """Read what a version was made from; one that does not tell counts as real and committed."""
    tags = champion.tags
    return Provenance(
        is_simulated=tags.get("data") == "simulated",
        is_dirty=tags.get("git_dirty") == "true",
        train_months=frozenset(tags.get("months.train", "").split(",")) - {""},
    )


def check_rolled_back(known: ModelVersion) -> Check:
    """Ask that nobody has taken this very model out of use."""
    at = known.tags.get(ROLLED_BACK, "")
    return Check(
        f"rollback of version {known.version}",
        at or "none",
        f"none: delete the version's tag {ROLLED_BACK} to use it again",
        not at,
    )


def roll_back(registry: Registry) -> str:
    """Put the champion before this one back; gives a line that says so.

    Raises:
        StorageError: there is none, or its files are gone.
    """
    if not registry.history():  # the lock would make a model of this name
        raise StorageError(NO_HISTORY.format(name=registry.name, before="this"))
    with registry.lock():
        champion = registry.champion()
        replaced = str(champion.version) if champion else "none"
        version = previous(registry.history(), replaced)
        if not version:
            before = f"version {replaced}" if champion else "this"
            raise StorageError(NO_HISTORY.format(name=registry.name, before=before))
        models.load(f"models:/{registry.name}/{version}")
        why = f"rollback=true: version {replaced} taken out of use"
        registry.roll_back(version, why=why)
    mlflow.set_tags(
        {
            "model_name": registry.name,
            "version": version,
            "champion_version": version,
            "outcome": ROLL_BACK,
            "reasons": why,
        }
    )
    return f"{registry.name}: version {version} is champion again, in place of version {replaced}"
