"""What p10 to p90 hold of the trips of a month that neither model nor spread has seen."""

from collections.abc import Iterator
from time import process_time
from typing import NamedTuple

import numpy as np
import xgboost as xgb

from bench import Result
from bench.serving import load
from steps.score.feed import FeedSettings, LiveFeed, RowTimes
from taxi import features, live, spaces
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.coverage import HIGH, LOW, GroupCoverage, coverage_by_group
from taxi.features import Encoder
from taxi.live import Ended
from taxi.rows import make_rows
from taxi.schema import Trips, clean_miles
from taxi.spread import Calibration, fit_spread
from taxi.zones import fit_zone_tables

# fitted, calibrated, measured; the months by the first two of which 2022 is known have no third
MONTHS = (
    ("2020-10", "2020-11", "2020-12"),
    ("2020-11", "2020-12", "2021-01"),
    ("2020-12", "2021-01", "2021-02"),
    ("2023-01", "2023-02", "2023-03"),
)
MORE_ROUNDS = 1.15  # with twice the trips
MIN_SHARE = 0.02  # of the trips, of a group that is shown
RATE = 0.15
FEED = FeedSettings("feed", 15)
N_SINGLE = 200


class Predictions(NamedTuple):
    """What the two boosters say of the same n trips, minutes [n]."""

    planned: np.ndarray
    unplanned: np.ndarray

    def answers(self, trips: Trips) -> np.ndarray:
        """Choose the answer to each trip by whether its distance is known, [n]."""
        return np.where(np.isnan(clean_miles(trips)), self.unplanned, self.planned)


def measure() -> Iterator[Result]:
    """Fit on a month, calibrate on the next, refit on both, and measure on the third."""
    for months in MONTHS:
        train, valid, test = map(load, months)
        on_valid, on_test = predict_both(train, valid, test)
        start = process_time()
        calibration = Calibration(valid, on_valid.answers(valid), on_valid.unplanned)
        spread = fit_spread(calibration)
        seconds = process_time() - start
        if not spread:
            raise RuntimeError(f"{months[1]} holds too few trips")
        without, answers = test.without_distance(), on_test.answers(test)
        level = follow(months[2], concatenate(train, valid), test, answers)
        for what, trips, predicted in (
            (months[2], test, answers),
            (f"{months[2]} at the live level, {FEED}", test, answers * level),
            (f"{months[2]} without any distance", without, on_test.unplanned),
        ):
            low, high = spread.quantiles(trips, predicted, (LOW, HIGH)).T
            yield from report(what, coverage_by_group(trips, low, high))
        one, minutes = test.take(np.arange(1)), on_test.planned[:1]
        start = process_time()
        for _ in range(N_SINGLE):
            spread.quantiles(one, minutes, (LOW, 0.5, HIGH))
        single = (process_time() - start) / N_SINGLE
        yield Result(
            f"{months[1]}: CPU of three quantiles of a row", f"{single * 1e3:.2f} ms", "1 ms"
        )
        yield Result(f"{months[1]}: CPU to fit on {len(valid):,} trips", f"{seconds:.1f} s", "3 s")


def follow(month: str, fitted: Trips, trips: Trips, predicted: np.ndarray) -> np.ndarray:
    """Give the live level at each of n trips of a month, a factor, [n].

    Args:
        month: YYYY-MM.
        fitted: that the model knows.
        trips: n trips.
        predicted: [n] minutes.
    """
    took = (trips.trip_minutes * 60e6).astype("timedelta64[us]")
    zones = trips.pickup_zone, trips.dropoff_zone
    ended = Ended(trips.pickup_at, trips.pickup_at + took, *zones, predicted)
    position = fit_zone_tables(fitted).position
    new = live.new_state("green", "bench", np.datetime64(0, "m"), position)
    rows = RowTimes(ended, np.ones(len(trips), bool))
    return np.nan_to_num(LiveFeed(FEED, None, new).follow(month, [rows]), nan=1.0)


def report(what: str, groups: list[GroupCoverage]) -> Iterator[Result]:
    """Show the coverage of all trips, and the groups where it is lowest and highest."""
    overall = groups[0]
    shown = [group for group in groups[1:] if group.n_trips >= MIN_SHARE * overall.n_trips]
    low, high = (end(shown, key=lambda group: group.coverage) for end in (min, max))
    yield Result(
        f"{what}: within p10 to p90 (shorter, longer), mean width",
        f"{overall.coverage:.1%} ({overall.below:.1%}, {overall.above:.1%}), "
        f"{overall.width:.2f} min",
        "78 % to 82 %",
    )
    yield Result(
        f"{what}: least and most in {len(shown)} groups of {MIN_SHARE:.0%} of the trips",
        " to ".join(f"{end.coverage:.1%} ({end.kind} {end.group})" for end in (low, high)),
        "78 % to 82 %",
    )
    far = sum(abs(group.coverage - 0.8) > 0.02 for group in shown)
    yield Result(f"{what}: groups outside 78 % to 82 %", f"{far} of {len(shown)}", "0")


def predict_both(train: Trips, valid: Trips, test: Trips) -> tuple[Predictions, Predictions]:
    """Predict valid by boosters fitted on train, and test by the same refitted on both."""
    both = concatenate(train, valid)
    on_valid, on_test = [], []
    for left_out in ((), features.OF_OWN_DISTANCE):
        encoder = features.fit_encoder("full", train)
        kept = [place for place, name in enumerate(encoder.names) if name not in left_out]
        booster = fit(encoder, kept, train, valid)
        on_valid.append(booster.inplace_predict(encoder.transform(valid)[:, kept]))
        n_rounds = round(booster.num_boosted_rounds() * MORE_ROUNDS)
        again = features.fit_encoder("full", both)
        rows = xgb.QuantileDMatrix(again.transform_train(both)[:, kept], both.trip_minutes)
        refitted = xgb.train(parameters(), rows, n_rounds)
        on_test.append(refitted.inplace_predict(again.transform(test)[:, kept]))
    return Predictions(*on_valid), Predictions(*on_test)


def fit(encoder: Encoder, kept: list[int], train: Trips, valid: Trips) -> xgb.Booster:
    """Train one booster on some of the columns, stopped by valid."""
    rows = make_rows(encoder, train, valid)
    matrices = build_matrices(rows._replace(train=rows.train[:, kept], valid=rows.valid[:, kept]))
    space = spaces.select_space("lossguide")
    job = TrainingJob(parameters(), space.rounds, space.patience, keep=True)
    booster = train_booster(matrices, job).booster
    if booster is None:
        raise RuntimeError("the job did not keep its booster")
    return booster


def parameters() -> dict[str, object]:
    """Return the search's first point, at a rate that is quick."""
    space = spaces.select_space("lossguide")
    return {**space.fixed, **space.first[0], "learning_rate": RATE, "nthread": 1, "seed": 1}


def concatenate(first: Trips, second: Trips) -> Trips:
    """Put the trips of two months behind each other."""
    names = vars(first)
    return Trips(*(np.concatenate([getattr(first, n), getattr(second, n)]) for n in names))
