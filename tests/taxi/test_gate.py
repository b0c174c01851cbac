import pytest

from taxi import gate
from taxi.bootstrap import Interval
from taxi.gate import GateThresholds, Overrides, Provenance

THRESHOLDS = GateThresholds(max_rmse=7.0, min_r2=0.5, min_improvement=0.01)
REAL, SIMULATED = (
    Provenance(simulated, False, frozenset({"2021-01"})) for simulated in (False, True)
)
DIRTY = REAL._replace(is_dirty=True)
TEST = frozenset({"2021-03"})
NOTHING = Overrides()


def origin(
    candidate: Provenance, champion: Provenance, allowed: Overrides = NOTHING
) -> gate.GateDecision:
    return gate.decide_promotion(gate.check_provenance(candidate, champion, TEST, allowed))


@pytest.mark.parametrize(
    ("rmse", "r2", "failed"),
    [
        (7.0, 0.5, []),
        (7.01, 0.5, ["test RMSE is 7.010 min, wanted at most 7"]),
        (7.0, 0.499, ["test R2 is 0.499, wanted at least 0.5"]),
        (float("nan"), 0.9, ["test RMSE is nan min, wanted at most 7"]),
    ],
)
def test_a_candidate_must_reach_the_thresholds(rmse: float, r2: float, failed: list[str]) -> None:
    decision = gate.decide_promotion(gate.check_scores({"rmse": rmse, "r2": r2}, THRESHOLDS))
    assert decision.promoted == (not failed)
    assert [check.sentence() for check in decision.checks if not check.passed] == failed


@pytest.mark.parametrize(
    ("found", "promoted"),
    [
        (Interval(0.05, 0.02, 0.08), True),
        (Interval(0.05, 0.0, 0.1), False),  # it may be luck
        (Interval(0.005, 0.004, 0.006), False),  # sure, but too little
        (Interval(-0.05, -0.08, -0.02), False),
        (Interval(0.0, 0.0, 0.0), False),  # the same model again
    ],
)
def test_it_must_beat_the_champion_by_enough_and_not_by_luck(
    found: Interval, promoted: bool
) -> None:
    checks = gate.check_improvement(found, THRESHOLDS.min_improvement)
    assert gate.decide_promotion(checks).promoted == promoted


@pytest.mark.parametrize(
    ("candidate", "champion", "promoted"),
    [
        (REAL, REAL, True),
        (SIMULATED, SIMULATED, True),
        (REAL, SIMULATED, True),
        (SIMULATED, REAL, False),
        (DIRTY, DIRTY, True),
        (REAL, DIRTY, True),
        (DIRTY, REAL, False),
    ],
)
def test_a_better_founded_champion_is_not_lost(
    candidate: Provenance, champion: Provenance, promoted: bool
) -> None:
    assert origin(candidate, champion).promoted == promoted


def test_what_is_allowed_must_be_said_one_by_one() -> None:
    both = SIMULATED._replace(is_dirty=True)
    assert not origin(both, REAL, Overrides(simulated=True)).promoted
    assert not origin(both, REAL, Overrides(dirty=True)).promoted
    assert origin(both, REAL, Overrides(simulated=True, dirty=True)).promoted


def test_a_refusal_says_what_would_allow_it() -> None:
    (reason,) = origin(SIMULATED, REAL).reasons
    assert reason == "months is simulated, wanted real as the champion's, or allow_simulated=true"


def test_a_champion_that_has_seen_the_test_months_is_no_measure() -> None:
    seen = REAL._replace(train_months=frozenset({"2021-02", "2021-03"}))
    (reason,) = origin(REAL, seen).reasons
    assert "2021-03" in reason
    assert "pass later test_months" in reason
    # months of the same name, but of another city
    assert origin(REAL, seen._replace(is_simulated=True)).promoted


def test_one_failed_check_refuses_and_only_failed_ones_are_reasons() -> None:
    checks = gate.check_scores({"rmse": 5.0, "r2": 0.1}, THRESHOLDS)
    assert gate.decide_promotion(checks).reasons == ["test R2 is 0.100, wanted at least 0.5"]
    assert len(gate.decide_promotion(checks[:1]).reasons) == 1
