"""The rows that boosters are trained and scored on: encoded trips and their weights."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from .batches import to_memory
from .encoding import encode, encode_without_distance
from .features import DenseFeatures, Encoder
from .schema import Trips, clean_miles

# below this share of trips with a distance, trips without one get no boosters of their own
MIN_SHARE_WITH_DISTANCE = 0.5


class Rows(NamedTuple):
    """What trials are trained and scored on; once whole, arrays that can be sent to any worker."""

    train: Any  # [n, k] float32, CSR, or a BatchedMatrix
    train_y: np.ndarray  # minutes, float32 [n] as boosters take them
    valid: Any  # [m, k] of the same kind
    valid_y: np.ndarray  # minutes [m]
    weight: np.ndarray | None = None  # [n] of the train rows; None if all weigh the same
    max_bin: int = 256  # of each dense column

    def to_memory(self) -> "Rows":
        """Return the same rows with both matrices whole in memory."""
        return self._replace(train=to_memory(self.train), valid=to_memory(self.valid))

    @property
    def key(self) -> str:
        """Hash of all values of whole rows: equal values have equal keys, however made."""
        digest = hashlib.sha256(f"{self.max_bin} ".encode())
        parts = [self.train, self.train_y, self.valid, self.valid_y]
        for part in parts if self.weight is None else [*parts, self.weight]:
            for values in _arrays(part):
                digest.update(f"{values.dtype} {part.shape} ".encode())
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


def _arrays(part: Any) -> list[np.ndarray]:
    return [part.indptr, part.indices, part.data] if issparse(part) else [part]


class TrainingData(NamedTuple):
    """What boosters are trained on."""

    matrix: Any  # [n, k], as `encode` returns it
    minutes: np.ndarray  # float32 [n]
    weight: np.ndarray | None  # [n]; None if all weigh the same


def make_rows(
    encoder: Encoder, train: Trips, valid: Trips, half_life: float = 0, max_bin: int = 256
) -> Rows:
    """Encode the trips that trials are trained and scored on.

    Args:
        encoder: fitted on the training trips.
        train, valid: n and m trips.
        half_life: months after which a training trip counts half; 0 = all count the same.
        max_bin: of each dense column.
    """
    data = make_training_data(encoder, train, half_life)
    matrix = encode(encoder, valid, is_train=False)
    return Rows(data.matrix, data.minutes, matrix, valid.trip_minutes, data.weight, max_bin)


def make_training_data(
    encoder: Encoder, trips: Trips, half_life: float, kept: np.ndarray | None = None
) -> TrainingData:
    """Encode the n trips that the encoder was fitted on, or only those `kept`, bool [n]."""
    matrix = encode(encoder, trips, kept, is_train=True)
    rows = slice(None) if kept is None else kept
    minutes = trips.trip_minutes[rows].astype(np.float32)
    return TrainingData(matrix, minutes, weights_by_age(trips.pickup_at[rows], half_life))


def make_training_data_without_distance(
    encoder: Any, trips: Trips, half_life: float
) -> TrainingData:
    """Encode the n trips that the encoder was fitted on as if no distance were known."""
    matrix = encode_without_distance(encoder, trips, is_train=True)
    minutes = trips.trip_minutes.astype(np.float32)
    return TrainingData(matrix, minutes, weights_by_age(trips.pickup_at, half_life))


def weights_by_age(pickup_at: np.ndarray, half_life: float) -> np.ndarray | None:
    """Weight trips by their age, in months before the latest one.

    Streets, traffic and habits change: trips of a year ago help, but do harm if they count as much
    as those of last month.

    Args:
        pickup_at: datetime64 [n].
        half_life: months after which a trip counts half; 0 = all count the same.
    Returns:
        [n] in (0, 1], 1 in the latest month; None if all weights are 1.
    """
    month = pickup_at.astype("datetime64[M]").astype(np.int32)
    age = month.max() - month
    if not half_life or not age.any():
        return None
    return np.asarray(np.maximum(0.5 ** (age / half_life), np.finfo(np.float32).tiny))


def is_split_by_distance(encoder: Encoder, *splits: Trips) -> bool:
    """Whether trips without a distance get boosters of their own.

    They do if at least MIN_SHARE_WITH_DISTANCE of the trips of every split have a distance.

    Args:
        encoder: must be dense; the one-hot encoding requires a distance.
        splits: trips that boosters are trained or scored on.
    """
    shares = [float(np.mean(has_distance(trips))) for trips in splits]
    return isinstance(encoder, DenseFeatures) and min(shares) >= MIN_SHARE_WITH_DISTANCE


def has_distance(trips: Trips) -> np.ndarray:
    """Tell which trips have a clean distance, bool [n]."""
    return ~np.isnan(clean_miles(trips))


def rows_with_distance(
    encoder: Encoder, train: Trips, valid: Trips, half_life: float = 0, max_bin: int = 256
) -> Rows:
    """Encode the training and validation trips that have a distance; see make_rows."""
    kept = has_distance(valid)
    data = make_training_data(encoder, train, half_life, kept=has_distance(train))
    matrix, minutes = encode(encoder, valid, kept, is_train=False), valid.trip_minutes[kept]
    return Rows(data.matrix, data.minutes, matrix, minutes, data.weight, max_bin)


def rows_without_distance(
    encoder: Any, train: Trips, valid: Trips, half_life: float = 0, max_bin: int = 256
) -> Rows:
    """Encode all trips as if no distance were known; see make_rows."""
    data = make_training_data_without_distance(encoder, train, half_life)
    matrix = encode_without_distance(encoder, valid, is_train=False)
    return Rows(data.matrix, data.minutes, matrix, valid.trip_minutes, data.weight, max_bin)
