"""Simulated months of taxi trips: a made-up city whose files look like the TLC's, dirt included."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from . import TripError
from .city import City, make_city
from .schema import select_taxi
from .simulated_files import SIMULATED_TAXIS, Rides, SimulatedTaxi

N_PLACED = 263  # zones 1 to 263 have a place; 264 and 265 mean "unknown"

# centre east and north, spread east and north, radius of a zone (all miles), number of zones
BOROUGHS = np.array(
    [  # loosely New York: (0, 0) is the middle of Manhattan
        (0.0, 0.0, 0.9, 3.4, 0.28, 69),  # Manhattan, long and narrow
        (2.8, 7.2, 1.8, 1.7, 0.42, 43),  # Bronx
        (8.0, 0.0, 3.6, 2.8, 0.60, 70),  # Queens
        (2.6, -7.0, 2.2, 2.4, 0.48, 61),  # Brooklyn
        (-7.0, -12.0, 2.4, 2.4, 0.90, 20),  # Staten Island
    ]
)
BOROUGH_NAMES = ("Manhattan", "Bronx", "Queens", "Brooklyn", "Staten Island")
HUB_MILES = 4.0  # distance from a taxi's hub that lowers a zone's busyness by one sd of its noise
PICKUP_RANKS = (3.5, -1.18)  # share of the zone of rank 0, 1, ...: (rank + first) ** second
DROPOFF_RANKS = (6.0, -0.65)
DECAY_MILES = (1.1, 9.0)  # decay lengths of near and of far trips
FAR_WEIGHT = 0.065  # of far trips against near ones, at distance 0
PAIR_SHARE_LOG_SD = 1.1  # log-sd of a pair's own share
ROAD_FACTOR = 1.30  # metered over straight miles
ROAD_SPREAD = (0.12, 0.08)  # its log-sd between pairs, and between trips of a pair
SLOW_CENTRE = (0.25, 4.0)  # log of how much slower the very centre is, and its reach in miles
SLOW_SPREAD = (0.10, 0.06)  # log-sd of slowness between zones, and between pairs

# speed of an ordinary daytime trip by its length: long trips take the fast roads
SPEED_MILES = (0.0, 1.0, 3.0, 5.0, 7.0, 10.0, 16.0, 25.0)  # miles
SPEED_MPH = (10.5, 11.5, 13.0, 16.5, 20.0, 23.0, 27.0, 33.0)  # miles per hour
OVERHEAD_MINUTES = 0.6  # getting in, getting out
NOISE = 0.27  # log-sd of a trip's minutes that is unpredictable
# speed at each full hour of a weekday, relative to an ordinary hour
AM_SPEED = [1.30, 1.30, 1.34, 1.42, 1.50, 1.50, 1.28, 1.04, 0.94, 0.98, 1.00, 0.98]
PM_SPEED = [0.97, 0.93, 0.87, 0.84, 0.83, 0.85, 0.92, 1.04, 1.12, 1.17, 1.21, 1.26]
# pickups in each hour of a day and on each day from Monday, per cent
AM_SHARE = [1.5, 1.0, 0.8, 0.7, 0.6, 0.7, 1.6, 3.9, 5.3, 6.1, 6.1, 6.0]
PM_SHARE = [6.0, 6.4, 6.7, 7.1, 7.6, 7.2, 6.9, 5.5, 4.3, 3.2, 2.7, 2.1]
DAY_SHARE = np.array([13.5, 14.5, 16.0, 16.5, 16.5, 12.5, 10.5])
DISORDER_SECONDS = 600.0  # rows of a real file are in time order only to within some minutes

ABSURD_MILES = (300.0, 180_000.0)  # least and most, evenly spread in their logarithm


class SimulatedCity(NamedTuple):
    """What stays the same from month to month; zones are 0-based here."""

    place: np.ndarray  # float64 (N_PLACED, 2), miles east and north
    radius: np.ndarray  # float64 (N_PLACED,), miles
    pair_cdf: np.ndarray  # float64 (N_PLACED**2,), cumulated share of pickup * N_PLACED + dropoff
    road_factor: np.ndarray  # float64 (N_PLACED**2,), metered over straight miles
    slowness: np.ndarray  # float64 (N_PLACED**2,), minutes over those of an ordinary area


def month_batches(
    month: str, n_trips: int, seed: int, *, taxi: str = "green", batch_rows: int = 131_072
) -> Iterator[pa.RecordBatch]:
    """Simulate one month of trips, as dirty as the TLC's own files.

    The city depends on seed only, so months of one seed share it. The same arguments give the same
    rows; another batch_rows gives other rows of the same city.

    Args:
        month: YYYY-MM.
        n_trips: rows in all; memory does not grow with it.
        seed: 0 or more.
        taxi: key of schema.TAXIS; decides the columns, their dirt and where most trips start.
        batch_rows: rows per batch; the last one may be shorter.
    Returns:
        Batches of the columns of SIMULATED_TAXIS[taxi], pickups roughly in time order.
    Raises:
        TripError: an argument is out of range; raised at the call, not at the first batch.
    Source: rounded statistics of the TLC green months 2021-01..02 and 2023-01..03.
    """
    select_taxi(taxi)
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise TripError(f"Month {month!r} is not a month. Write it as YYYY-MM, e.g. 2021-01.")
    counts = {"n_trips": (n_trips, 1), "batch_rows": (batch_rows, 1), "seed": (seed, 0)}
    for name, (value, minimum) in counts.items():
        if value < minimum:
            raise TripError(f"{name} is {value}. Choose {minimum} or more.")
    return _batches(month, n_trips, seed, SIMULATED_TAXIS[taxi], batch_rows)


def _batches(
    month: str, n_trips: int, seed: int, simulated_taxi: SimulatedTaxi, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    city, schema = _build_city(seed, simulated_taxi), simulated_taxi.schema
    year, number = (int(part) for part in month.split("-"))
    for k, start in enumerate(range(0, n_trips, batch_rows)):
        rng = np.random.default_rng([seed, year * 12 + number, k])
        n_rows = min(batch_rows, n_trips - start)
        ranks = (start + np.arange(n_rows) + 0.5) / n_trips
        rides = _spoil(_drive(city, _pickups(month, ranks, rng), rng), simulated_taxi.dirt, rng)
        columns = simulated_taxi.columns(rides, rng)
        yield pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def simulated_zones(seed: int) -> City:
    """Describe the zones of the months simulated with a seed, as the TLC describes its own.

    Args:
        seed: 0 or more, that of month_batches.
    """
    borough, place, radius = _place_zones(np.random.default_rng([seed, 0]))
    names = [BOROUGH_NAMES[number] for number in borough]
    rows = {
        zone: {
            "name": f"{name} {zone}",
            "borough": name,
            "service_zone": "Yellow Zone" if name == "Manhattan" else "Boro Zone",
        }
        for zone, name in enumerate(names, start=1)
    }
    angles = np.radians(np.arange(0, 361, 30))  # zones are drawn as circles
    rings = place[:, None] + radius[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    outlines = {zone: [ring] for zone, ring in enumerate(rings, start=1)}
    return make_city(rows, dict(enumerate(place, start=1)), outlines)


def _place_zones(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw each zone's borough, [z], its place, [z, 2] miles, and its radius, [z] miles."""
    numbers = np.repeat(np.arange(len(BOROUGHS)), BOROUGHS[:, 5].astype(int))
    number = numbers[rng.permutation(N_PLACED)]
    borough = BOROUGHS[number]
    place = rng.normal(borough[:, 0:2], borough[:, 2:4])
    return number, place, borough[:, 4] * rng.lognormal(0.0, 0.2, N_PLACED)


def _build_city(seed: int, simulated_taxi: SimulatedTaxi) -> SimulatedCity:
    rng = np.random.default_rng([seed, 0])
    _, place, radius = _place_zones(rng)
    straight = np.hypot(*(place[:, None, :] - place[None, :, :]).transpose(2, 0, 1))
    centrality = np.exp(-np.sum((place / SLOW_CENTRE[1]) ** 2, axis=1))
    slow = SLOW_CENTRE[0] * centrality + rng.normal(0.0, SLOW_SPREAD[0], N_PLACED)
    slowness = np.exp((slow[:, None] + slow[None, :]) / 2)
    slowness *= rng.lognormal(0.0, SLOW_SPREAD[1], straight.shape)
    road_factor = ROAD_FACTOR * rng.lognormal(0.0, ROAD_SPREAD[0], straight.shape)
    share = _pair_share(straight, np.hypot(*(place - simulated_taxi.centre).T), rng)
    return SimulatedCity(
        place, radius, np.cumsum(share.ravel()), road_factor.ravel(), slowness.ravel()
    )


def _pair_share(straight: np.ndarray, from_hub: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw each pair's share of the trips, [z, z], larger for busy zones and for near ones."""
    rank = np.argsort(np.argsort(from_hub / HUB_MILES + rng.normal(0.0, 1.0, N_PLACED)))
    pickups, dropoffs = ((rank + a) ** b for a, b in (PICKUP_RANKS, DROPOFF_RANKS))
    near, far = (np.exp(-straight / miles) for miles in DECAY_MILES)
    attraction = (near + FAR_WEIGHT * far) * dropoffs
    attraction *= rng.lognormal(0.0, PAIR_SHARE_LOG_SD, straight.shape)
    attraction /= attraction.sum(axis=1, keepdims=True)
    attraction *= (pickups / pickups.sum())[:, None]
    return attraction


def _pickups(month: str, ranks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spread pickups over the month by the shares of hours and weekdays, roughly by rank (0..1)."""
    first = np.datetime64(month, "M")
    days = np.arange(first.astype("M8[D]"), (first + 1).astype("M8[D]")).astype(np.int64)
    rate = np.outer(DAY_SHARE[(days + 3) % 7], AM_SHARE + PM_SHARE).ravel()  # day 0 was a Thursday
    cdf = np.concatenate([[0.0], np.cumsum(rate) / rate.sum()])
    seconds = np.interp(ranks, cdf, 3600.0 * np.arange(len(cdf)))
    seconds += rng.normal(0.0, DISORDER_SECONDS, len(ranks))
    last = len(rate) * 3600 - 1
    seconds = last - np.abs(last - np.abs(seconds))  # pickups beyond an end are mirrored back
    pickup_at: np.ndarray = days[0] * 86_400 + seconds.astype(np.int64)
    return pickup_at


def _drive(city: SimulatedCity, pickup_at: np.ndarray, rng: np.random.Generator) -> Rides:
    n = len(pickup_at)
    pair = np.searchsorted(city.pair_cdf[:-1], rng.random(n), side="right")
    start, end = np.divmod(pair, N_PLACED)
    spread = np.hypot(city.radius[start], city.radius[end])
    east, north = (city.place[end] - city.place[start]).T
    east, north = east + spread * rng.standard_normal(n), north + spread * rng.standard_normal(n)
    miles = city.road_factor[pair] * np.hypot(east, north) * rng.lognormal(0.0, ROAD_SPREAD[1], n)
    speed = np.interp(miles, SPEED_MILES, SPEED_MPH) * _hour_speed(pickup_at)
    minutes = OVERHEAD_MINUTES + 60.0 * miles / speed * city.slowness[pair]
    seconds = (60.0 * minutes * rng.lognormal(0.0, NOISE, n)).astype(np.int64)
    zones = (start + 1).astype(np.int32), (end + 1).astype(np.int32)
    return Rides(pickup_at, seconds, *zones, np.maximum(miles, 0.01))


def _hour_speed(pickup_at: np.ndarray) -> np.ndarray:
    """Compute the speed relative to an ordinary hour, [n]; weekends have no rush hour."""
    workday = np.array(AM_SPEED + PM_SPEED)
    week = np.concatenate([np.tile(workday, 5), np.tile(1.06 * (0.4 + 0.6 * workday), 2)])
    hours = (pickup_at / 3600.0 + 72.0) % 168.0  # since Monday 0:00
    speed: np.ndarray = np.interp(hours, np.arange(168), week, period=168.0)
    return speed


def _spoil(rides: Rides, dirt: Mapping[str, float], rng: np.random.Generator) -> Rides:
    """Spoil a few rows, each in one way of `dirt`: kind -> share of the rows."""
    n = len(rides.miles)
    kind = np.searchsorted(np.cumsum(list(dirt.values())), rng.random(n), side="right")
    rows = {name: np.flatnonzero(kind == i) for i, name in enumerate(dirt)}
    pickup_at, seconds, start, end, miles = (values.copy() for values in rides)
    cancelled, wrong, lost = rows["short"], rows["other month"], rows["unknown zone"]
    pickup_at[wrong] -= rng.choice([31, 365, 5_100], len(wrong)) * 86_400
    seconds[cancelled] = 60 * rng.random(len(cancelled)) ** 1.4  # early ones are more likely
    running = rows["running"]  # most are stopped by the system just before a day is over
    seconds[running] = 3600 * rng.uniform(rng.choice([23, 23, 23, 1], len(running)), 24.0)
    same_zone = cancelled[rng.random(len(cancelled)) < 0.7]
    end[same_zone] = start[same_zone]
    end[lost] = rng.choice([264, 265], len(lost))
    start[lost[::3]] = end[lost[::3]]
    miles[cancelled] = 0.2 * np.maximum(rng.random(len(cancelled)) - 0.63, 0.0)
    miles[rows["no distance"]] = 0.0
    minimum, maximum = np.log(ABSURD_MILES)
    miles[rows["absurd"]] = np.exp(rng.uniform(minimum, maximum, len(rows["absurd"])))
    return Rides(pickup_at, seconds, start, end, miles)
