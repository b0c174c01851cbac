"""The identity of a search: equal settings and trips give equal trials, however many are run."""

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

# the code that turns trips into rows: these files, and what they import
ROWS_CODE = ("taxi/rows.py",)
SAMPLING_CODE = "taxi/sampling.py"  # counts too if trials see a sample


class SearchSettings(NamedTuple):
    """What determines the course of a search, apart from the trips.

    A parameter that changes a trial belongs here and in `search_key`; otherwise a search would
    resume from trials of another kind.
    """

    space: SearchSpace
    features: str
    seed: int
    device: str
    lag: int  # how many trials back a suggestion looks, so that as many can run at once
    warm_start: bool
    half_life: float  # of a train trip's weight, months
    search_rows: int  # most trips of a split that trials see; 0 = all

    @property
    def common(self) -> dict[str, Any]:
        """The parameters of xgboost that are the same in every trial."""
        return dict(self.space.fixed) | {"seed": self.seed, "device": self.device}

    @property
    def space_key(self) -> str:
        """Key shared by searches of this space and these features on any rows."""
        return hash_json(space=self.space.describe(), features=self.features)

    def max_trips(self, preprocess: PreprocessResult) -> int:
        """Return how many trips of a split the trials see at most; 0 if they see all."""
        return spaces.sample_size_for(preprocess.n_learned_from.values(), self.search_rows)

    def search_key(self, preprocess: PreprocessResult) -> str:
        """Make the search's key from its trips, the code that turns them into rows, and settings.

        No trip has to be read or encoded for it, so that a plan has it at once.
        """
        dataset, max_trips = preprocess.dataset, self.max_trips(preprocess)
        sampled = {"search_rows": max_trips} if max_trips else {}
        many = len(dataset.months["train"]) > 1  # with a single month all trips weigh the same
        return hash_json(
            trips=dataset.learned_from,
            features=self.features,
            code=step_key.code_reached(*ROWS_CODE, *([SAMPLING_CODE] if max_trips else [])),
            space=self.space.describe(),
            common=self.common,
            half_life=self.half_life if many else 0,
            lag=self.lag,
            warm_start=self.warm_start,
            versions={name: version(name) for name in step_key.NUMERIC_PACKAGES},
            **sampled,
        )


def read_settings(params: HpoParameters) -> SearchSettings:
    """Read the settings of a search from the parameters.

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
    """Count the finished trials that a search on these trips would reuse; change nothing."""
    return n_finished(experiment_id, settings.search_key(preprocess))


def hash_json(**ingredients: Any) -> str:
    """Return the sha256 of values that JSON can represent."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
