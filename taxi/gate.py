"""Whether a candidate takes the champion's place, and why.

`mlflow.validate_evaluation_results` compares two numbers with a threshold and raises at the first
that fails. It knows no interval, so that luck on the test months passes it, and it leaves no list
of what was asked and what was found, which is what a person wants of a refusal. Hence this.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .bootstrap import CONFIDENCE, Interval
from .coverage import NOMINAL
from .distances import KINDS
from .slices import PairedErrors, SliceLoss, judge_slices
from .words import percent

MAX_NAMED = 3  # slices in a sentence; each has a row of its own
OWN_MONTHS = "the champion's own test months"


class GateThresholds(NamedTuple):
    """What a candidate must reach on the test months."""

    max_rmse: float  # minutes
    min_r2: float
    min_improvement: float  # minutes of RMSE below the champion's
    max_coverage_gap: float  # share by which the 80 % interval may hold more, or fewer
    max_slice_loss: float  # share of the champion's RMSE, on any slice of the trips


class Provenance(NamedTuple):
    """What a model was made from."""

    is_simulated: bool  # any of its months
    is_dirty: bool  # fitted by code that no commit holds, as far as anybody knows
    seen_months: frozenset[str]  # it was fitted to, or chosen by


class Champion(NamedTuple):
    """The model in use, as far as the gate asks about it."""

    improvement: Interval  # its RMSE on test less the candidate's, minutes
    provenance: Provenance
    slices: Sequence[PairedErrors] = ()  # of test and, if they are available, its own test months
    not_compared: str = ""  # why its own test months are missing there; empty if not


class Overrides(NamedTuple):
    """What may happen all the same, because somebody has said so."""

    simulated: bool = False
    dirty: bool = False
    slice_loss: bool = False


class Check(NamedTuple):
    """One thing that was asked of the candidate."""

    check: str
    found: str
    wanted: str  # empty where it was merely looked at
    passed: bool

    def sentence(self) -> str:
        """Return what was asked and what was seen, in one line."""
        wanted = f", wanted {self.wanted}" if self.wanted else ""
        return f"{self.check} is {self.found}{wanted}"


class GateDecision(NamedTuple):
    """Whether the candidate is promoted, and every check that was asked."""

    promoted: bool
    checks: tuple[Check, ...]
    slices: tuple[Check, ...] = ()  # one by one; what follows of them is one of the checks

    @property
    def rows(self) -> tuple[Check, ...]:
        """All that was asked, slices last."""
        return self.checks + self.slices

    @property
    def reasons(self) -> list[str]:
        """The failed checks of a refusal, all checks of a promotion, each as a sentence."""
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
    """Ask every check of a candidate; it is promoted where all of them are passed.

    Args:
        scores: of the candidate on test, rmse (minutes) and r2 among them.
        thresholds: what it must reach.
        distance: of distances.KINDS, that both models' errors were measured with.
        coverage: share of the test trips within the candidate's 80 % interval; None where it gives
            none.
        champion: the model in use; None where there is none yet.
        provenance: of the candidate.
        test_months: YYYY-MM of the trips that both were scored on.
        overrides: what may happen all the same.
        rolled_back: whether this very model was taken out of use; None where it is a new one.
    """
    known = f"with {KINDS[distance]}"
    checks, slices = _check_scores(scores, thresholds, known), list[Check]()
    if coverage is not None:
        gap = thresholds.max_coverage_gap
        checks.append(check_coverage(coverage, nominal=NOMINAL, tolerance=gap))
    if champion:
        checks += _check_improvement(champion.improvement, thresholds.min_improvement, known)
        checks += _check_provenance(provenance, champion.provenance, test_months, overrides)
        limit = thresholds.max_slice_loss
        losses = judge_slices(champion.slices, limit)
        if losses:
            checks.append(_check_losses(losses, limit, known, is_allowed=overrides.slice_loss))
        slices = [_check_slice(loss, limit) for loss in losses]
        if champion.not_compared:
            slices.append(Check(OWN_MONTHS, champion.not_compared, "if they are available", True))
    if rolled_back:
        checks.append(rolled_back)
    promoted = all(check.passed for check in checks)
    return GateDecision(promoted, tuple(checks), tuple(slices))


def _check_scores(
    scores: Mapping[str, float], thresholds: GateThresholds, known: str
) -> list[Check]:
    """Ask for what every champion must reach, whether there is one yet or not."""
    rmse, r2 = scores["rmse"], scores["r2"]
    return [
        Check(
            f"test RMSE {known}",
            f"{rmse:.3f} min",
            f"at most {thresholds.max_rmse:g}",
            rmse <= thresholds.max_rmse,
        ),
        Check(
            f"test R2 {known}",
            f"{r2:.3f}",
            f"at least {thresholds.min_r2:g}",
            r2 >= thresholds.min_r2,
        ),
    ]


def check_coverage(coverage: float, *, nominal: float, tolerance: float) -> Check:
    """Ask that intervals hold about as many trips as they promise.

    Args:
        coverage: share of the test trips that are within their intervals.
        nominal: share that should be.
        tolerance: share by which it may be off; a month unlike the one before moves it by 0.05.
    """
    lowest, highest = max(nominal - tolerance, 0), min(nominal + tolerance, 1)
    return Check(
        f"coverage of the {percent(nominal, 0)} interval",
        percent(coverage),
        f"{100 * lowest:.4g} to {100 * highest:.4g} %",
        round(abs(coverage - nominal), 9) <= tolerance,  # 0.8 - 0.72 is a digit more than 0.08
    )


def _check_improvement(gained: Interval, min_improvement: float, known: str) -> list[Check]:
    """Ask that the candidate is better than the champion by enough, and not by luck."""
    interval = f"{_less_or_more(gained.low)} to {_less_or_more(gained.high)}"
    return [
        Check(
            f"test RMSE against the champion's {known}",
            _less_or_more(gained.value),
            f"at least {min_improvement:g} min less",
            gained.value >= min_improvement,
        ),
        Check(
            f"its {percent(CONFIDENCE, 0)} bootstrap interval", interval, "all less", gained.low > 0
        ),
    ]


def _less_or_more(gained: float) -> str:
    return f"{abs(gained):.3f} min {'less' if gained >= 0 else 'more'}"


def _check_losses(
    losses: Sequence[SliceLoss], limit: float, known: str, *, is_allowed: bool
) -> Check:
    """Ask that no slice of the trips is surely worse by more than may be; names the worst ones."""
    worst = sorted((one for one in losses if one.is_surely_worse), key=lambda one: -one.loss)
    worse = [
        f"{one.name} by {percent(one.loss)} (surely {percent(one.at_least)})"
        for one in worst[:MAX_NAMED]
    ]
    if more := worst[MAX_NAMED:]:
        worse.append(f"{len(more)} more of {len(losses)}")
    return Check(
        f"slices whose RMSE is surely above the champion's {known}",
        ", ".join(worse) or f"none of {len(losses)}",
        f"none by more than {percent(limit)}, or allow_slice_loss=true",
        not worse or is_allowed,
    )


def _check_slice(loss: SliceLoss, limit: float) -> Check:
    return Check(
        f"RMSE above the champion's: {loss.name}",
        f"{percent(loss.loss)} on {loss.n_trips:,} trips, surely {percent(loss.at_least)} or more",
        f"not surely above {percent(limit)}",
        not loss.is_surely_worse,
    )


def _check_provenance(
    candidate: Provenance, champion: Provenance, test_months: frozenset[str], overrides: Overrides
) -> list[Check]:
    """Ask that the two may be compared, and that nothing better founded is lost.

    A model that has seen the test months looks better on them than it is. The candidate's own
    months never overlap (preprocess sees to that), those of a champion from elsewhere may.
    """
    data = {True: "simulated", False: "real"}
    code = {True: "uncommitted", False: "committed"}
    # a real month and a simulated one of the same name hold other trips
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
