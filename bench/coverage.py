"""Share of trips between p10 and p90, in a month that neither the model nor its spread has seen."""

from collections.abc import Iterator
from functools import partial
from time import process_time

import numpy as np

from bench import Result
from bench.search_rows import join_trips
from bench.serving import load
from steps.score.feed import FeedSettings, LiveFeed, RowTimes
from taxi import features, live, spaces
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.coverage import HIGH, LOW, GroupCoverage, coverage_by_group
from taxi.fitting import fit_boosters, train_locally
from taxi.live import EndedTrips
from taxi.model import TripModel
from taxi.recipes import WEIGHT_WITHOUT_DISTANCE, Member, Recipe
from taxi.rows import Rows, rows_with_distance, rows_without_distance
from taxi.schema import Trips
from taxi.spread import Calibration, fit_spread
from taxi.words import percent
from taxi.zones import fit_zone_tables

# months to fit on, to calibrate on and to measure on; of 2022 there is no third month
MONTHS = (
    ("2020-10", "2020-11", "2020-12"),
    ("2020-11", "2020-12", "2021-01"),
    ("2020-12", "2021-01", "2021-02"),
    ("2023-01", "2023-02", "2023-03"),
)
MIN_SHARE = 0.02  # of all trips: smaller groups are not shown
SEED = 1
TRAIN = partial(train_locally, n_threads=1)
FEED = FeedSettings("feed", 15)
N_SINGLE = 200


def measure() -> Iterator[Result]:
    """Fit on a month, calibrate on the next, refit on both, and measure on the third."""
    for months in MONTHS:
        train, valid, test = map(load, months)
        chosen, refitted = fit_both(train, valid)
        answers = chosen.predict(valid), chosen.predict(valid.without_distance())
        start = process_time()
        calibration = Calibration(valid, *answers)
        spread = fit_spread(calibration)
        seconds = process_time() - start
        if not spread:
            raise RuntimeError(f"{months[1]} holds too few trips")
        without, predicted = test.without_distance(), refitted.predict(test)
        level = follow(months[2], join_trips([train, valid]), test, predicted)
        for what, trips, minutes in (
            (months[2], test, predicted),
            (f"{months[2]} at the live level, {FEED}", test, predicted * level),
            (f"{months[2]} without any distance", without, refitted.predict(without)),
        ):
            low, high = spread.quantiles(trips, minutes, (LOW, HIGH)).T
            yield from report(what, coverage_by_group(trips, low, high))
        one, minutes = test.take(np.arange(1)), predicted[:1]
        start = process_time()
        for _ in range(N_SINGLE):
            spread.quantiles(one, minutes, (LOW, 0.5, HIGH))
        single = (process_time() - start) / N_SINGLE
        yield Result(
            f"{months[1]}: CPU of three quantiles of a row", f"{single * 1e3:.2f} ms", "1 ms"
        )
        yield Result(f"{months[1]}: CPU to fit on {len(valid):,} trips", f"{seconds:.1f} s", "3 s")


def follow(month: str, fitted: Trips, trips: Trips, predicted: np.ndarray) -> np.ndarray:
    """Return the live level for each of n trips of a month, a factor, [n].

    Args:
        month: YYYY-MM.
        fitted: the trips that the model was fitted to.
        trips: n trips.
        predicted: [n] minutes.
    """
    took = (trips.trip_minutes * 60e6).astype("timedelta64[us]")
    zones = trips.pickup_zone, trips.dropoff_zone
    ended = EndedTrips(trips.pickup_at, trips.pickup_at + took, *zones, predicted)
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
        f"{percent(overall.coverage)} ({percent(overall.below)}, {percent(overall.above)}), "
        f"{overall.width:.2f} min",
        "78 % to 82 %",
    )
    yield Result(
        f"{what}: least and most in {len(shown)} groups of {percent(MIN_SHARE, 0)} of the trips",
        " to ".join(f"{percent(end.coverage)} ({end.kind} {end.group})" for end in (low, high)),
        "78 % to 82 %",
    )
    far = sum(abs(group.coverage - 0.8) > 0.02 for group in shown)
    yield Result(f"{what}: groups outside 78 % to 82 %", f"{far} of {len(shown)}", "0")


def fit_both(train: Trips, valid: Trips) -> tuple[TripModel, TripModel]:
    """Fit the search's first point to train, and refit it to train and valid, as a run does."""
    encoder, both = features.fit_encoder("full", train), join_trips([train, valid])
    members = (Member(parameters(), n_rounds(rows_with_distance(encoder, train, valid))),)
    without_distance = (
        Member(parameters(), n_rounds(rows_without_distance(encoder, train, valid))),
    )
    chosen = Recipe(
        "full",
        SEED,
        members=members,
        members_without_distance=without_distance,
        weight_without_distance=WEIGHT_WITHOUT_DISTANCE,
    )
    again = chosen.for_refit(len(both))
    return (
        fit_boosters(chosen, train, "green", encoder, TRAIN),
        fit_boosters(again, both, "green", features.fit_encoder("full", both), TRAIN),
    )


def n_rounds(rows: Rows) -> int:
    """Return the number of rounds that is best on valid."""
    space = spaces.select_space("lossguide")
    job = TrainingJob(parameters(), space.rounds, space.patience, keep_booster=False)
    return train_booster(build_matrices(rows), job).best_round + 1


def parameters() -> dict[str, object]:
    """Return the search's first point."""
    space = spaces.select_space("lossguide")
    return {**space.fixed, **space.parameters(0, space.first[0]), "nthread": 1, "seed": SEED}
