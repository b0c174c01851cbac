"""The course's encoding: a column for each pair of zones, and the distance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from .schema import Trips


@dataclass(frozen=True)
class PairOneHot:
    """The course's encoding: one column per pair of zones, and the raw distance."""

    pairs: list[str]  # "PU_DO", ascending as text, as DictVectorizer orders them

    @property
    def names(self) -> list[str]:
        """Column names, as DictVectorizer writes them."""
        return [*(f"PU_DO={pair}" for pair in self.pairs), "trip_distance"]

    def transform(self, trips: Trips) -> csr_matrix:
        """Encode n trips as float64 CSR [n, p + 1]; an unseen pair sets no column.

        A missing distance counts as 0, which is how the TLC's meters write it.
        """
        n, p = len(trips), len(self.pairs)
        codes = np.array([_code(pair) for pair in self.pairs])
        order = np.argsort(codes)
        pair_codes = trips.pickup_zone.astype(np.int64) * 1_000_000 + trips.dropoff_zone
        position = np.minimum(np.searchsorted(codes[order], pair_codes), p - 1)
        column = order[position]
        seen = codes[column] == pair_codes
        # int32: Lasso refuses the int64 that scipy would choose
        rows = np.concatenate([np.flatnonzero(seen), np.arange(n)]).astype(np.int32)
        columns = np.concatenate([column[seen], np.full(n, p)]).astype(np.int32)
        values = np.concatenate([np.ones(seen.sum()), np.nan_to_num(trips.distance_miles)])
        return csr_matrix((values, (rows, columns)), shape=(n, p + 1))

    transform_train = transform

    def state(self) -> dict[str, Any]:
        """Return the vocabulary as plain JSON values."""
        return {"set": "course", "pairs": self.pairs}


def _code(pair: str) -> int:
    pickup, dropoff = pair.split("_")
    return int(pickup) * 1_000_000 + int(dropoff)
