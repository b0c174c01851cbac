"""Encode trips for boosters: all at once, or batch by batch if they are too many."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .batches import BatchedMatrix
from .features import DenseFeatures, Encoder
from .schema import Trips
from .zones import OutOfFold

# up to this many trips are kept encoded in memory, which is fastest: 96 bytes each, and 32 for the
# trip itself. More of them are encoded again on every read
MAX_ROWS_IN_MEMORY = 2_000_000


@dataclass(frozen=True)
class EncodedTrips(BatchedMatrix):
    """The matrix of trips, encoded batch by batch."""

    encoder: DenseFeatures
    trips: Trips
    kept: np.ndarray | None = None  # bool, which of the trips become rows; None = all
    is_train: bool = False  # the encoder was fitted on these trips
    # as if no distance were known; columns that are then missing in all rows are 0
    hide_distance: bool = False

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Count rows and columns."""
        n_rows = len(self.trips) if self.kept is None else int(self.kept.sum())
        return n_rows, len(self.encoder.names)

    def batches(self) -> Iterator[np.ndarray]:
        """Encode the rows in their order, [b, k] each."""
        for first, part in self._parts():
            matrix = self._encode(self.encoder, part, first)
            if self.hide_distance:
                matrix[:, self._missing] = 0
            if self.kept is not None:
                matrix = matrix[self.kept[first : first + len(part)]]
            if len(matrix):
                yield matrix

    def _parts(self) -> Iterator[tuple[int, Trips]]:
        first = 0
        for part in self.trips.batches():
            yield first, part
            first += len(part)

    def _encode(self, encoder: DenseFeatures, part: Trips, first: int) -> np.ndarray:
        if self.is_train:
            return encoder.transform_rows(
                part, self._out_of_fold, first, hide_distance=self.hide_distance
            )
        return encoder.transform(part.without_distance() if self.hide_distance else part)

    @cached_property
    def _out_of_fold(self) -> OutOfFold:
        return OutOfFold(self.trips)

    @cached_property
    def _missing(self) -> np.ndarray:
        """Tell which columns are missing in all rows, bool [k].

        Only columns missing so far are encoded: few are left after the first batch.
        """
        candidates = self.encoder.names
        for first, part in self._parts():
            matrix = self._encode(replace(self.encoder, names=candidates), part, first)
            is_missing = np.isnan(matrix).all(axis=0)
            candidates = [
                name for name, missing in zip(candidates, is_missing, strict=True) if missing
            ]
        return np.isin(self.encoder.names, candidates)


def encode(
    encoder: Encoder, trips: Trips, kept: np.ndarray | None = None, *, is_train: bool
) -> Any:
    """Encode trips for boosters: whole up to MAX_ROWS_IN_MEMORY of them, and batch by batch beyond.

    Args:
        encoder: of a feature set; one-hot matrices are sparse, and always whole.
        trips: n trips.
        kept: bool [n], which of them become rows; None = all.
        is_train: whether the encoder was fitted on these trips.
    Returns:
        [m, k]: float32, CSR or EncodedTrips.
    """
    if isinstance(encoder, DenseFeatures) and len(trips) > MAX_ROWS_IN_MEMORY:
        return EncodedTrips(encoder, trips, kept, is_train=is_train)
    matrix = encoder.transform_train(trips) if is_train else encoder.transform(trips)
    return matrix if kept is None else matrix[kept]


def encode_without_distance(encoder: Any, trips: Trips, *, is_train: bool) -> Any:
    """Encode n trips as if no distance were known, float32 [n, k] or EncodedTrips; see `encode`.

    Columns that are then missing in all rows are set to 0. Missing values would keep xgboost from
    using its compact bins, and no tree splits on such a column either way.
    """
    if len(trips) > MAX_ROWS_IN_MEMORY:
        return EncodedTrips(encoder, trips, is_train=is_train, hide_distance=True)
    if is_train:
        matrix = encoder.transform_train(trips, hide_distance=True)
    else:
        matrix = encoder.transform(trips.without_distance())
    return np.where(np.isnan(matrix).all(axis=0), np.float32(0), matrix)
