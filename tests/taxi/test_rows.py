"""How train and valid trips become the rows of boosters, with and without their distances."""

import numpy as np

from taxi import features
from taxi.rows import has_distance, make_rows, rows_with_distance, rows_without_distance
from tests.conftest import random_trips

TRAIN, VALID = random_trips(300, seed=1, n_zones=8), random_trips(200, seed=2, n_zones=8)
ENCODER = features.fit_encoder("compact", TRAIN)  # fills in distances, of other train trips


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found, expected, strict=True)


def test_train_trips_are_encoded_out_of_fold_and_valid_trips_as_new_ones() -> None:
    rows = make_rows(ENCODER, TRAIN, VALID)
    assert_same(rows.train, ENCODER.transform_train(TRAIN))
    assert not np.array_equal(rows.train, ENCODER.transform(TRAIN))
    assert_same(rows.valid, ENCODER.transform(VALID))


def test_trips_with_a_distance_are_encoded_as_among_all_of_them() -> None:
    rows, every = rows_with_distance(ENCODER, TRAIN, VALID), make_rows(ENCODER, TRAIN, VALID)
    in_train, in_valid = has_distance(TRAIN), has_distance(VALID)
    assert_same(rows.train, every.train[in_train])
    assert_same(rows.train_y, every.train_y[in_train])
    assert_same(rows.valid, every.valid[in_valid])
    assert_same(rows.valid_y, VALID.trip_minutes[in_valid])


def test_hidden_distances_are_filled_in_out_of_fold_for_train_trips_and_as_new_for_valid() -> None:
    rows = rows_without_distance(ENCODER, TRAIN, VALID)
    assert_same(rows.train, ENCODER.transform_train(TRAIN, hide_distance=True))
    assert not np.array_equal(rows.train, ENCODER.transform(TRAIN.without_distance()))
    assert_same(rows.valid, ENCODER.transform(VALID.without_distance()))


def test_columns_that_nothing_is_known_of_without_distances_are_0() -> None:
    full = features.fit_encoder("full", TRAIN)
    rows = rows_without_distance(full, TRAIN, VALID)
    hidden = full.transform_train(TRAIN, hide_distance=True)
    unknown = np.isnan(hidden).all(axis=0)
    assert unknown.any()
    assert (rows.train[:, unknown] == 0).all()
    assert_same(rows.train[:, ~unknown], hidden[:, ~unknown])
