"""What a backtest says: errors by month and by the age of the model, and when to train again."""

from collections.abc import Mapping
from typing import NamedTuple


class DayErrors(NamedTuple):
    """How a model did on the trips of a day, minutes."""

    day: str  # YYYY-MM-DD
    n_trips: int
    rmse: float
    bias: float  # predicted less what they took

    @classmethod
    def read(cls, row: Mapping[str, str]) -> "DayErrors":
        """Read a row of score's table of days."""
        numbers = float(row["rmse"]), float(row["bias"])
        return cls(row["day"], int(row["n_trips"]), *numbers)
