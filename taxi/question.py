"""The params of a request: what a caller may ask of a model besides the minutes."""

from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from . import TripError
from .request import shown

# name -> default, with which nothing is asked
PARAMS: Mapping[str, Any] = {"quantiles": [], "longer_than": 0.0, "live": False}
MAX_QUANTILES = 99
MAX_MINUTES = float(np.finfo(float).max)  # Python's own type compares with any whole number


class Question(NamedTuple):
    """What a request asks for besides the minutes."""

    quantiles: tuple[float, ...]  # levels, each above 0 and below 1
    longer_than: float  # minutes; 0 = not asked
    live: bool = False  # whether to correct the minutes by the live state

    @property
    def asks_spread(self) -> bool:
        """Whether the answer requires a spread."""
        return bool(self.quantiles) or self.longer_than > 0


def read_question(params: Mapping[str, Any] | None) -> Question:
    """Read the params of a request.

    Raises:
        TripError: names the param and the value.
    """
    if not isinstance(params or {}, Mapping):
        raise TripError(f'Params are {shown(params)}; send an object, such as {{"live": true}}.')
    given = dict(params or {})
    if unknown := sorted(set(given) - set(PARAMS)):
        raise TripError(f"Unknown param {shown(unknown[0])}. Choose from {sorted(PARAMS)}.")
    asked = {
        name: default if given.get(name) is None else given[name]
        for name, default in PARAMS.items()
    }
    return Question(
        _levels(asked["quantiles"]), _minutes(asked["longer_than"]), _flag(asked["live"])
    )


def _levels(values: Any) -> tuple[float, ...]:
    advice = "send a list of numbers above 0 and below 1, such as [0.1, 0.5, 0.9]"
    if not isinstance(values, list | tuple | np.ndarray):
        raise TripError(f"Param 'quantiles': got {shown(values)}; {advice}.")
    if len(values) > MAX_QUANTILES:
        raise TripError(
            f"Param 'quantiles': got {len(values)} of them; send at most {MAX_QUANTILES}."
        )
    for value in values:
        if not _is_number(value) or not 0 < value < 1:
            raise TripError(f"Param 'quantiles': got {shown(value)}; {advice}.")
    return tuple(float(value) for value in values)


def _minutes(value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= MAX_MINUTES:
        raise TripError(
            f"Param 'longer_than': got {shown(value)}; send minutes above 0, or 0 to ask nothing."
        )
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TripError(f"Param 'live': got {shown(value)}; send true or false.")
    return bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def quantile_column(level: float) -> str:
    """Name the column of a quantile: 0.1 is p10, 0.025 is p2_5."""
    return f"p{100 * level:.10g}".replace(".", "_")
