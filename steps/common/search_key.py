"""What a search is: the same settings and rows make the same trials, however many of them."""

import hashlib
import json
from importlib.metadata import version
from typing import Any, NamedTuple

from steps.common.parameters import HpoParameters
from storage.tracking.trials import n_finished
from taxi import features, sight, spaces
from taxi.boosting import Rows, make_rows, weights_by_age
from taxi.city import City
from taxi.features import Encoder
from taxi.schema import Trips
from taxi.spaces import SearchSpace


class SearchSettings(NamedTuple):
    """What decides the course of a search, beside the rows.

    A parameter that changes what a trial is belongs here and in `search_key`, or a search would go
    on from trials of another kind.
    """

    space: SearchSpace
    features: str
    seed: int
    device: str
    lag: int  # trials back that a suggestion looks, so that so many can run at once
    warm_start: bool
    half_life: float  # months, of a train trip's weight

    @property
    def common(self) -> dict[str, Any]:
        """The parameters of xgboost that are the same in every trial."""
        return dict(self.space.fixed) | {"seed": self.seed, "device": self.device}

    @property
    def space_key(self) -> str:
        """Key of the searches that would try the same points on other rows."""
        return hash_json(space=self.space.describe(), features=self.features)

    def search_key(self, rows_key: str) -> str:
        """Key of the search.

        Args:
            rows_key: hash of the rows, which stand for months, cleaning and features, whose code
                may change.
        """
        return hash_json(
            rows=rows_key,
            space=self.space.describe(),
            common=self.common,
            seed=self.seed,
            lag=self.lag,
            warm_start=self.warm_start,
            versions={name: version(name) for name in ("xgboost", "hyperopt", "numpy")},
        )


def read_settings(params: HpoParameters) -> SearchSettings:
    """Read from the parameters what is searched.

    Raises:
        TripError: there is no such search space.
    """
    return SearchSettings(
        space=spaces.select_space(params.search_space),
        features=params.features,
        seed=params.seed,
        device=params.device,
        lag=params.lag,
        warm_start=params.warm_start,
        half_life=params.half_life,
    )


def fit_and_encode(
    settings: SearchSettings, train: Trips, valid: Trips, city: City | None
) -> tuple[Encoder, Rows]:
    """Fit the features on train, and lay out what the trials are trained and scored on."""
    encoder = features.fit_encoder(settings.features, train, city)
    if is_split_by_distance(settings, encoder, train, valid):
        rows = sight.sighted_rows(encoder, train, valid)
        train = train.take(sight.has_distance(train))
    else:
        rows = make_rows(encoder, train, valid)
    return encoder, weighted(settings, rows, train)


def weighted(settings: SearchSettings, rows: Rows, train: Trips) -> Rows:
    """Add to rows what the space and the ages of the train trips say of them."""
    weight = weights_by_age(train.pickup_at, settings.half_life)
    return rows._replace(weight=weight, max_bin=settings.space.max_bin)


def is_split_by_distance(
    settings: SearchSettings, encoder: Encoder, train: Trips, valid: Trips
) -> bool:
    """Whether trips without a distance get boosters of their own."""
    return settings.space.is_split_by_distance and sight.is_split(encoder, train, valid)


def count_finished(
    settings: SearchSettings, train: Trips, valid: Trips, city: City | None, experiment_id: str
) -> int:
    """Count the trials that a search on these trips would find finished; nothing is changed."""
    _, rows = fit_and_encode(settings, train, valid, city)
    return n_finished(experiment_id, settings.search_key(rows.key))


def hash_json(**ingredients: Any) -> str:
    """Hash what JSON can write."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
