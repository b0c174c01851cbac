import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from taxi import TripError
from taxi.openapi import PARAMS_SCHEMA
from taxi.request_params import (
    MAX_QUANTILES,
    PARAM_DEFAULTS,
    RequestParams,
    quantile_column,
    read_params,
)


@pytest.mark.parametrize(
    "params", [None, {}, PARAM_DEFAULTS, {"longer_than": None, "quantiles": None}]
)
def test_a_request_that_says_nothing_asks_nothing(params: dict[str, object] | None) -> None:
    asked = read_params(params)
    assert asked == RequestParams((), 0.0, live=False)
    assert not asked.needs_spread


@pytest.mark.parametrize("quantiles", [[0.1, 0.9], (0.1, 0.9), np.array([0.1, 0.9])])
def test_what_is_asked_is_read(quantiles: object) -> None:
    asked = read_params({"quantiles": quantiles, "longer_than": 30})
    assert asked == RequestParams((0.1, 0.9), 30.0, live=False)
    assert read_params({"longer_than": 1}).needs_spread


@pytest.mark.parametrize(
    "value",
    [0, 1, -0.1, 1.5, 90, math.nan, math.inf, "0.5", None, True, [0.5], 0.5j, Decimal("0.5")],
)
def test_a_level_that_is_none_is_refused_by_its_value(value: object) -> None:
    with pytest.raises(TripError) as refusal:
        read_params({"quantiles": [0.5, value]})
    assert str(refusal.value) == (
        f"Param 'quantiles': got {value!r}; "
        "send a list of numbers above 0 and below 1, such as [0.1, 0.5, 0.9]."
    )


@pytest.mark.parametrize("value", [0.5, "0.1,0.9", {"p": 0.1}])
def test_levels_that_are_no_list_are_refused(value: object) -> None:
    with pytest.raises(TripError, match="send a list of numbers"):
        read_params({"quantiles": value})


def test_there_are_at_most_so_many_levels() -> None:
    read_params({"quantiles": [0.5] * MAX_QUANTILES})
    with pytest.raises(TripError, match="got 100 of them; send at most 99"):
        read_params({"quantiles": [0.5] * (MAX_QUANTILES + 1)})


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "30", True, [30]])
def test_minutes_that_are_none_are_refused_by_their_value(value: object) -> None:
    with pytest.raises(TripError) as refusal:
        read_params({"longer_than": value})
    assert f"Param 'longer_than': got {value!r}; send minutes" in str(refusal.value)


def test_minutes_beyond_all_floats_are_refused() -> None:
    with pytest.raises(TripError, match=r"Param 'longer_than': got 10+\.\.\.0+; send minutes"):
        read_params({"longer_than": 10**400})


def test_an_unknown_param_is_refused_by_its_name() -> None:
    with pytest.raises(TripError, match=r"Unknown param 'quantile'. Choose from .*'quantiles'"):
        read_params({"quantile": [0.5]})


@pytest.mark.parametrize(
    ("level", "name"),
    [(0.1, "p10"), (0.5, "p50"), (0.025, "p2_5"), (0.07, "p7"), (0.999, "p99_9"), (0.29, "p29")],
)
def test_a_column_is_named_by_its_percent(level: float, name: str) -> None:
    assert quantile_column(level) == name


def test_the_bounds_that_a_server_names_are_those_that_are_held() -> None:
    known: dict[str, dict[str, Any]] = PARAMS_SCHEMA["properties"]
    level, most = known["quantiles"]["items"], known["quantiles"]["maxItems"]
    above, below = level["exclusiveMinimum"], level["exclusiveMaximum"]
    read_params({"quantiles": [above + 1e-9, below - 1e-9]})
    for levels in ([above], [below], [0.5] * (most + 1)):
        with pytest.raises(TripError, match="quantiles"):
            read_params({"quantiles": levels})
    least = known["longer_than"]["minimum"]
    assert read_params({"longer_than": least}) == read_params({})
    with pytest.raises(TripError, match="longer_than"):
        read_params({"longer_than": least - 1e-9})
