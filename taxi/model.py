"""The model people use: raw trips in, minutes out, saved without pickle."""

import json
import re
from collections.abc import Mapping, Sequence
from copy import copy
from io import BytesIO
from types import ModuleType
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
import pandas as pd
import xgboost as xgb

from . import TripError
from .features import DenseFeatures, Encoder, restore_encoder
from .live import LiveState
from .live_file import apply_live, new_york_now, read_state, reason_unusable
from .request import list_warnings, read_frame, read_plain
from .request_params import RequestParams, quantile_column, read_params
from .schema import Trips, clean_miles, input_names, input_requirements
from .spread import Spread, restore_spread
from .threads import open_pool

# types that skops may load besides those it trusts by default: only sklearn's own trees
TRUSTED_TYPES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
# fewer rows are not worth a thread: the calling one predicts them
ROWS_PER_TASK = 500
N_TASKS = 16  # into which many rows are cut; calling a booster costs as much as predicting 250 rows
ROWS_AT_ONCE = 50_000  # encoded at a time, to bound the memory

# modules of this package that are shipped with a served model
MODULES = (
    "__init__",
    "values",
    "schema",
    "surroundings",
    "columns",
    "geometry",
    "one_hot",
    "zones",
    "features",
    "leaves",
    "expected_loss",
    "spread",
    "request",
    "request_params",
    "live",
    "live_file",
    "openapi",
    "threads",
    "model",
)
SPREAD_FILE = "spread.json"
SKOPS_SCHEMA = "schema.json"  # describes the objects in a skops file
SKOPS_ADDRESS = re.compile(r'("(?:__id__|file)": "?)([\w-]+)')  # an address in it, and its key


class TripModel:
    """Encoder and estimators together; the same object is trained, saved and served.

    It never changes once it is made, so any number of threads may use it at once.
    """

    def __init__(
        self,
        taxi: str,
        encoder: Encoder,
        estimators: Sequence[Any],
        boosters_without_distance: Sequence[xgb.Booster] = (),
        *,
        weight_without_distance: float = 0.0,
        spread: Spread | None = None,
    ) -> None:
        """Combine what was fitted.

        Args:
            taxi: key of schema.TAXIS, which names the raw columns.
            encoder: fitted on training months.
            estimators: one sklearn regressor, or boosters, which are copied and whose predictions
                are averaged.
            boosters_without_distance: those for trips without a distance; empty if `estimators`
                predict these too.
            weight_without_distance: weight of those boosters in the prediction of a trip with a
                distance.
            spread: of the errors on trips that the model was not fitted to; None if it gives no
                quantiles.
        """
        self.taxi = taxi
        self.spread = spread
        self.encoder = encoder
        self.estimators = [
            load_thread_safe_booster(estimator.save_raw("ubj"))
            if isinstance(estimator, xgb.Booster)
            else estimator
            for estimator in estimators
        ]
        self.weight_without_distance = weight_without_distance
        self.boosters_without_distance = [
            load_thread_safe_booster(booster.save_raw("ubj"))
            for booster in boosters_without_distance
        ]

    def predict(self, trips: Trips) -> np.ndarray:
        """Predict the minutes of n trips, float64 [n]; at most ROWS_AT_ONCE are encoded at a time.

        Rows are predicted independently, so it does not matter which are encoded together.
        """
        minutes = np.empty(len(trips))
        for start in range(0, len(trips), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            minutes[rows] = self._predict_part(trips.take(rows))
        return minutes

    def _predict_part(self, trips: Trips) -> np.ndarray:
        matrix = self.encoder.transform(trips)
        has_distance = ~np.isnan(clean_miles(trips))
        if not self.boosters_without_distance or has_distance.all():
            return self._predict_with_distance(trips, matrix)
        minutes = np.empty(len(trips))
        minutes[has_distance] = self._predict_with_distance(
            trips.take(has_distance), matrix[has_distance]
        )
        minutes[~has_distance] = average_predictions(
            self.boosters_without_distance, matrix[~has_distance]
        )
        return minutes

    def _predict_with_distance(self, trips: Trips, matrix: Any) -> np.ndarray:
        minutes, weight = average_predictions(self.estimators, matrix), self.weight_without_distance
        if not weight:
            return minutes
        if not isinstance(self.encoder, DenseFeatures):
            raise TypeError("the one-hot encoding cannot do without a distance")
        without_distance = average_predictions(
            self.boosters_without_distance, self.encoder.hide_distance(matrix, trips)
        )
        return (1 - weight) * minutes + weight * without_distance

    def answer(
        self,
        frame: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
        *,
        state: LiveState | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Answer a request: predict n raw trips, and whatever else its params ask for.

        Args:
            frame: n raw trips with the TLC's column names.
            params: name -> value; those left out have the default of `request_params`.
            state: the live state, used if the request asks for it; None if there is none.
        Returns:
            The minutes, float64 [n]. If more is asked for, a frame of n rows with the index of
            `frame`: the minutes as `prediction`, and a column for each thing asked for: `p10` for
            the quantile 0.1, `longer_than`, `live_age_minutes`.
        Raises:
            TripError: a param, a column or a row is invalid, or the model has no answer for a row;
                says which and why.
        """
        requested = read_params(params)
        trips = read_frame(frame, self.taxi)
        predicted = self._predict_all(trips)
        columns: dict[str, Any] = {}
        if requested.live:
            level = apply_live(state, trips, predicted, new_york_now())
            predicted = level.minutes
            # a server writes None as null; MLflow would write NaN, which is not valid JSON
            age = [None if np.isnan(minutes) else minutes for minutes in level.age_minutes.tolist()]
            columns["live_age_minutes"] = np.array(age, object)
        if requested.needs_spread:
            columns |= self._answer_spread(trips, predicted, requested)
        if not columns:
            return predicted
        return pd.DataFrame({"prediction": predicted, **columns}, index=frame.index)

    def answer_plain(self, records: Any) -> np.ndarray | None:
        """Answer a request for the minutes of n plain raw trips, without the cost of a frame.

        Args:
            records: of the request's JSON, whatever was sent.
        Returns:
            The minutes as `answer` would return them, [n]; None if `answer` must be called, for
            trips that are not plain (see `read_plain`) or have no answer.
        """
        trips = read_plain(records, self.taxi)
        minutes = None if trips is None else self.predict(trips)
        return minutes if minutes is not None and np.isfinite(minutes).all() else None

    def list_warnings(self, frame: pd.DataFrame) -> list[str]:
        """List the values of n answered raw trips that were not used, a line each."""
        return list_warnings(frame, self.taxi)

    def read_live(self, content: bytes, sha256: str) -> LiveState:
        """Read the file of a live state for this model.

        Args:
            content: of the file.
            sha256: digest of this model.
        Raises:
            TripError: the state cannot be used, or not at present; says why.
        """
        state = read_state(content, taxi=self.taxi, model_sha256=sha256)
        if reason := reason_unusable(state, new_york_now()):
            raise TripError(reason)
        return state

    def _predict_all(self, trips: Trips) -> np.ndarray:
        minutes = self.predict(trips)
        # no estimator should predict NaN or infinity, but a caller must never get one
        wrong = np.flatnonzero(~np.isfinite(minutes))
        if len(wrong):
            raise TripError(f"Row {wrong[0]}: the model has no answer for it. Check its values.")
        return minutes

    def _answer_spread(
        self, trips: Trips, predicted: np.ndarray, requested: RequestParams
    ) -> dict[str, np.ndarray]:
        """Compute the quantiles and the risk that are asked for: column -> [n]."""
        if self.spread is None:
            raise TripError(
                "This model was saved without a spread of its errors, so it gives no quantiles and "
                "no longer_than. Leave both out, or train it again."
            )
        minutes = self.spread.quantiles(trips, predicted, requested.quantiles)
        columns = dict(zip(map(quantile_column, requested.quantiles), minutes.T, strict=True))
        if requested.longer_than:
            risk = self.spread.longer_than(trips, predicted, requested.longer_than)
            columns["longer_than"] = risk
        return columns

    def losses(self) -> np.ndarray | None:
        """Return the squared errors by leaf, as `expected_loss` takes them; None if unknown."""
        return self.spread.losses() if self.spread else None

    def find_leaves(self, frame: pd.DataFrame, predicted: np.ndarray) -> np.ndarray:
        """Find the row of `losses` for each of n raw trips, int [n].

        Args:
            frame: n raw trips with the TLC's column names.
            predicted: [n] minutes.
        """
        if self.spread is None:
            raise TripError("This model was saved without a spread of its errors. Train it again.")
        return self.spread.find_leaves(read_frame(frame, self.taxi), predicted)

    def with_spread(self, spread: Spread | None) -> "TripModel":
        """Return the same model with a spread of its errors, or without one."""
        other = copy(self)
        other.spread = spread
        return other

    def to_files(self) -> dict[str, bytes]:
        """Return the files of the model, name -> bytes, from which `from_files` rebuilds it."""
        files: dict[str, bytes] = {}
        if self.spread:
            files[SPREAD_FILE] = json.dumps(self.spread.state()).encode()
        for index, estimator in enumerate(self.estimators):
            if isinstance(estimator, xgb.Booster):
                files[f"booster-{index:03}.ubj"] = bytes(estimator.save_raw("ubj"))
            else:
                files["estimator.skops"] = write_estimator(estimator)
        for index, booster in enumerate(self.boosters_without_distance):
            files[f"blind-{index:03}.ubj"] = bytes(booster.save_raw("ubj"))
        description = {
            "taxi": self.taxi,
            "encoder": self.encoder.state(),
            "blind_share": self.weight_without_distance,
            "files": sorted(files),
        }
        return {"model.json": json.dumps(description).encode(), **files}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "TripModel":
        """Rebuild a model from the files of `to_files`; no pickle is read.

        Raises:
            TripError: one of them is missing.
        """
        description = json.loads(files["model.json"])
        # without one of its boosters, a model would still answer, but wrongly
        if missing := sorted(set(description.get("files", ())) - set(files)):
            raise TripError(f"The model's file {missing[0]} is missing.")
        if "estimator.skops" in files:
            content = files["estimator.skops"]
            estimators = [_skops().loads(content, trusted=list(TRUSTED_TYPES))]
        else:
            estimators = _boosters(files, "booster-")
        boosters_without_distance = _boosters(files, "blind-")
        spread = restore_spread(json.loads(files[SPREAD_FILE])) if SPREAD_FILE in files else None
        encoder = restore_encoder(description["encoder"])
        weight = description.get("blind_share", 0.0)
        return cls(
            description["taxi"],
            encoder,
            estimators,
            boosters_without_distance,
            weight_without_distance=weight,
            spread=spread,
        )


def write_estimator(estimator: Any) -> bytes:
    """Write a sklearn estimator with skops; equal estimators give equal bytes.

    skops names its parts by memory address, and a zip records the time. As models are identified by
    their bytes, the same one would be another in each run.

    Raises:
        TripError: it contains types that `from_files` refuses to load.
    """
    dumped = _skops().dumps(estimator)
    if untrusted := sorted({*_skops().get_untrusted_types(data=dumped)} - {*TRUSTED_TYPES}):
        raise TripError(
            f"{type(estimator).__name__} could not be loaded again: its file would contain "
            f"{', '.join(untrusted)}. Add those that are safe to TRUSTED_TYPES in taxi/model.py."
        )
    with ZipFile(BytesIO(dumped)) as written:
        parts = {name: written.read(name) for name in written.namelist()}
    schema = parts.pop(SKOPS_SCHEMA).decode()
    addresses = dict.fromkeys(match[2] for match in SKOPS_ADDRESS.finditer(schema))
    number = {address: str(number) for number, address in enumerate(addresses, start=1)}
    content = BytesIO()
    with ZipFile(content, "w") as file:
        for name, part in parts.items():
            address, _, ending = name.partition(".")
            file.writestr(ZipInfo(f"{number[address]}.{ending}"), part)
        schema = SKOPS_ADDRESS.sub(lambda match: match[1] + number[match[2]], schema)
        file.writestr(ZipInfo(SKOPS_SCHEMA), schema)
    return content.getvalue()


def _skops() -> ModuleType:
    import skops.io  # takes as long as all other imports together; boosters do not need it

    return skops.io


def _boosters(files: Mapping[str, bytes], prefix: str) -> list[xgb.Booster]:
    names = sorted(name for name in files if name.startswith(prefix))
    return [xgb.Booster(model_file=bytearray(files[name])) for name in names]


def average_predictions(estimators: Sequence[Any], matrix: Any) -> np.ndarray:
    """Predict n rows with each of several estimators, and average them, float64 [n]."""
    if matrix.shape[0] == 0:  # which sklearn refuses
        return np.empty(0)
    parts = [predict_rows(estimator, matrix) for estimator in estimators]
    return np.asarray(np.mean(parts, axis=0, dtype=np.float64))


def load_thread_safe_booster(content: bytearray) -> xgb.Booster:
    """Load a booster that several threads may use at once, each on its own core.

    Args:
        content: as returned by `save_raw("ubj")`. A freshly trained booster holds more, such as its
            device, and would not predict exactly as it does once loaded.
    """
    booster = xgb.Booster({"nthread": 1}, model_file=content)
    booster.save_config()  # configures it now, or two threads may do so at once in their first call
    return booster


def predict_rows(estimator: Any, matrix: Any) -> np.ndarray:
    """Predict n rows with one estimator, [n]; many rows of a booster on several threads.

    Each prediction is a sum of its own, so neither batches nor threads change a digit.
    """
    if not isinstance(estimator, xgb.Booster):
        return np.asarray(estimator.predict(matrix))
    n_rows = matrix.shape[0]
    step = max(ROWS_PER_TASK, -(-n_rows // N_TASKS))
    if n_rows <= step:
        return estimator.inplace_predict(matrix)
    with open_pool() as threads:
        parts = (matrix[start : start + step] for start in range(0, n_rows, step))
        return np.concatenate(list(threads.map(estimator.inplace_predict, parts)))


def trips_to_frame(trips: Trips, taxi: str) -> pd.DataFrame:
    """Convert trips to the frame that a caller would send: n rows, the TLC's column names."""
    return pd.DataFrame({name: getattr(trips, role) for role, name in input_names(taxi).items()})


def input_columns(taxi: str) -> dict[str, bool]:
    """List the columns a model reads: name -> whether a caller must send it."""
    return {name: input_requirements(taxi)[role] for role, name in input_names(taxi).items()}
