"""What MLflow shows of scored months: which bytes went in, where they stand in time, the page."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from steps.common import page
from steps.score.month import ScoredMonth
from storage.tracking import datasets, runs
from storage.tracking.datasets import HashedDataset
from storage.uris import without_credentials
from taxi import schema


def log_read(scored: Sequence[ScoredMonth], taxi: str) -> None:
    """Log which bytes went in."""
    columns = pa.schema([(column.name, column.type) for column in schema.raw_columns(taxi)])
    months = [
        HashedDataset(
            name=f"score {month.month}",
            uri=month.uri,
            sha256=month.sha256,
            columns=columns,
            n_rows=month.tally.n_rows,
        )
        for month in scored
    ]
    datasets.log_datasets([(month, "score") for month in months])


def time_of(month: str) -> int:
    """Return when a month begins, its place on an axis of time: milliseconds since 1970."""
    return int(np.datetime64(month, "ms").astype(np.int64))


def write_scored(
    scored: Sequence[ScoredMonth], uri: str, taxi: str, has_drifted: bool | None
) -> None:
    """Write the run's page.

    Args:
        scored: the months.
        uri: of the model.
        taxi: green or yellow.
        has_drifted: whether any month has; None where the model does not tell what it knew.
    """
    drifted = {True: "**drift**", False: "no drift", None: "drift unknown"}[has_drifted]
    rows, n_trips = [], sum(month.tally.n_predicted for month in scored)
    for month in scored:
        found = month.tally.total.scores()
        rmse = f"{found['rmse']:.3f}" if found else ""
        rows.append((month.month, rmse, f"{month.tally.n_predicted:,}", f"{month.tally.n_rows:,}"))
    months = page.span([month.month for month in scored])
    errors = [row[1] for row in rows if row[1]]
    known = f"RMSE {', '.join(errors)} min" if errors else "no drop-off known, so no errors"
    verdict = f"**{known}** on {months}, {n_trips:,} trips predicted; {drifted}"
    about = f"{taxi} {months}{f' · {float(errors[-1]):.2f} min' if errors else ''}"
    table = page.to_table(["month", "RMSE, min", "predicted", "rows"], rows)
    runs.write_page(f"{verdict}\n\nBy {without_credentials(uri)}.\n\n{table}", about)
