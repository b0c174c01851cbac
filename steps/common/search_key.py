"""What a search is: the same settings and rows make the same trials, however many of them."""

import hashlib
import json
from importlib.metadata import version
from typing import Any, NamedTuple

from steps.common.parameters import HpoParameters
from storage.tracking.trials import n_finished
from taxi import features, spaces
from taxi.boosting import make_rows
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
    )


def count_finished(settings: SearchSettings, train: Trips, valid: Trips, experiment_id: str) -> int:
    """Count the trials that a search on these trips would find finished; nothing is changed."""
    rows = make_rows(features.fit_encoder(settings.features, train), train, valid)
    return n_finished(experiment_id, settings.search_key(rows.key))


def hash_json(**ingredients: Any) -> str:
    """Hash what JSON can write."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
