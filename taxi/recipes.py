"""How a chosen model was fitted, so that the same can be fitted to other trips, or to more of them.

A model is chosen by its errors on valid. Once it is chosen, the valid trips are the latest there
are, and the model that is used learns from them too: with rounds that are fixed by then.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, log
from typing import Any, NamedTuple

# with more trips to learn from the best number of rounds grows; nothing is left to find it by
MORE_ROUNDS = 1.3
# a column's bins, at least: what is fitted once, not in every trial, has time for fine ones
FINE_BINS = 256
# and, as long as the trips are few, for steps that begin small: a rate above FINE_RATE grows round
# by round, from a quarter of itself (of COARSE_RATE at most) to 1.75 times it. What small steps are
# worth (0.003 to 0.009 min of 2020-12, 2021-01 and 2023-03) is in the first of them: half the rate
# in every round is no better, and wants half as many rounds again
FINE_RATE, COARSE_RATE = 0.1, 0.2
FIRST_RATE, LAST_RATE = 0.25, 1.75
FEW_TRIPS = 1_000_000
# A distance that is planned is off, and boosters of metered ones believe it. This much of the
# answer without one costs nothing where the distance is as metered, and the more it is off, the
# more it gains: over 2020, 2021 and 2023
BLIND_SHARE = 0.035


class Member(NamedTuple):
    """A booster of a model: how it is trained, and how long."""

    parameters: Mapping[str, Any]  # xgboost's
    rounds: int
    last_rate: float = 0.0  # that the learning rate grows to; 0 = it stays as it is

    def rates(self) -> list[float]:
        """List the learning rate of each round, the same factor between any two; [] if it stays."""
        if not self.last_rate:
            return []
        first, last_round = self.parameters["learning_rate"], max(self.rounds - 1, 1)
        growth = self.last_rate / first
        # rounded: not every processor's last digit of a power is the same
        return [round(first * growth ** (n / last_round), 4) for n in range(self.rounds)]


@dataclass(frozen=True)
class Recipe:
    """All that decides a model beside the trips it is fitted to."""

    features: str  # key of features.FEATURE_SETS
    seed: int
    baseline: str = ""  # key of baselines.BASELINES; empty where it is made of boosters
    members: tuple[Member, ...] = ()  # of the trips with a distance, or of all
    blind: tuple[Member, ...] = ()  # of the trips without one; empty where `members` take all
    blind_share: float = 0.0  # of `blind` in the answer for a trip with a distance
    half_life: float = 0.0  # months, of a trip's weight
    max_bin: int = 256

    def state(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Recipe":
        """Rebuild it from its `state`, or from the JSON of that."""
        told = dict(state)
        for part in ("members", "blind"):
            told[part] = tuple(Member(*member) for member in state[part])
        return cls(**told)

    def for_more_trips(self, n_trips: int) -> "Recipe":
        """Return the recipe for a fit on train and valid, n trips together."""
        is_fine = n_trips <= FEW_TRIPS
        return replace(
            self,
            members=tuple(_longer(member, is_fine=is_fine) for member in self.members),
            blind=tuple(_longer(member, is_fine=is_fine) for member in self.blind),
            max_bin=max(self.max_bin, FINE_BINS),
        )


def _longer(member: Member, *, is_fine: bool) -> Member:
    """Give a booster more rounds, and so many more as smaller steps want."""
    n_rounds = member.rounds * MORE_ROUNDS
    rate = member.parameters.get("learning_rate", 0.0)
    if rate <= FINE_RATE or not is_fine:
        return Member(member.parameters, ceil(n_rounds))
    first, last = (min(rate, COARSE_RATE) * part for part in (FIRST_RATE, LAST_RATE))
    mean = (last - first) / log(last / first)
    return Member({**member.parameters, "learning_rate": first}, ceil(n_rounds * rate / mean), last)
