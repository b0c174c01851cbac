"""Rows that are read without a frame: with the result of `read_frame`, or not at all."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest

from taxi.request import list_warnings, read_frame, read_plain
from taxi.schema import TAXIS, Trips, input_names

SENT: Mapping[str, Any] = {
    "pickup_at": "2021-03-05 17:45:00",
    "pickup_zone": 74,
    "dropoff_zone": 75,
    "distance_miles": 1.3,
}


def rows(*changes: Mapping[str, Any], taxi: str = "green") -> list[dict[str, Any]]:
    names = input_names(taxi)
    return [{names[role]: (SENT | change)[role] for role in names} for change in changes]


@pytest.mark.parametrize("taxi", TAXIS)
def test_plain_rows_are_read_as_a_frame_of_them(taxi: str) -> None:
    sent = rows(
        {},
        {"pickup_at": "0001-01-01 00:00:00", "distance_miles": 60},
        {"pickup_at": "9999-12-31 23:59:59", "pickup_zone": 1, "dropoff_zone": 265},
        {"distance_miles": None},
        {"distance_miles": 1e-300},
        taxi=taxi,
    )
    read, frame = read_plain(sent, taxi), pd.DataFrame(sent)
    expected = read_frame(frame, taxi)
    assert isinstance(read, Trips)
    for field in fields(Trips):
        one, other = (getattr(trips, field.name) for trips in (read, expected))
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert list_warnings(frame, taxi) == []  # an answer without a frame could not have any


ODD: Mapping[str, list[Any]] = {
    "pickup_at": [
        *("2021-03-05T17:45:00", "2021-03-05 17:45:00Z", "2021-03-05", "2021-02-30 17:45:00"),
        *("2021-03-05 24:00:00", "0000-01-01 00:00:00", " 2021-03-05 17:45:00", 1614966300, None),
        *("2021-03-05 17:45:00\n", "٢٠٢١-03-05 17:45:00"),
    ],
    "pickup_zone": ["74", 74.0, True, None, 0, 266, -(10**400)],
    "dropoff_zone": ["75", 75.5, False, None, 10**9],
    "distance_miles": [-1, 0, 60.5, "1.3", True, float("nan"), float("inf"), 10**400, [1.3]],
}


@pytest.mark.parametrize(
    ("role", "value"), [(role, value) for role, values in ODD.items() for value in values]
)
def test_a_row_with_an_odd_value_is_left_to_the_frame(role: str, value: Any) -> None:
    assert read_plain(rows({}, {role: value}), "green") is None


@pytest.mark.parametrize(
    "sent",
    [
        *([], {}, None, "rows", [1], [[]], tuple(rows({}))),
        rows({})[0],
        [rows({})[0] | {"tip_amount": 1.0}],
        [{name: value for name, value in rows({})[0].items() if name != "trip_distance"}],
        [rows({})[0], {}],
    ],
)
def test_what_is_no_list_of_rows_with_these_columns_is_left_to_the_frame(sent: Any) -> None:
    assert read_plain(sent, "green") is None
