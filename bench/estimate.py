"""How close the RMSE estimated without drop-offs is to the RMSE measured with them.

Simulated months: one booster fitted on 2021-01, whose losses are measured on 2021-02, and the
twelve months from 2021-03 on. Three of them drift: two in the trips that are asked about, which an
estimate can see, and one in how long they take, which no estimate can.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from bench import Result
from bench.serving import load
from taxi import features, schema, spaces
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.cleaning import clean
from taxi.expected_loss import EstimatedRmse, estimate_rmse
from taxi.model import TripModel
from taxi.rows import make_rows
from taxi.schema import MAX_MINUTES, Trips, clean_miles
from taxi.scores import rmse
from taxi.simulation import month_batches
from taxi.spread import Calibration, Spread, fit_spread
from taxi.words import percent

N_TRIPS, SEED = 30_000, 42
RATE = 0.15  # of the one booster
NEAR = 0.1  # an estimate this close to the true RMSE, as a share of it, counts as good
MONTHS = [f"2021-{month:02}" for month in range(3, 13)] + ["2022-01", "2022-02"]
# months to fit on, to measure losses on, and to estimate
REAL = (
    ("2020-10", "2020-11", ("2020-12", "2021-01", "2021-02")),
    ("2021-01", "2021-02", ("2022-01", "2022-02", "2023-01", "2023-02", "2023-03")),
    ("2022-01", "2022-02", ("2023-01", "2023-02", "2023-03")),
    ("2023-01", "2023-02", ("2023-03",)),
)


def longer(trips: Trips) -> Trips:
    """Make trips of more than 4 miles four times as frequent."""
    far = np.nan_to_num(clean_miles(trips)) > 4
    share = np.where(far, 4.0, 1.0) / (len(trips) + 3 * far.sum())
    return trips.take(np.random.default_rng(SEED).choice(len(trips), len(trips), p=share))


def without_distance(trips: Trips) -> Trips:
    """Take away the distance of four trips in ten."""
    missing = np.random.default_rng(SEED).random(len(trips)) < 0.4
    return replace(trips, distance_miles=np.where(missing, np.nan, trips.distance_miles))


def slower(trips: Trips) -> Trips:
    """Make every trip a fifth longer in time, which nobody can know at pickup."""
    late = replace(trips, trip_minutes=1.2 * trips.trip_minutes)
    return late.take(late.trip_minutes <= MAX_MINUTES)


DRIFTED: dict[str, tuple[str, Callable[[Trips], Trips]]] = {
    "2021-06": (", four times the long trips", longer),
    "2021-09": (", no distance of four in ten", without_distance),
    "2021-12": (", all a fifth slower", slower),
}


def measure() -> Iterator[Result]:
    """Estimate the RMSE of simulated and real months, each beside the true one."""
    model, spread = fit(simulate("2021-01"), simulate("2021-02"))
    found = []
    for month in MONTHS:
        kind, drift = DRIFTED.get(month, ("", lambda trips: trips))
        found.append(judge(model, spread, drift(simulate(month))))
        yield report(f"simulated {month}{kind}", *found[-1])
    yield from conclude("simulated", found, must="11 of 12")
    real = []
    for train, valid, months in REAL:
        model, spread = fit(load(train), load(valid))
        for month in months:
            real.append(judge(model, spread, load(month)))
            yield report(f"real {month}, fitted on {train}, losses of {valid}", *real[-1])
    yield from conclude("real", real, must="")


def simulate(month: str, n_trips: int = N_TRIPS) -> Trips:
    """Simulate a month of n_trips raw trips, and clean it."""
    batches = month_batches(month, n_trips, SEED)
    kept = [clean(batch, taxi="green", month=month).trips for batch in batches]
    return schema.to_trips(pa.Table.from_batches(kept))


def fit(train: Trips, valid: Trips) -> tuple[TripModel, Spread]:
    """Train one booster on a month, and measure its losses on the next."""
    model = fit_booster(train, valid)
    answers = model.predict(valid), model.predict(valid.without_distance())
    if not (spread := fit_spread(Calibration(valid, *answers))):
        raise RuntimeError("valid holds too few trips")
    return model, spread


def fit_booster(train: Trips, valid: Trips) -> TripModel:
    """Train one booster at the search's first point, with early stopping on valid."""
    encoder, space = features.fit_encoder("full", train), spaces.select_space("lossguide")
    point = space.parameters(0, space.first[0])
    parameters = {**space.fixed, **point, "learning_rate": RATE, "nthread": 1, "seed": SEED}
    rows = make_rows(encoder, train, valid)._replace(max_bin=space.max_bin)
    job = TrainingJob(parameters, space.rounds, space.patience, keep_booster=True)
    return TripModel("green", encoder, [train_booster(build_matrices(rows), job).booster])


def judge(model: TripModel, spread: Spread, trips: Trips) -> tuple[float, EstimatedRmse]:
    """Return a month's RMSE, and its estimate without drop-offs."""
    predicted, losses = model.predict(trips), spread.losses()
    if losses is None:
        raise RuntimeError("the spread has no losses")
    counts = np.bincount(spread.find_leaves(trips, predicted), minlength=len(losses))
    estimated = estimate_rmse(counts, losses)
    if estimated is None:
        raise RuntimeError("the month has no trips")
    return rmse(predicted - trips.trip_minutes), estimated


def report(what: str, true: float, estimated: EstimatedRmse) -> Result:
    """Show one month."""
    off = estimated.value / true - 1
    return Result(
        f"{what}: RMSE", f"{true:.3f} min, estimated {estimated}, {percent(off, sign='+')}", "10 %"
    )


def conclude(kind: str, found: list[tuple[float, EstimatedRmse]], *, must: str) -> Iterator[Result]:
    """Count how many months were estimated well."""
    near = sum(abs(told.value / true - 1) <= NEAR for true, told in found)
    held = sum(told.low <= true <= told.high for true, told in found)
    yield Result(f"{kind} months told within {percent(NEAR, 0)}", f"{near} of {len(found)}", must)
    yield Result(f"{kind} months whose 95 % interval holds the RMSE", f"{held} of {len(found)}", "")
