"""The model people use: raw trips in, minutes out, saved without pickle."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import xgboost as xgb

from . import TripError
from .features import Encoder, restore_encoder
from .schema import INPUTS, Trips, input_names

# what skops may rebuild beyond the types it trusts by itself: nothing but sklearn's own trees
TRUSTED_TYPES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
# a thread of its own costs less than so many rows: fewer are predicted by the calling one
ROWS_PER_TASK = 500
NEW_YORK = "America/New_York"
CLOCK_WORDS = ("now", "today")  # pandas would answer them with its clock

# what a served model needs of this package, which travels with it
MODULES = ("__init__", "schema", "zones", "features", "model")


class TripModel:
    """Features and estimator together; the very same object trains, serves and is saved.

    Nothing in it changes once it is made, so any number of threads may ask it at once.
    """

    def __init__(self, taxi: str, encoder: Encoder, estimators: Sequence[Any]) -> None:
        """Join what was fitted.

        Args:
            taxi: green or yellow, the names of the raw columns.
            encoder: fitted on train months.
            estimators: one sklearn regressor, or boosters whose predictions are averaged; of a
                booster the model holds a copy.
        """
        self.taxi = taxi
        self.encoder = encoder
        self.estimators = [
            booster_for_threads(estimator.save_raw("ubj"))
            if isinstance(estimator, xgb.Booster)
            else estimator
            for estimator in estimators
        ]

    def predict(self, trips: Trips) -> np.ndarray:
        """Predict the minutes of n trips, float64 [n]."""
        return self.predict_matrix(self.encoder.transform(trips))

    def predict_matrix(self, matrix: Any) -> np.ndarray:
        """Predict from the encoder's matrix [n, k], float64 [n]."""
        if matrix.shape[0] == 0:  # which sklearn refuses
            return np.empty(0)
        parts = [predict_rows(estimator, matrix) for estimator in self.estimators]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64))

    def predict_frame(self, frame: pd.DataFrame) -> np.ndarray:
        """Predict from raw trips with the TLC's column names, float64 [n].

        Raises:
            TripError: a column is missing or a row cannot be judged; says which.
        """
        minutes = self.predict(read_frame(frame, self.taxi))
        # an estimator has no business answering this, but a caller must never be handed it
        wrong = np.flatnonzero(~np.isfinite(minutes))
        if len(wrong):
            raise TripError(f"Row {wrong[0]}: the model has no answer for it. Check its values.")
        return minutes

    def to_files(self) -> dict[str, bytes]:
        """Return the files of the model, name -> bytes, from which `from_files` rebuilds it."""
        about = {"taxi": self.taxi, "encoder": self.encoder.state()}
        files = {"model.json": json.dumps(about).encode()}
        for place, estimator in enumerate(self.estimators):
            if isinstance(estimator, xgb.Booster):
                files[f"booster-{place:03}.ubj"] = bytes(estimator.save_raw("ubj"))
            else:
                files["estimator.skops"] = skops.io.dumps(estimator)
        return files

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "TripModel":
        """Rebuild a model from the files of `to_files`; no pickle is read."""
        about = json.loads(files["model.json"])
        if "estimator.skops" in files:
            estimators = [skops.io.loads(files["estimator.skops"], trusted=list(TRUSTED_TYPES))]
        else:
            names = sorted(name for name in files if name.endswith(".ubj"))
            estimators = [xgb.Booster(model_file=bytearray(files[name])) for name in names]
        return cls(about["taxi"], restore_encoder(about["encoder"]), estimators)


def read_frame(frame: pd.DataFrame, taxi: str) -> Trips:
    """Read raw trips, as a caller sends them, into arrays.

    Args:
        frame: n rows with the TLC's columns: pickup time (text or timestamp), zone ids (number or
            text), and optionally the planned distance in miles. Other columns are ignored.
        taxi: green or yellow.
    Raises:
        TripError: names the column, the row counted from 0, and the value.
    """
    names = input_names(taxi)
    for role, must in INPUTS.items():
        if must and names[role] not in frame.columns:
            raise TripError(f"Column {names[role]!r} is missing. Columns seen: {list(frame)}.")
    distance = np.full(len(frame), np.nan)
    if names["distance_miles"] in frame.columns:
        distance = _finite_numbers(frame[names["distance_miles"]], may_miss=True)
    return Trips(
        pickup_at=_times(frame[names["pickup_at"]]),
        pickup_zone=_zones(frame[names["pickup_zone"]]),
        dropoff_zone=_zones(frame[names["dropoff_zone"]]),
        distance_miles=distance,
        trip_minutes=np.full(len(frame), np.nan),
    )


def _times(values: pd.Series) -> np.ndarray:
    advice = "send a date and time of New York like 2021-01-31 17:45:00"
    # a number is a time of a unit nobody knows, and pandas reads 20210131 as that day
    if not pd.api.types.is_datetime64_any_dtype(values.dtype):
        _refuse(values, pd.to_numeric(values, errors="coerce").notna().to_numpy(), advice)
    try:
        times = pd.to_datetime(values, errors="coerce", format="ISO8601")
    except ValueError as error:  # rows with and without a time zone side by side
        raise TripError(f"Column {values.name!r} mixes time zones; {advice}.") from error
    _refuse(values, (times.isna() | values.isin(CLOCK_WORDS)).to_numpy(), advice)
    if times.dt.tz is not None:
        times = times.dt.tz_convert(NEW_YORK).dt.tz_localize(None)
    return times.to_numpy("datetime64[us]")


def _zones(values: pd.Series) -> np.ndarray:
    numbers = _finite_numbers(values, may_miss=False)
    _refuse(values, numbers != np.floor(numbers), "send a TLC zone id like 74")
    # an id too large for the type is a zone nobody knows, as 0 is
    return np.where(np.abs(numbers) < 1e6, numbers, 0).astype(np.int32)


def _finite_numbers(values: pd.Series, *, may_miss: bool) -> np.ndarray:
    if values.dtype.kind in "bcmM":  # pandas would count them: true as 1, times in nanoseconds
        _refuse(values, np.ones(len(values), bool), "send a number")
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = ~np.isfinite(numbers)
    if may_miss:
        wrong &= values.notna().to_numpy()
    _refuse(values, wrong, "send a number")
    return numbers


def _refuse(values: pd.Series, wrong: np.ndarray, advice: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        seen = values.iloc[rows[:1]].tolist()[0]  # Python's own type: 1.5, not np.float64(1.5)
        raise TripError(f"Row {rows[0]}, column {values.name!r}: got {seen!r}; {advice}.")


def booster_for_threads(content: bytearray) -> xgb.Booster:
    """Load a booster that several threads may ask at once, each on its own core.

    Args:
        content: what `save_raw("ubj")` gave. A booster just trained holds more than that, such as
            the device it was trained on, and would not serve exactly as it does after loading.
    """
    booster = xgb.Booster({"nthread": 1}, model_file=content)
    booster.save_config()  # else it sets itself up in the first call, which two may make at once
    return booster


def predict_rows(estimator: Any, matrix: Any) -> np.ndarray:
    """Predict n rows with one estimator, [n]; many rows of a booster on several threads.

    Each row is a sum of its own, so neither their number nor the threads change a digit of it.
    """
    if not isinstance(estimator, xgb.Booster):
        return np.asarray(estimator.predict(matrix))
    starts = range(0, matrix.shape[0], ROWS_PER_TASK)
    if len(starts) == 1:
        return estimator.inplace_predict(matrix)
    with ThreadPoolExecutor() as executor:
        parts = (matrix[start : start + ROWS_PER_TASK] for start in starts)
        return np.concatenate(list(executor.map(estimator.inplace_predict, parts)))


def write_frame(trips: Trips, taxi: str) -> pd.DataFrame:
    """Convert trips to the frame that a caller would send: n rows, the TLC's column names."""
    return pd.DataFrame({name: getattr(trips, role) for role, name in input_names(taxi).items()})


def input_columns(taxi: str) -> dict[str, bool]:
    """List the columns a model reads: name -> whether a caller must send it."""
    return {name: INPUTS[role] for role, name in input_names(taxi).items()}
