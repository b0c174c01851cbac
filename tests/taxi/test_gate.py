import re

import pytest

from taxi import gate
from taxi.bootstrap import Interval
from taxi.coverage import NOMINAL_COVERAGE
from taxi.distances import DISTANCE_KINDS, METERED
from taxi.gate import Champion, Check, GateDecision, GateThresholds, Overrides, Provenance
from taxi.words import percent

THRESHOLDS = GateThresholds(
    max_rmse=7.0, min_r2=0.5, min_improvement=0.01, max_coverage_gap=0.08, max_slice_loss=0.05
)
REAL, SIMULATED = (
    Provenance(simulated, False, frozenset({"2021-01"})) for simulated in (False, True)
)
DIRTY = REAL._replace(is_dirty=True)
TEST = frozenset({"2021-03"})
NOTHING = Overrides()


BETTER = Interval(0.05, 0.02, 0.08)
INTERVAL = "95 % bootstrap interval of test RMSE against the champion's with metered distance"


def judge(
    scores: dict[str, float] | None = None,
    *,
    distance: str = METERED,
    candidate: Provenance = REAL,
    champion: Champion | None = None,
    overrides: Overrides = NOTHING,
    rolled_back: Check | None = None,
) -> GateDecision:
    """Judge a candidate that reaches the thresholds; state only what matters."""
    return gate.judge(
        scores or {"rmse": 5.0, "r2": 0.8},
        THRESHOLDS,
        distance=distance,
        champion=champion,
        provenance=candidate,
        test_months=TEST,
        overrides=overrides,
        rolled_back=rolled_back,
    )


def against(
    candidate: Provenance, champion: Provenance, overrides: Overrides = NOTHING
) -> GateDecision:
    return judge(candidate=candidate, champion=Champion(BETTER, champion), overrides=overrides)


@pytest.mark.parametrize(
    ("rmse", "r2", "failed"),
    [
        (7.0, 0.5, []),
        (7.01, 0.5, ["test RMSE with metered distance is 7.010 min, wanted at most 7"]),
        (7.0, 0.499, ["test R2 with metered distance is 0.499, wanted at least 0.5"]),
        (float("nan"), 0.9, ["test RMSE with metered distance is nan min, wanted at most 7"]),
    ],
)
def test_a_candidate_must_reach_the_thresholds(rmse: float, r2: float, failed: list[str]) -> None:
    decision = judge({"rmse": rmse, "r2": r2})
    assert decision.promoted == (not failed)
    assert [check.sentence() for check in decision.checks if not check.passed] == failed


@pytest.mark.parametrize(
    ("improvement", "promoted"),
    [
        (BETTER, True),
        (Interval(0.05, 0.0, 0.1), False),  # may be luck
        (Interval(0.005, 0.004, 0.006), False),  # certain, but too little
        (Interval(0.01, 0.004, 0.02), True),  # just enough
        (Interval(-0.05, -0.08, -0.02), False),
        (Interval(0.0, 0.0, 0.0), False),  # the same model again
    ],
)
def test_it_must_beat_the_champion_by_enough_and_not_by_luck(
    improvement: Interval, promoted: bool
) -> None:
    decision = judge(champion=Champion(improvement, REAL))
    assert decision.promoted == promoted
    asked = [
        "test RMSE against the champion's with metered distance",
        INTERVAL,
    ]
    failed = [check.check for check in decision.checks if not check.passed]
    assert set(failed) <= set(asked) and bool(failed) != promoted


def test_a_difference_says_which_way_it_goes() -> None:
    worse = judge(champion=Champion(Interval(-0.05, -0.08, 0.02), REAL))
    assert worse.reasons == [
        "test RMSE against the champion's with metered distance is 0.050 min more, "
        "wanted at least 0.01 min less",
        f"{INTERVAL} is 0.080 min more to 0.020 min less, wanted all less",
    ]
    lucky = judge(champion=Champion(Interval(0.05, -0.02, 0.1), REAL))
    assert lucky.reasons == [f"{INTERVAL} is 0.020 min more to 0.100 min less, wanted all less"]


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
    assert against(candidate, champion).promoted == promoted


def test_what_is_allowed_must_be_said_one_by_one() -> None:
    both = SIMULATED._replace(is_dirty=True)
    assert not against(both, REAL, Overrides(simulated=True)).promoted
    assert not against(both, REAL, Overrides(dirty=True)).promoted
    assert against(both, REAL, Overrides(simulated=True, dirty=True)).promoted


def test_a_refusal_says_what_would_allow_it() -> None:
    (reason,) = against(SIMULATED, REAL).reasons
    wanted = "real, like the champion's, or allow_simulated=true"
    assert reason == f"kind of months is simulated, wanted {wanted}"


def test_a_promotion_over_one_of_another_kind_says_that_any_kind_would_do() -> None:
    reasons = against(REAL, SIMULATED).reasons
    assert "kind of months is real, wanted any, as the champion's are simulated" in reasons
    reasons = against(REAL, DIRTY).reasons
    assert "state of the code is committed, wanted any, as the champion's is uncommitted" in reasons


def test_a_champion_that_has_seen_the_test_months_is_no_measure() -> None:
    seen = REAL._replace(seen_months=frozenset({"2021-02", "2021-03"}))
    (reason,) = against(REAL, seen).reasons
    assert "2021-03" in reason
    assert "pass later test_months" in reason
    # months of the same name, but one of them simulated
    assert against(REAL, seen._replace(is_simulated=True)).promoted


def test_one_failed_check_refuses_and_only_failed_ones_are_reasons() -> None:
    decision = judge({"rmse": 5.0, "r2": 0.1})
    assert not decision.promoted
    assert decision.reasons == ["test R2 with metered distance is 0.100, wanted at least 0.5"]


def test_a_promotion_names_every_check_it_passed() -> None:
    decision = judge(champion=Champion(BETTER, REAL), rolled_back=Check("rollback", "", "", True))
    assert decision.promoted
    assert [check.check for check in decision.checks] == [
        "test RMSE with metered distance",
        "test R2 with metered distance",
        "test RMSE against the champion's with metered distance",
        INTERVAL,
        "kind of months",
        "state of the code",
        "test months the champion has seen",
        "rollback",
    ]
    assert decision.reasons == [check.sentence() for check in decision.checks]


@pytest.mark.parametrize("distance", DISTANCE_KINDS)
def test_each_error_that_is_judged_says_with_which_distance_it_was_measured(distance: str) -> None:
    decision = judge(distance=distance, champion=Champion(BETTER, REAL))
    errors = [check.check for check in decision.checks if re.search("RMSE|R2", check.check)]
    assert len(errors) == 4
    assert [
        check for check in errors if not check.endswith(f" with {DISTANCE_KINDS[distance]}")
    ] == []


def test_without_a_champion_only_the_scores_and_a_rollback_are_asked_about() -> None:
    both = SIMULATED._replace(is_dirty=True)
    decision = judge(candidate=both)
    assert decision.promoted
    assert [check.check for check in decision.checks] == [
        "test RMSE with metered distance",
        "test R2 with metered distance",
    ]


def test_a_model_that_was_rolled_back_is_refused_however_good_it_is() -> None:
    rolled_back = Check("rollback of version 3", "2021-04-01", "none", False)
    decision = judge(champion=Champion(BETTER, REAL), rolled_back=rolled_back)
    assert not decision.promoted
    assert decision.reasons == ["rollback of version 3 is 2021-04-01, wanted none"]


@pytest.mark.parametrize(
    ("coverage", "passed"), [(0.8, True), (0.741, True), (0.859, True), (0.73, False), (0.9, False)]
)
def test_intervals_must_hold_about_as_many_trips_as_they_promise(
    coverage: float, passed: bool
) -> None:
    check = gate.check_coverage(coverage, nominal=0.8, tolerance=0.06)
    assert check.passed == passed
    assert check.sentence() == (
        f"coverage of the 80 % interval is {percent(coverage)}, wanted 74 to 86 %"
    )


def test_no_interval_is_asked_to_hold_more_than_all_trips_or_less_than_none() -> None:
    assert gate.check_coverage(1.0, nominal=0.8, tolerance=0.2).wanted == "60 to 100 %"
    assert gate.check_coverage(0.0, nominal=0.8, tolerance=1.0).wanted == "0 to 100 %"


@pytest.mark.parametrize(("tolerance", "ends"), [(0.08, (0.72, 0.88)), (0.075, (0.725, 0.875))])
def test_both_ends_of_what_intervals_may_hold_are_in_as_they_are_written(
    tolerance: float, ends: tuple[float, float]
) -> None:
    checks = [
        gate.check_coverage(end, nominal=NOMINAL_COVERAGE, tolerance=tolerance) for end in ends
    ]
    assert [check.passed for check in checks] == [True, True]
    assert {check.wanted for check in checks} == {f"{100 * ends[0]:g} to {100 * ends[1]:g} %"}
