"""Recipes: how a chosen model was fitted, so that it can be refitted to other or more trips.

A model is chosen by its errors on valid. As the validation trips are the latest, the model that
goes into use is then refitted to them too, for a number of rounds that is fixed by then.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, log
from typing import Any, NamedTuple

# more trips need more rounds, and no trips are left on which to find the best number
MORE_ROUNDS = 1.3
# minimum bins of a column: a refit is done once, not in every trial, and can afford fine ones
FINE_BINS = 256
# with few trips it can also afford to start with small steps: a learning rate above FINE_RATE grows
# from round to round, from FIRST_RATE to LAST_RATE times itself (capped at COARSE_RATE). The gain
# (0.003 to 0.009 min on 2020-12, 2021-01 and 2023-03) comes from the first steps: half the rate in
# every round is no better, and takes half as many rounds again
FINE_RATE, COARSE_RATE = 0.1, 0.2
FIRST_RATE, LAST_RATE = 0.25, 1.75
FEW_TRIPS = 1_000_000
# A planned distance has errors, but boosters trained on metered ones trust it. Mixing in this share
# of the prediction without a distance costs nothing if the distance is exact, and gains more the
# further it is off: measured over 2020, 2021 and 2023
WEIGHT_WITHOUT_DISTANCE = 0.035
# field of a recipe -> its key in recipe.json, where it keeps its first name
STORED_AS = {"members_without_distance": "blind", "weight_without_distance": "blind_share"}


class Member(NamedTuple):
    """A booster of a model: how it is trained, and for how long."""

    parameters: Mapping[str, Any]  # xgboost's
    rounds: int
    last_rate: float = 0.0  # learning rate of the last round; 0 = constant rate

    def rates(self) -> list[float]:
        """List each round's learning rate, growing geometrically; [] if it is constant."""
        if not self.last_rate:
            return []
        first, last_round = self.parameters["learning_rate"], max(self.rounds - 1, 1)
        growth = self.last_rate / first
        # rounded: the last digit of a power depends on the processor
        return [round(first * growth ** (n / last_round), 4) for n in range(self.rounds)]


@dataclass(frozen=True)
class Recipe:
    """All that determines a model, apart from the trips it is fitted to."""

    features: str  # key of features.FEATURE_SETS
    seed: int
    baseline: str = ""  # key of baselines.BASELINES; empty for a model of boosters
    members: tuple[Member, ...] = ()  # boosters for trips with a distance, or for all
    members_without_distance: tuple[Member, ...] = ()  # empty if `members` predict all trips
    weight_without_distance: float = 0.0  # of those, in the prediction of a trip with a distance
    half_life: float = 0.0  # months, of a trip's weight; 0 = all weigh the same
    max_bin: int = 256

    def state(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values."""
        return {STORED_AS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Recipe":
        """Rebuild a recipe from its `state`, directly or after a round trip through JSON."""
        names = {key: name for name, key in STORED_AS.items()}
        values = {names.get(key, key): value for key, value in state.items()}
        for part in ("members", "members_without_distance"):
            values[part] = tuple(Member(*member) for member in values[part])
        return cls(**values)

    def for_refit(self, n_trips: int) -> "Recipe":
        """Return the recipe for a fit on train and valid, n trips together."""
        is_fine = n_trips <= FEW_TRIPS
        return replace(
            self,
            members=tuple(_refit_member(member, is_fine=is_fine) for member in self.members),
            members_without_distance=tuple(
                _refit_member(member, is_fine=is_fine) for member in self.members_without_distance
            ),
            max_bin=max(self.max_bin, FINE_BINS),
        )


def _refit_member(member: Member, *, is_fine: bool) -> Member:
    """Give a booster more rounds and, if is_fine, a growing rate with the rounds that it needs."""
    n_rounds = member.rounds * MORE_ROUNDS
    rate = member.parameters.get("learning_rate", 0.0)
    if rate <= FINE_RATE or not is_fine:
        return Member(member.parameters, ceil(n_rounds))
    first, last = (min(rate, COARSE_RATE) * part for part in (FIRST_RATE, LAST_RATE))
    mean = (last - first) / log(last / first)
    return Member({**member.parameters, "learning_rate": first}, ceil(n_rounds * rate / mean), last)
