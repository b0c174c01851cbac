"""What boosters are trained and scored on: trips as rows of numbers, and what each weighs."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from . import features
from .features import Encoder
from .schema import Trips, clean_miles

# below this share of trips with a distance, those without one get no boosters of their own
MIN_KNOWN = 0.5


class Rows(NamedTuple):
    """What trials are trained and scored on, as plain arrays that travel to any worker."""

    train: Any  # [n, k] float32, or CSR
    train_y: np.ndarray  # minutes [n]
    valid: Any  # [m, k] of the same kind
    valid_y: np.ndarray  # minutes [m]
    weight: np.ndarray | None = None  # [n] of the train rows; None where all weigh the same
    max_bin: int = 256  # of each dense column

    @property
    def key(self) -> str:
        """Hash of all values: equal for equal rows, whatever features and months made them."""
        digest = hashlib.sha256(f"{self.max_bin} ".encode())
        parts = [self.train, self.train_y, self.valid, self.valid_y]
        for part in parts if self.weight is None else [*parts, self.weight]:
            for values in _arrays(part):
                digest.update(f"{values.dtype} {part.shape} ".encode())
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()


def _arrays(part: Any) -> tuple[np.ndarray, ...]:
    return (part.indptr, part.indices, part.data) if issparse(part) else (part,)


def make_rows(
    encoder: Encoder, train: Trips, valid: Trips, half_life: float = 0, max_bin: int = 256
) -> Rows:
    """Encode the trips that trials are trained and scored on.

    Args:
        encoder: fitted on the train trips.
        train, valid: n and m trips.
        half_life: months after which a train trip counts half; 0 = all count the same.
        max_bin: of each dense column.
    """
    matrix, weight = encoder.transform_train(train), weights_by_age(train.pickup_at, half_life)
    valid_matrix = encoder.transform(valid)
    return Rows(matrix, train.trip_minutes, valid_matrix, valid.trip_minutes, weight, max_bin)


def weights_by_age(pickup_at: np.ndarray, half_life: float) -> np.ndarray | None:
    """Weigh trips by how many months before the latest one they were made.

    Streets, traffic and habits move on: trips of a year ago help, and harm where they count as much
    as those of last month.

    Args:
        pickup_at: datetime64 [n].
        half_life: months after which a trip counts half; 0 = all count the same.
    Returns:
        [n] in (0, 1], those of the latest month 1; None where all are.
    """
    month = pickup_at.astype("datetime64[M]").astype(np.int64)
    age = month.max() - month
    if not half_life or not age.any():
        return None
    return np.asarray(np.maximum(0.5 ** (age / half_life), np.finfo(np.float32).tiny))


def is_split(encoder: Encoder, *splits: Trips) -> bool:
    """Whether trips without a distance can get boosters of their own: most trips must have one.

    Args:
        encoder: the one-hot encoding cannot do without a distance.
        splits: trips that boosters are trained or scored on.
    """
    shares = [float(np.mean(has_distance(trips))) for trips in splits]
    return isinstance(encoder, features.DenseFeatures) and min(shares) >= MIN_KNOWN


def has_distance(trips: Trips) -> np.ndarray:
    """Whether each trip has a distance to go by, bool [n]."""
    return ~np.isnan(clean_miles(trips))


def sighted_rows(
    encoder: Encoder, train: Trips, valid: Trips, half_life: float = 0, max_bin: int = 256
) -> Rows:
    """Encode the train trips that have a distance, and the valid trips that do; see make_rows."""
    known, judged = has_distance(train), has_distance(valid)
    matrix, minutes = encoder.transform_train(train)[known], train.trip_minutes[known]
    weight = weights_by_age(train.pickup_at[known], half_life)
    valid_matrix = encoder.transform(valid)[judged]
    return Rows(matrix, minutes, valid_matrix, valid.trip_minutes[judged], weight, max_bin)


def blind_rows(
    encoder: Encoder, train: Trips, valid: Trips, half_life: float = 0, max_bin: int = 256
) -> Rows:
    """Encode all trips as if no distance were known; see make_rows."""
    return Rows(
        encode_blind(encoder, train, is_train=True),
        train.trip_minutes,
        encode_blind(encoder, valid, is_train=False),
        valid.trip_minutes,
        weights_by_age(train.pickup_at, half_life),
        max_bin,
    )


def encode_blind(encoder: Any, trips: Trips, *, is_train: bool) -> np.ndarray:
    """Encode n trips as if no distance were known, float32 [n, k].

    Columns that then say nothing are constant: missing everywhere, they would keep xgboost from its
    compact bins, and no tree asks them either way.
    """
    if is_train:
        matrix = encoder.transform_train(trips, blind=True)
    else:
        matrix = encoder.transform(trips.without_distance())
    return np.where(np.isnan(matrix).all(axis=0), np.float32(0), matrix)
