"""What a search is: the same settings and trips make the same trials, however many of them."""

import hashlib
import json
from importlib.metadata import version
from typing import Any, NamedTuple

from steps.common.parameters import HpoParameters
from steps.common.results import PreprocessResult
from storage.repro import step_key
from storage.tracking.trials import n_finished
from taxi import spaces
from taxi.spaces import SearchSpace

# what makes rows of trips: these files, and what they import
ROWS = ("taxi/rows.py",)
SAMPLE = "taxi/sampling.py"  # where trials see a sample, that too


class SearchSettings(NamedTuple):
    """What decides the course of a search, beside the trips.

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
    search_rows: int  # trips of a split that trials see where there are more; 0 = all

    @property
    def common(self) -> dict[str, Any]:
        """The parameters of xgboost that are the same in every trial."""
        return dict(self.space.fixed) | {"seed": self.seed, "device": self.device}

    @property
    def space_key(self) -> str:
        """Key of the searches that would try the same points on other rows."""
        return hash_json(space=self.space.describe(), features=self.features)

    def bound(self, preprocess: PreprocessResult) -> int:
        """Return how many trips of a split the trials see at most; 0 where they see all."""
        return spaces.bound_for(preprocess.n_learned_from.values(), self.search_rows)

    def search_key(self, preprocess: PreprocessResult) -> str:
        """Key of the search: of its trips, of the code that makes rows of them, and of settings.

        Nothing of it has to be read or encoded, so a plan asks for it at once.
        """
        dataset, bound = preprocess.dataset, self.bound(preprocess)
        sampled = {"search_rows": bound} if bound else {}
        many = len(dataset.months["train"]) > 1  # or all trips weigh the same
        return hash_json(
            trips=dataset.learned_from,
            features=self.features,
            code=step_key.code_reached(*ROWS, *([SAMPLE] if bound else [])),
            space=self.space.describe(),
            common=self.common,
            half_life=self.half_life if many else 0,
            lag=self.lag,
            warm_start=self.warm_start,
            versions={name: version(name) for name in step_key.COMPUTING},
            **sampled,
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
        search_rows=params.search_rows,
    )


def count_finished(
    settings: SearchSettings, preprocess: PreprocessResult, experiment_id: str
) -> int:
    """Count the trials that a search on these trips would find finished; nothing is changed."""
    return n_finished(experiment_id, settings.search_key(preprocess))


def hash_json(**ingredients: Any) -> str:
    """Hash what JSON can write."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
