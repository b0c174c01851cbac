"""Rows that go to xgboost batch by batch are the same as in memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from taxi import batches, boosting, encoding, features, fitting, rows, schema, spaces
from taxi.boosting import (
    Matrices,
    TrainingJob,
    build_matrices,
    n_bytes_of_bins,
    predict_each,
    train_booster,
)
from taxi.encoding import EncodedTrips
from taxi.recipes import Member, Recipe
from taxi.rows import Rows
from taxi.schema import Trips
from tests.conftest import random_trips

MONTHS = np.array(["2020-11", "2020-12", "2021-01"], "M8[M]").astype("M8[us]")


def trips_of(n: int, seed: int) -> Trips:
    """Make trips of three months, a sixth of them without a distance."""
    trips = random_trips(n, seed)
    day = trips.pickup_at - trips.pickup_at.astype("M8[M]")
    return Trips(MONTHS[np.arange(n) % 3] + day, *list(vars(trips).values())[1:])


TRAIN, VALID = trips_of(1_900, 20), trips_of(700, 21)
ENCODERS = {name: features.fit_encoder(name, TRAIN) for name in ("full", "compact")}
SPACE = spaces.select_space("lossguide")
POINT = dict(SPACE.fixed) | {"objective": "count:poisson", "max_leaves": 16, "subsample": 0.7}
POINT |= {"colsample_bytree": 0.6, "seed": 3}
ROW_MAKERS = {
    "all": rows.make_rows,
    "with": rows.rows_with_distance,
    "without": rows.rows_without_distance,
}
# way -> MAX_ROWS_IN_MEMORY and MAX_ROWS_BINNED_IN_MEMORY, the limits that make rows take it
WAYS = {"whole": (10_000, 0), "binned": (0, 10_000), "file": (0, 0)}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Split the train trips into four batches, and their bins into two or three pages."""
    monkeypatch.setattr(schema, "BATCH_ROWS", 499)  # unlike the real one, no multiple of N_FOLDS
    monkeypatch.setattr(boosting, "PAGE_ROWS", 900)


def go(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, binned = WAYS[way]
    monkeypatch.setattr(encoding, "MAX_ROWS_IN_MEMORY", whole)
    monkeypatch.setattr(boosting, "MAX_ROWS_BINNED_IN_MEMORY", binned)


def make_rows_of(kind: str, name: str, half_life: float = 0) -> Rows:
    return ROW_MAKERS[kind](ENCODERS[name], TRAIN, VALID, half_life, 128)


def build(made: Rows, folder: Path) -> Matrices:
    n_bytes = n_bytes_of_bins(made.train, on_gpu=False)
    return build_matrices(made, str(folder) if n_bytes else "")


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("kind", ROW_MAKERS)
def test_batches_are_the_whole_matrix_cut(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_rows_of(kind, name, half_life=2)
    go("binned", monkeypatch)
    cut = make_rows_of(kind, name, half_life=2)
    for part in ("train", "valid"):
        parts, wanted = list(getattr(cut, part).batches()), getattr(whole, part)
        assert len(parts) == {"train": 4, "valid": 2}[part]
        assert np.concatenate(parts).tobytes() == wanted.tobytes()
        assert getattr(cut, part).shape == wanted.shape
        assert getattr(cut, part)[:5].tobytes() == wanted[:5].tobytes()
        assert getattr(cut.to_memory(), part).tobytes() == wanted.tobytes()
        assert getattr(cut, f"{part}_y").tobytes() == getattr(whole, f"{part}_y").tobytes()
    assert cut.weight.tobytes() == whole.weight.tobytes()


def test_batches_are_joined_to_as_many_rows_as_a_page_may_have() -> None:
    parts = [np.full((n, 2), n, np.float32) for n in (3, 4, 2, 0, 6, 7)]
    pages = [page.copy() for page in batches.join_batches(parts, 7)]
    assert [len(page) for page in pages] == [7, 2, 6, 7]
    assert np.concatenate(pages).tobytes() == np.concatenate(parts).tobytes()
    assert list(batches.join_batches([], 7)) == []


@pytest.mark.parametrize("half_life", [0, 2])
@pytest.mark.parametrize(
    ("kind", "name"), [("all", "full"), ("all", "compact"), ("with", "full"), ("without", "full")]
)
def test_boosters_are_the_same_bytes_whichever_way_their_rows_go(
    kind: str, name: str, half_life: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job, found = TrainingJob(POINT | {"nthread": 1}, 12, patience=12, keep_booster=True), {}
    for way in WAYS:
        go(way, monkeypatch)
        made = make_rows_of(kind, name, half_life)
        assert isinstance(made.train, EncodedTrips) == (way != "whole")
        matrices = build(made, tmp_path)
        assert isinstance(matrices.train, xgb.ExtMemQuantileDMatrix) == (way == "file")
        outcome = train_booster(matrices, job)
        predicted = predict_each([outcome.booster], made.valid)
        found[way] = outcome.booster.save_raw("ubj"), outcome.curve, predicted.tobytes()
    assert found["binned"] == found["whole"]
    assert found["file"] == found["whole"]


def test_a_refit_is_the_same_model_whichever_way_its_rows_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int] = []

    @contextmanager
    def scratch(n_bytes: int) -> Iterator[str]:
        asked.append(n_bytes)
        yield str(tmp_path) if n_bytes else ""
        assert list(tmp_path.iterdir()) == []  # the bins are deleted before their folder is

    squared = POINT | {"objective": "reg:squarederror"}
    members = (Member(POINT, 9), Member(squared, 7, last_rate=0.4))
    found = []
    for without_distance in ((), members[:1]):
        recipe = Recipe(
            "full",
            seed=3,
            members=members,
            members_without_distance=without_distance,
            half_life=2,
            max_bin=128,
        )
        for way in WAYS:
            go(way, monkeypatch)
            train = partial(fitting.train_locally, n_threads=2, scratch=scratch)
            model = fitting.fit_boosters(recipe, TRAIN, "green", ENCODERS["full"], train)
            found.append(model.to_files())
    assert found[0] == found[1] == found[2]
    assert found[3] == found[4] == found[5]
    assert [n_bytes > 0 for n_bytes in asked] == [False, False, True] + 2 * [False] * 2 + 2 * [True]


def test_trips_up_to_a_bound_stand_whole_and_the_rest_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for bound, kinds in (
        (len(TRAIN), [np.ndarray] * 2),
        (len(TRAIN) - 1, [EncodedTrips, np.ndarray]),
        (len(VALID) - 1, [EncodedTrips] * 2),
    ):
        monkeypatch.setattr(encoding, "MAX_ROWS_IN_MEMORY", bound)
        for kind in ROW_MAKERS:
            made = make_rows_of(kind, "full")
            assert [type(made.train), type(made.valid)] == kinds
    for binned, wanted in ((len(TRAIN), [False] * 2), (len(TRAIN) - 1, [True, False])):
        monkeypatch.setattr(boosting, "MAX_ROWS_BINNED_IN_MEMORY", binned)
        sizes = [n_bytes_of_bins(made.train, on_gpu=on_gpu) for on_gpu in (False, True)]
        assert [size > 0 for size in sizes] == wanted


def test_boosters_of_one_file_are_trained_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go("file", monkeypatch)
    matrices = build(make_rows_of("with", "full"), tmp_path)
    job = TrainingJob(POINT | {"nthread": 1}, 12, patience=12, keep_booster=True)
    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(train_booster, matrices, job) for _ in range(3)]
    boosters = (future.result().booster for future in futures)
    assert len({bytes(booster.save_raw("ubj")) for booster in boosters}) == 1


def test_what_a_pass_over_the_rows_has_freed_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(boosting, "release_memory", lambda: given.append("pass"))
    go("whole", monkeypatch)
    build_matrices(make_rows_of("all", "full"))
    assert given == []  # the trials of a search share a matrix in memory
    go("binned", monkeypatch)
    build_matrices(make_rows_of("all", "full"))
    assert len(given) > 1


def test_a_sample_of_a_matrix_is_of_all_its_rows_also_where_it_is_never_whole() -> None:
    in_batches = EncodedTrips(ENCODERS["full"], VALID)
    assert len([*in_batches.batches()]) == 2
    numbered = np.arange(len(VALID), dtype=np.float32)[:, None]
    chosen = batches.sample_matrix(numbered, 100)[:, 0].astype(int)
    assert len(np.unique(chosen)) == 100
    assert [*np.bincount(chosen // 175)] == pytest.approx([25] * 4, abs=10)
    sampled = batches.sample_matrix(in_batches, 100)
    assert np.array_equal(sampled, in_batches.to_memory()[chosen], equal_nan=True)
    assert np.array_equal(batches.sample_matrix(numbered, 1_000), numbered)
