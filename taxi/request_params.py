"""The params of a request: what a caller may ask of a model besides the minutes."""

from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from . import TripError
from .request import quote

# name -> default, with which nothing is asked
PARAM_DEFAULTS: Mapping[str, Any] = {"quantiles": [], "longer_than": 0.0, "live": False}
MAX_QUANTILES = 99
LARGEST_FLOAT = float(np.finfo(float).max)  # Python's own type compares with any whole number


class RequestParams(NamedTuple):
    """What a request asks for besides the minutes."""

    quantiles: tuple[float, ...]  # levels, each above 0 and below 1
    longer_than: float  # minutes; 0 = not asked
    live: bool = False  # whether to correct the minutes by the live state

    @property
    def needs_spread(self) -> bool:
        """Whether the answer requires a spread."""
        return bool(self.quantiles) or self.longer_than > 0


def read_params(params: Mapping[str, Any] | None) -> RequestParams:
    """Read the params of a request.

    Raises:
        TripError: names the param and the value.
    """
    if not isinstance(params or {}, Mapping):
        raise TripError(f'Params are {quote(params)}; send an object, such as {{"live": true}}.')
    given = dict(params or {})
    if unknown := sorted(set(given) - set(PARAM_DEFAULTS)):
        raise TripError(f"Unknown param {quote(unknown[0])}. Choose from {sorted(PARAM_DEFAULTS)}.")
    values = {
        name: default if given.get(name) is None else given[name]
        for name, default in PARAM_DEFAULTS.items()
    }
    return RequestParams(
        _read_quantile_levels(values["quantiles"]),
        _read_minutes(values["longer_than"]),
        _read_flag(values["live"]),
    )


def _read_quantile_levels(values: Any) -> tuple[float, ...]:
    advice = "send a list of numbers above 0 and below 1, such as [0.1, 0.5, 0.9]"
    if not isinstance(values, list | tuple | np.ndarray):
        raise TripError(f"Param 'quantiles': got {quote(values)}; {advice}.")
    if len(values) > MAX_QUANTILES:
        raise TripError(
            f"Param 'quantiles': got {len(values)} of them; send at most {MAX_QUANTILES}."
        )
    for value in values:
        if not _is_number(value) or not 0 < value < 1:
            raise TripError(f"Param 'quantiles': got {quote(value)}; {advice}.")
    return tuple(float(value) for value in values)


def _read_minutes(value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= LARGEST_FLOAT:
        raise TripError(
            f"Param 'longer_than': got {quote(value)}; send minutes above 0, or 0 to ask nothing."
        )
    return float(value)


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TripError(f"Param 'live': got {quote(value)}; send true or false.")
    return bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def quantile_column(level: float) -> str:
    """Name the column of a quantile: 0.1 is p10, 0.025 is p2_5."""
    return f"p{100 * level:.10g}".replace(".", "_")
