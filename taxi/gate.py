"""Whether a candidate takes the champion's place, and why.

`mlflow.validate_evaluation_results` compares two numbers with a threshold and raises at the first
that fails. It knows no interval, so that luck on the test months passes it, and it leaves no list
of what was asked and what was found, which is what a person wants of a refusal. Hence this.
"""

from collections.abc import Mapping
from typing import NamedTuple

from .bootstrap import CONFIDENCE, Interval


class GateThresholds(NamedTuple):
    """What a candidate must reach on the test months."""

    max_rmse: float  # minutes
    min_r2: float
    min_improvement: float  # minutes of RMSE below the champion's


class Provenance(NamedTuple):
    """What a model was made from."""

    is_simulated: bool  # any of its months
    is_dirty: bool  # fitted by code that no commit holds
    train_months: frozenset[str]


class Overrides(NamedTuple):
    """What somebody has said may happen all the same."""

    simulated: bool = False
    dirty: bool = False


class Check(NamedTuple):
    """One thing that was asked of the candidate."""

    check: str
    found: str
    wanted: str
    passed: bool

    def sentence(self) -> str:
        """Say it in one line."""
        return f"{self.check} is {self.found}, wanted {self.wanted}"


class GateDecision(NamedTuple):
    """What came of it."""

    promoted: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """Say why: what failed, or all that was passed."""
        return [check.sentence() for check in self.checks if check.passed == self.promoted]


def check_scores(scores: Mapping[str, float], thresholds: GateThresholds) -> list[Check]:
    """Ask for what every champion must reach, whether there is one yet or not."""
    rmse, r2 = scores["rmse"], scores["r2"]
    return [
        Check(
            "test RMSE",
            f"{rmse:.3f} min",
            f"at most {thresholds.max_rmse:g}",
            rmse <= thresholds.max_rmse,
        ),
        Check("test R2", f"{r2:.3f}", f"at least {thresholds.min_r2:g}", r2 >= thresholds.min_r2),
    ]


def check_improvement(found: Interval, min_improvement: float) -> list[Check]:
    """Ask that the candidate is better than the champion by enough, and not by luck."""
    interval = f"{found.low:.3f} to {found.high:.3f} min"
    return [
        Check(
            "RMSE below the champion's",
            f"{found.value:.3f} min",
            f"at least {min_improvement:g}",
            found.value >= min_improvement,
        ),
        Check(f"its {CONFIDENCE:.0%} bootstrap interval", interval, "all above 0", found.low > 0),
    ]


def check_provenance(
    candidate: Provenance, champion: Provenance, test_months: frozenset[str], allowed: Overrides
) -> list[Check]:
    """Ask that the two may be compared, and that nothing better founded is lost.

    A model that has seen the test months looks better on them than it is. The candidate's own
    months never overlap (preprocess sees to that), those of a champion from elsewhere may.
    """
    worlds = {True: "simulated", False: "real"}
    trees = {True: "uncommitted", False: "committed"}
    same_world = candidate.is_simulated == champion.is_simulated
    seen = sorted(champion.train_months & test_months) if same_world else []
    return [
        Check(
            "months",
            worlds[candidate.is_simulated],
            f"{worlds[champion.is_simulated]} as the champion's, or allow_simulated=true",
            champion.is_simulated or not candidate.is_simulated or allowed.simulated,
        ),
        Check(
            "code",
            trees[candidate.is_dirty],
            f"{trees[champion.is_dirty]} as the champion's, or allow_dirty=true",
            champion.is_dirty or not candidate.is_dirty or allowed.dirty,
        ),
        Check(
            "test months the champion was trained on",
            ", ".join(seen) or "none",
            "none: pass later test_months",
            not seen,
        ),
    ]


def decide_promotion(checks: list[Check]) -> GateDecision:
    """Promote where every check is passed."""
    return GateDecision(all(check.passed for check in checks), tuple(checks))
