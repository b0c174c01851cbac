"""How a chosen model was fitted, so that the same can be fitted to other trips, or to more of them.

A model is chosen by its errors on valid. Once it is chosen, the valid trips are the latest there
are, and the model that is used learns from them too: with rounds that are fixed by then.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from typing import Any, NamedTuple

# with more trips to learn from the best number of rounds grows; nothing is left to find it by
MORE_ROUNDS = 1.3
# a column's bins, at least: what is fitted once, not in every trial, has time for fine ones
FINE_BINS = 256
# and for small steps, as long as the trips are few: the rate, at most. Half the search's takes
# 0.004 to 0.009 min off the RMSE of 2020-12, 2021-01 and 2023-03, and doubles the rounds
FINE_RATE = 0.1
FEW_TRIPS = 1_000_000
# A distance that is planned is off, and boosters of metered ones believe it. This much of the
# answer without one costs nothing where the distance is as metered, and the more it is off, the
# more it gains: over 2020, 2021 and 2023
BLIND_SHARE = 0.03


class Member(NamedTuple):
    """A booster of a model: how it is trained, and how long."""

    parameters: Mapping[str, Any]  # xgboost's
    rounds: int


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
        rate = FINE_RATE if n_trips <= FEW_TRIPS else inf
        return replace(
            self,
            members=tuple(_longer(member, rate) for member in self.members),
            blind=tuple(_longer(member, rate) for member in self.blind),
            max_bin=max(self.max_bin, FINE_BINS),
        )


def _longer(member: Member, most: float) -> Member:
    """Give a booster more rounds, and so many more as smaller steps want."""
    rate = member.parameters.get("learning_rate", 0.0)
    if rate <= most:
        return Member(member.parameters, ceil(member.rounds * MORE_ROUNDS))
    parameters = {**member.parameters, "learning_rate": most}
    return Member(parameters, ceil(member.rounds * MORE_ROUNDS * rate / most))
