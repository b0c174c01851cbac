"""What makes two searches the same search."""

from dataclasses import replace

import pytest

from steps.common.declaration import key_names
from steps.common.parameters import HpoParameters, PreprocessParameters
from steps.common.results import Code, Dataset, PreprocessResult
from steps.common.search_key import ROWS_CODE, SAMPLING_CODE, read_settings
from storage.repro import step_key
from taxi import spaces

DATASET = Dataset(
    taxi="green",
    is_simulated=False,
    source="tlc",
    months={"train": ["2021-01"], "valid": ["2021-02"], "test": ["2021-03"]},
    sha256={"train": "a" * 64, "valid": "b" * 64, "test": "c" * 64},
)


COUNTS = {"n_trips_train": 70_000.0, "n_trips_valid": 60_000.0}


def key(dataset: Dataset = DATASET, counts: dict[str, float] = COUNTS, **parameters: object) -> str:
    preprocess = PreprocessResult("1a2b", dataset, Code("", False), counts, [])
    settings = read_settings(HpoParameters(**parameters))  # type: ignore[arg-type]
    return settings.search_key(preprocess)


@pytest.mark.parametrize(
    "dataset",
    [
        DATASET._replace(sha256=DATASET.sha256 | {"train": "d" * 64}),
        DATASET._replace(sha256=DATASET.sha256 | {"valid": "d" * 64}),
        DATASET._replace(city="d" * 64),
    ],
    ids=("train", "valid", "city"),
)
def test_a_search_on_other_trips_or_another_city_is_another_one(dataset: Dataset) -> None:
    assert key(dataset) != key()


def test_a_search_is_known_by_its_bytes_not_by_months_or_source_nor_by_the_test_trips() -> None:
    months = {"train": ["2022-01"], "valid": ["2022-02"]}
    without_test = {split: DATASET.sha256[split] for split in ("train", "valid")}
    assert key(DATASET._replace(months=months, sha256=without_test, source="here")) == key()


SEVERAL = DATASET._replace(months=DATASET.months | {"train": ["2020-12", "2021-01"]})
# parameter in the key of hpo -> a value that makes it another search; more trials do not
OTHER: dict[str, dict[str, object]] = {
    "seed": {"seed": 1},
    "features": {"features": "compact"},
    "search_space": {"search_space": "seed"},
    "device": {"device": "cuda"},
    "lag": {"parallelism": 40},
    "warm_start": {"warm_start": True},
    "half_life": {"half_life": 3},
}
MORE_TRIALS = {"max_evals", "max_minutes"}


@pytest.mark.parametrize("name", OTHER)
def test_a_search_with_other_settings_is_another_one(name: str) -> None:
    assert key(SEVERAL, **OTHER[name]) != key(SEVERAL)


def test_what_changes_a_trial_is_known_to_the_search_too() -> None:
    own = key_names(HpoParameters) - key_names(PreprocessParameters)
    assert own == {*OTHER} | MORE_TRIALS, "a field of SearchSettings, in search_key, and here"


def test_the_age_of_trips_counts_where_there_are_several_months() -> None:
    assert key(half_life=3) == key()


def test_how_many_rows_trials_see_counts_where_they_see_a_sample() -> None:
    whole = key(search_rows=0)
    assert key() == key(search_rows=70_000) == key(counts={}) == whole
    sampled = [key(search_rows=n) for n in (69_999, 65_000, 50_000)]
    assert len({whole, *sampled}) == 4
    assert key(counts=COUNTS | {"n_trips_valid": 2e6}) != whole


def test_a_search_that_sees_all_rows_is_known_as_it_was_before_there_were_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: dict[str, object] = {}
    monkeypatch.setattr("steps.common.search_key.hash_json", lambda **told: hashed.update(told))
    key()
    assert set(hashed) == {
        *("trips", "features", "code", "space", "common", "half_life", "lag", "warm_start"),
        "versions",
    }
    assert SAMPLING_CODE not in hashed["code"]  # type: ignore[operator]
    key(search_rows=50_000)
    assert SAMPLING_CODE in hashed["code"]  # type: ignore[operator]


def test_points_are_taken_over_from_searches_of_the_same_space_and_features_alone() -> None:
    def space_key(**parameters: object) -> str:
        return read_settings(HpoParameters(**parameters)).space_key  # type: ignore[arg-type]

    assert space_key(seed=1, search_rows=7, half_life=3) == space_key()
    assert space_key(features="compact") != space_key()
    assert space_key(search_space="seed") != space_key()


def test_a_search_of_more_trials_is_the_same_one() -> None:
    assert key(max_evals=7) == key(max_evals=50)


def test_the_key_covers_the_code_that_makes_rows_and_none_that_serves_them() -> None:
    code = step_key.code_reached(*ROWS_CODE)
    assert {"taxi/rows.py", "taxi/features.py", "taxi/columns.py", "taxi/schema.py"} <= set(code)
    assert not {"taxi/model.py", "taxi/search.py", "taxi/request.py", "steps/__init__.py"} & {*code}


def test_a_space_that_ends_trials_otherwise_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    space = spaces.select_space("lossguide")
    monkeypatch.setitem(spaces.SEARCH_SPACES, "lossguide", replace(space, rounds=12))
    assert key() != before
