"""Decide whether a candidate replaces the champion, and say why.

`mlflow.validate_evaluation_results` compares two numbers with a threshold and raises at the first
failure. It uses no confidence interval, so a candidate can pass by luck on the test months, and it
keeps no list of what was checked and found, which is what a person needs from a refusal.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .bootstrap import CONFIDENCE, Interval
from .coverage import NOMINAL_COVERAGE
from .distances import DISTANCE_KINDS
from .slices import PairedErrors, SliceLoss, judge_slices
from .words import percent

MAX_NAMED = 3  # slices in a sentence; each has a row of its own
CHAMPION_TEST_MONTHS = "the champion's own test months"


class GateThresholds(NamedTuple):
    """What a candidate must reach on the test months."""

    max_rmse: float  # minutes
    min_r2: float
    min_improvement: float  # minutes of RMSE below the champion's
    max_coverage_gap: float  # coverage of the 80 % interval may differ from 0.8 by so much
    max_slice_loss: float  # rise in RMSE on any slice, as a share of the champion's RMSE


class Provenance(NamedTuple):
    """What a model was made from."""

    is_simulated: bool  # any of its months
    is_dirty: bool  # some of the code that made it is not known to be committed
    seen_months: frozenset[str]  # YYYY-MM of its training and validation months


class Champion(NamedTuple):
    """What the gate needs to know about the model in use."""

    improvement: Interval  # its RMSE on test minus the candidate's, minutes
    provenance: Provenance
    slices: Sequence[PairedErrors] = ()  # of the test months and, if available, its own test months
    missing_comparison: str = ""  # why the slices lack its own test months; empty if they do not


class Overrides(NamedTuple):
    """Checks that the user has chosen to waive."""

    simulated: bool = False
    dirty: bool = False
    slice_loss: bool = False


class Check(NamedTuple):
    """One check of the candidate, and its result."""

    check: str
    found: str
    wanted: str  # empty if the value is only reported
    passed: bool

    def sentence(self) -> str:
        """Return what was checked, found and wanted, in one line."""
        wanted = f", wanted {self.wanted}" if self.wanted else ""
        return f"{self.check} is {self.found}{wanted}"


class GateDecision(NamedTuple):
    """Whether the candidate is promoted, and every check that was made."""

    promoted: bool
    checks: tuple[Check, ...]
    slices: tuple[Check, ...] = ()  # one each, for information; `checks` has their joint verdict

    @property
    def rows(self) -> tuple[Check, ...]:
        """All checks, those of the slices last."""
        return self.checks + self.slices

    @property
    def reasons(self) -> list[str]:
        """The failed checks if refused, all checks if promoted, each as a sentence."""
        return [check.sentence() for check in self.checks if check.passed == self.promoted]


def judge(
    scores: Mapping[str, float],
    thresholds: GateThresholds,
    *,
    distance: str,
    coverage: float | None = None,
    champion: Champion | None,
    provenance: Provenance,
    test_months: frozenset[str],
    overrides: Overrides,
    rolled_back: Check | None,
) -> GateDecision:
    """Run every check on a candidate, and promote it if all pass.

    Args:
        scores: the candidate's on test, including rmse (minutes) and r2.
        thresholds: what it must reach.
        distance: key of DISTANCE_KINDS, the kind with which both models' errors were measured.
        coverage: share of the test trips within the candidate's 80 % interval; None if it gives
            no intervals.
        champion: the model in use; None if there is none yet.
        provenance: of the candidate.
        test_months: YYYY-MM of the trips that both models were scored on.
        overrides: checks that the user has waived.
        rolled_back: check that this very model was not rolled back; None for a new model.
    """
    with_distance = f"with {DISTANCE_KINDS[distance]}"
    checks, slices = _check_scores(scores, thresholds, with_distance), list[Check]()
    if coverage is not None:
        gap = thresholds.max_coverage_gap
        checks.append(check_coverage(coverage, nominal=NOMINAL_COVERAGE, tolerance=gap))
    if champion:
        checks += _check_improvement(
            champion.improvement, thresholds.min_improvement, with_distance
        )
        checks += _check_provenance(provenance, champion.provenance, test_months, overrides)
        limit = thresholds.max_slice_loss
        losses = judge_slices(champion.slices, limit)
        if losses:
            checks.append(
                _check_losses(losses, limit, with_distance, is_allowed=overrides.slice_loss)
            )
        slices = [_check_slice(loss, limit) for loss in losses]
        if champion.missing_comparison:
            slices.append(
                Check(
                    CHAMPION_TEST_MONTHS, champion.missing_comparison, "if they are available", True
                )
            )
    if rolled_back:
        checks.append(rolled_back)
    promoted = all(check.passed for check in checks)
    return GateDecision(promoted, tuple(checks), tuple(slices))


def _check_scores(
    scores: Mapping[str, float], thresholds: GateThresholds, with_distance: str
) -> list[Check]:
    """Check the scores that every champion must reach, the first one included."""
    rmse, r2 = scores["rmse"], scores["r2"]
    return [
        Check(
            f"test RMSE {with_distance}",
            f"{rmse:.3f} min",
            f"at most {thresholds.max_rmse:g}",
            rmse <= thresholds.max_rmse,
        ),
        Check(
            f"test R2 {with_distance}",
            f"{r2:.3f}",
            f"at least {thresholds.min_r2:g}",
            r2 >= thresholds.min_r2,
        ),
    ]


def check_coverage(coverage: float, *, nominal: float, tolerance: float) -> Check:
    """Check that the coverage of the intervals is close to the nominal one.

    Args:
        coverage: share of the test trips within their intervals.
        nominal: the share that there should be.
        tolerance: how much the two may differ; a month unlike the one before shifts it by 0.05.
    """
    lowest, highest = max(nominal - tolerance, 0), min(nominal + tolerance, 1)
    return Check(
        f"coverage of the {percent(nominal, 0)} interval",
        percent(coverage),
        f"{100 * lowest:.4g} to {100 * highest:.4g} %",
        round(abs(coverage - nominal), 9) <= tolerance,  # 0.8 - 0.72 is slightly above 0.08
    )


def _check_improvement(
    improvement: Interval, min_improvement: float, with_distance: str
) -> list[Check]:
    """Check that the candidate beats the champion by enough, and not by chance."""
    interval = f"{_format_improvement(improvement.low)} to {_format_improvement(improvement.high)}"
    compared = f"test RMSE against the champion's {with_distance}"
    return [
        Check(
            compared,
            _format_improvement(improvement.value),
            f"at least {min_improvement:g} min less",
            improvement.value >= min_improvement,
        ),
        Check(
            f"{percent(CONFIDENCE, 0)} bootstrap interval of {compared}",
            interval,
            "all less",
            improvement.low > 0,
        ),
    ]


def _format_improvement(improvement: float) -> str:
    return f"{abs(improvement):.3f} min {'less' if improvement >= 0 else 'more'}"


def _check_losses(
    losses: Sequence[SliceLoss], limit: float, with_distance: str, *, is_allowed: bool
) -> Check:
    """Check that no slice is significantly worse by more than the limit; name the worst ones."""
    worst = sorted((loss for loss in losses if loss.is_significant), key=lambda loss: -loss.loss)
    worse = [
        f"{loss.name} by {percent(loss.loss)} (at least {percent(loss.at_least)})"
        for loss in worst[:MAX_NAMED]
    ]
    if more := worst[MAX_NAMED:]:
        worse.append(f"{len(more)} more of {len(losses)}")
    return Check(
        f"slices whose RMSE is significantly above the champion's {with_distance}",
        ", ".join(worse) or f"none of {len(losses)}",
        f"none by more than {percent(limit)}, or allow_slice_loss=true",
        not worse or is_allowed,
    )


def _check_slice(loss: SliceLoss, limit: float) -> Check:
    return Check(
        f"RMSE above the champion's: {loss.name}",
        f"{percent(loss.loss)} on {loss.n_trips:,} trips, at least {percent(loss.at_least)}",
        f"not significantly above {percent(limit)}",
        not loss.is_significant,
    )


def _check_provenance(
    candidate: Provenance, champion: Provenance, test_months: frozenset[str], overrides: Overrides
) -> list[Check]:
    """Check that the two are comparable, and that no better-founded model is replaced.

    A model that has seen the test months looks better on them than it is. The candidate's own
    months never overlap (preprocess ensures that), but those of a champion from elsewhere may.
    """
    data = {True: "simulated", False: "real"}
    code = {True: "uncommitted", False: "committed"}
    # a real and a simulated month of the same name hold different trips
    same_data = candidate.is_simulated == champion.is_simulated
    seen = sorted(champion.seen_months & test_months) if same_data else []
    return [
        Check(
            "kind of months",
            data[candidate.is_simulated],
            "any, as the champion's are simulated"
            if champion.is_simulated
            else "real, like the champion's, or allow_simulated=true",
            champion.is_simulated or not candidate.is_simulated or overrides.simulated,
        ),
        Check(
            "state of the code",
            code[candidate.is_dirty],
            "any, as the champion's is uncommitted"
            if champion.is_dirty
            else "committed, like the champion's, or allow_dirty=true",
            champion.is_dirty or not candidate.is_dirty or overrides.dirty,
        ),
        Check(
            "test months the champion has seen",
            ", ".join(seen) or "none",
            "none: pass later test_months",
            not seen,
        ),
    ]
