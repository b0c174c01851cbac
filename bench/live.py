"""What the live level is worth: RMSE of real months without it, and with feeds of many delays."""

from collections.abc import Iterator
from time import process_time

import numpy as np
import pyarrow.parquet as pq

from bench import DATA, Result
from bench.estimate import fit_booster
from bench.serving import load
from steps.score.feed import FeedSettings, LiveFeed, RowTimes, row_times
from taxi import live, scoring
from taxi.model import TripModel
from taxi.request import read_frame
from taxi.scores import rmse

# train month -> months to predict; the first of them is used for early stopping
MONTHS = {
    "2021-01": ("2021-02",),
    "2022-01": ("2022-02",),
    "2023-01": ("2023-02", "2023-03"),
}
FEEDS = {
    "off": None,
    "nightly": FeedSettings("nightly", 0),
    "feed, 0 min late": FeedSettings("feed", 0),
    "feed, 15 min late": FeedSettings("feed", 15),
    "feed, 60 min late": FeedSettings("feed", 60),
    "feed, 3 h late": FeedSettings("feed", 180),
    "feed, 1 day late": FeedSettings("feed", 1440),
    "feed, 3 days late": FeedSettings("feed", 3 * 1440),
}
WHAT = "one booster, metered distance: RMSE of"


def measure() -> Iterator[Result]:
    """Train one booster on each January, and follow the months after it with every feed."""
    asked = {month: (model, rows) for month, model, rows in predicted_months()}
    names = " / ".join(asked)
    for name, settings in FEEDS.items():
        scores = [f"{followed(month, *asked[month], settings):.3f}" for month in asked]
        yield Result(f"{WHAT} {names}, {name}", " / ".join(scores), "")
    month, (model, rows) = next(iter(asked.items()))
    start = process_time()
    followed(month, model, rows, FeedSettings("feed", 15))
    yield Result(
        f"following {len(rows.counts):,} trips", f"{process_time() - start:.2f} s of CPU", "1 s"
    )


def predicted_months() -> Iterator[tuple[str, TripModel, RowTimes]]:
    """Yield each month, with its January's model and that model's predictions of its rows."""
    for train_month, months in MONTHS.items():
        train, valid = load(train_month), load(months[0])
        model = fit_booster(train, valid)
        for month in months:
            yield month, model, predict_rows_of(model, month)


def predict_rows_of(model: TripModel, month: str) -> RowTimes:
    """Predict every row of a real month that can be predicted."""
    (batch,) = pq.read_table(DATA / f"green_tripdata_{month}.parquet").combine_chunks().to_batches()
    prepared = scoring.prepare_batch(batch, taxi="green", month=month)
    predicted = np.full(batch.num_rows, np.nan)
    trips = read_frame(scoring.request_frame(prepared, "green"), "green")
    predicted[prepared.predictable] = model.predict(trips)
    return row_times(prepared, predicted)


def followed(month: str, model: TripModel, rows: RowTimes, settings: FeedSettings | None) -> float:
    """Return the RMSE of a month's eligible trips, minutes, with a feed, or without if None."""
    factor = np.ones(len(rows.counts))
    if settings:
        position = model.encoder.tables.position  # type: ignore[attr-defined]
        new = live.new_state("green", "bench", np.datetime64(0, "m"), position)
        factor = LiveFeed(settings, None, new).follow(month, [rows])
    error = rows.trips.predicted * factor - rows.trips.minutes
    return rmse(error[rows.counts])
