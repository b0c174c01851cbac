"""Simulated files of each taxi: where it mostly starts, its dirt, and the TLC's columns."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from .schema import input_names, raw_columns

# kinds of spoilt rows and their share of all rows; a row is spoilt in one way at most. The shares
# of cabs are those of real green months, the others are guesses
DIRT = {
    "short": 0.024,  # cancelled within a minute, mostly with no distance
    "no distance": 0.030,  # a real trip whose meter recorded none
    "running": 0.0025,  # meter left running, up to 23 h and more
    "absurd": 0.0006,  # up to 180,000 miles
    "other month": 0.0004,  # the clock was wrong
    "unknown zone": 0.008,
}
# an app measures the distance and the end of a ride by phone; many go to New Jersey
APP_DIRT = {
    "short": 0.004,
    "no distance": 0.001,
    "running": 0.0005,
    "absurd": 0.0001,
    "other month": 0.0,
    "unknown zone": 0.03,
}
SERVICE_DIRT = APP_DIRT | {"short": 0.01, "running": 0.02, "other month": 0.0004}
# what the driver's terminal reports: the values of a column and their shares
DETAILS = {
    "RatecodeID": ((1.0, 2.0, 3.0, 4.0, 5.0), (0.964, 0.003, 0.001, 0.001, 0.031)),
    "passenger_count": ((0.0, 1.0, 2.0, 3.0, 5.0, 6.0), (0.006, 0.852, 0.08, 0.02, 0.026, 0.016)),
    "payment_type": ((1.0, 2.0, 3.0, 4.0), (0.64, 0.35, 0.008, 0.002)),
    "trip_type": ((1.0, 2.0), (0.971, 0.029)),
    "congestion_surcharge": ((0.0, 2.75), (0.735, 0.265)),
}
NO_DETAILS_SHARE = 0.06  # share of rows without passenger_count, RatecodeID, trip_type, ...
FORWARDED_SHARE = 0.0035  # share of rows kept on board before they were sent
REFUNDED_SHARE = 0.0028  # share of rows with negative money
# of the app rides, and of those that ask for it
SHARED_REQUESTED_SHARE, SHARED_MATCHED_SHARE = 0.02, 0.6
DETOUR, STOP_SECONDS = 1.35, 180  # a shared ride takes so many times as long, plus a stop
INCONSISTENT_SHARE = 0.001  # of app rides: state other seconds than those between their times
UBER_SHARE = 0.73  # share of the app rides
ACCESSIBLE_SHARE = 0.06  # share of the app rides in a wheelchair-accessible car
NO_PICKUP_ZONE, NO_DROPOFF_ZONE = 0.835, 0.13  # of the car services: the course's fhv 2021-01
SERVICE_SHARED = 0.002  # share of their rides that say they were shared


class Rides(NamedTuple):
    """Trips being made, n rows each."""

    pickup_at: np.ndarray  # int64, seconds since 1970 in New York time
    seconds: np.ndarray  # int64
    pickup_zone: np.ndarray  # int32, 1..265
    dropoff_zone: np.ndarray  # int32
    miles: np.ndarray  # float64, as metered


class SimulatedTaxi(NamedTuple):
    """How the simulated files of a taxi are made."""

    centre: tuple[float, float]  # where its rides mostly begin, miles
    dirt: Mapping[str, float]  # kind of DIRT -> share of all rows
    schema: pa.Schema
    columns: Callable[[Rides, np.random.Generator], dict[str, pa.Array]]


def _cab_schema(taxi: str) -> pa.Schema:
    """List the columns of a cab's file: the TLC's green ones of 2023, times named for the taxi.

    Source: the TLC's file of 2023-02; yellow files differ a little in columns that are not read.
    """
    pickup_at, dropoff_at = (column.name for column in raw_columns(taxi)[:2])
    types = {"VendorID": pa.int32()} | dict.fromkeys([pickup_at, dropoff_at], pa.timestamp("us"))
    types |= {"store_and_fwd_flag": pa.string(), "RatecodeID": pa.float64()}
    types |= dict.fromkeys(["PULocationID", "DOLocationID"], pa.int32())
    rest = "passenger_count trip_distance fare_amount extra mta_tax tip_amount tolls_amount"
    rest += " ehail_fee improvement_surcharge total_amount payment_type trip_type"
    types |= dict.fromkeys([*rest.split(), "congestion_surcharge"], pa.float64())
    return pa.schema(list(types.items()))


def _app_schema() -> pa.Schema:
    """List the columns of a file of app rides. Source: the TLC's file of 2024-01."""
    texts = "hvfhs_license_num dispatching_base_num originating_base_num"
    times = "request_datetime on_scene_datetime pickup_datetime dropoff_datetime"
    money = "base_passenger_fare tolls bcf sales_tax congestion_surcharge airport_fee tips"
    flags = "shared_request_flag shared_match_flag access_a_ride_flag wav_request_flag"
    types = dict.fromkeys(texts.split(), pa.string())
    types |= dict.fromkeys(times.split(), pa.timestamp("us"))
    types |= dict.fromkeys(["PULocationID", "DOLocationID"], pa.int32())
    types |= {"trip_miles": pa.float64(), "trip_time": pa.int64()}
    types |= dict.fromkeys([*money.split(), "driver_pay"], pa.float64())
    return pa.schema(
        list((types | dict.fromkeys([*flags.split(), "wav_match_flag"], pa.string())).items())
    )


def _service_schema() -> pa.Schema:
    """List the columns of a file of car services. Source: the TLC's file of 2021-01."""
    types = {"dispatching_base_num": pa.string(), "pickup_datetime": pa.timestamp("us")}
    types |= {"dropOff_datetime": pa.timestamp("us")}
    types |= dict.fromkeys(["PUlocationID", "DOlocationID", "SR_Flag"], pa.float64())
    return pa.schema([*types.items(), ("Affiliated_base_number", pa.string())])


def _cab(rides: Rides, rng: np.random.Generator, *, taxi: str) -> dict[str, pa.Array]:
    return _movement(rides, taxi) | _money(rides, rng) | _details(len(rides.miles), rng)


def _movement(rides: Rides, taxi: str) -> dict[str, pa.Array]:
    """Write when and where the rides went, and how far."""
    names = {column.role: column.name for column in raw_columns(taxi)}
    columns = {
        names["pickup_at"]: _times(rides.pickup_at),
        names["dropoff_at"]: _times(rides.pickup_at + rides.seconds),
        names["pickup_zone"]: _array(rides.pickup_zone),
        names["dropoff_zone"]: _array(rides.dropoff_zone),
    }
    if miles := input_names(taxi).get("distance_miles"):
        columns[miles] = _array(np.round(rides.miles, 2))
    return columns


def _app_ride(rides: Rides, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Write rides of an app, some of them shared, with all columns of their files."""
    n = len(rides.miles)
    shared_requested = rng.random(n) < SHARED_REQUESTED_SHARE
    shared_matched = shared_requested & (rng.random(n) < SHARED_MATCHED_SHARE)
    longer = (DETOUR * rides.seconds).astype(np.int64) + STOP_SECONDS
    rides = rides._replace(seconds=np.where(shared_matched, longer, rides.seconds))
    stated = rides.seconds * np.where(
        rng.random(n) < INCONSISTENT_SHARE, rng.uniform(2.0, 5.0, n), 1.0
    )
    drive_to_rider = (60 * rng.gamma(2.0, 2.2, n)).astype(np.int64)
    wait_on_scene = (60 * rng.exponential(1.0, n)).astype(np.int64)
    is_uber, has_ramp = rng.random(n) < UBER_SHARE, rng.random(n) < ACCESSIBLE_SHARE
    base = _texts(("B03406", "B03404"), is_uber)
    flags = {
        "shared_request_flag": shared_requested,
        "shared_match_flag": shared_matched,
        "access_a_ride_flag": np.zeros(n, bool),
        "wav_request_flag": has_ramp & (rng.random(n) < 0.05),
        "wav_match_flag": has_ramp,
    }
    return {
        "hvfhs_license_num": _texts(("HV0005", "HV0003"), is_uber),
        "dispatching_base_num": base,
        "originating_base_num": base,
        "request_datetime": _times(rides.pickup_at - drive_to_rider - wait_on_scene),
        "on_scene_datetime": _times(rides.pickup_at - wait_on_scene, ~is_uber),
        **_movement(rides, "fhvhv"),
        "trip_time": _array(stated.astype(np.int64)),
        **_app_money(rides, rng),
        **{name: _texts(("N", "Y"), values) for name, values in flags.items()},
    }


def _app_money(rides: Rides, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Price rides of an app in dollars."""
    n = len(rides.miles)
    fare = 3.0 + 1.9 * np.minimum(rides.miles, 60.0) + 0.01 * np.minimum(rides.seconds, 7200)
    amounts = {
        "base_passenger_fare": fare,
        "tolls": np.where(rng.random(n) < np.minimum(rides.miles, 20) / 120, 6.94, 0.0),
        "bcf": 0.0275 * fare,
        "sales_tax": 0.08875 * fare,
        "congestion_surcharge": np.where(rng.random(n) < 0.4, 2.75, 0.0),
        "airport_fee": np.where(rng.random(n) < 0.08, 2.5, 0.0),
        "tips": np.where(rng.random(n) < 0.2, 0.2 * fare, 0.0),
        "driver_pay": 0.78 * fare,
    }
    return {name: _array(np.round(values, 2)) for name, values in amounts.items()}


def _service_ride(rides: Rides, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Write rides of car services, most of which lack a pickup zone."""
    n = len(rides.miles)
    shares = {"PUlocationID": NO_PICKUP_ZONE, "DOlocationID": NO_DROPOFF_ZONE}
    zones = (rides.pickup_zone, rides.dropoff_zone)
    base = _texts(("B00009", "B02510"), rng.random(n) < 0.5)
    return {
        "dispatching_base_num": base,
        **_movement(rides, "fhv"),
        **{
            name: _array(zone.astype(np.float64), rng.random(n) < share)
            for (name, share), zone in zip(shares.items(), zones, strict=True)
        },
        "SR_Flag": _array(np.ones(n), rng.random(n) >= SERVICE_SHARED),
        "Affiliated_base_number": base,
    }


def _money(rides: Rides, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Price the rides in dollars; a refund is the same ride with every amount negative."""
    n = len(rides.miles)
    minutes = np.minimum(rides.seconds / 60.0, 120.0)
    sign = np.where(rng.random(n) < REFUNDED_SHARE, -1.0, 1.0)
    fare = 3.0 + 2.2 * np.minimum(rides.miles, 60.0) + 0.25 * minutes
    amounts = {
        "fare_amount": np.round(fare, 1),
        "extra": rng.choice([0.0, 1.0, 2.5, 5.0], n, p=[0.6, 0.18, 0.2, 0.02]),
        "mta_tax": np.where(rng.random(n) < 0.9, 0.5, 0.0),
        "tip_amount": np.where((rng.random(n) < 0.58) & (sign > 0), np.round(0.2 * fare, 2), 0.0),
        "tolls_amount": np.where(rng.random(n) < np.minimum(rides.miles, 20) / 120, 6.55, 0.0),
        "improvement_surcharge": np.full(n, 1.0),
    }
    amounts = {name: sign * values + 0.0 for name, values in amounts.items()}
    amounts["total_amount"] = np.round(sum(amounts.values(), np.zeros(n)), 2)
    return {name: _array(values) for name, values in amounts.items()}


def _details(n: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Draw what the driver's terminal reports, all of it missing together in some rows."""
    missing = rng.random(n) < NO_DETAILS_SHARE
    columns = {
        name: _array(rng.choice(values, n, p=shares), missing)
        for name, (values, shares) in DETAILS.items()
    }
    letters = np.where(rng.random(n) < FORWARDED_SHARE, ord("Y"), ord("N")).astype(np.uint8)
    ends = np.arange(n + 1, dtype=np.int32)
    flags = pa.StringArray.from_buffers(n, *map(pa.py_buffer, (ends, letters)), _valid(missing))
    vendor = _array(np.where(rng.random(n) < 0.87, 2, 1).astype(np.int32))
    fee = pa.nulls(n, pa.float64())
    return columns | {"store_and_fwd_flag": flags, "VendorID": vendor, "ehail_fee": fee}


def _times(seconds: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    return _array(seconds.astype("M8[s]").astype("M8[us]"), missing)


def _texts(words: tuple[str, str], is_second: np.ndarray) -> pa.Array:
    """Write one of two words of equal length in each row."""
    size, n = len(words[0]), len(is_second)
    letters = np.array([word.encode() for word in words])[is_second.astype(int)]
    ends = np.arange(0, size * (n + 1), size, dtype=np.int32)
    return pa.StringArray.from_buffers(n, *map(pa.py_buffer, (ends, letters.tobytes())))


def _array(values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    # pa.array would import pandas, which takes longer than simulating a month
    valid = None if missing is None else _valid(missing)
    data = pa.py_buffer(values.view(np.uint8))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [valid, data])


def _valid(missing: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(~missing, bitorder="little"))


SIMULATED_TAXIS: Mapping[str, SimulatedTaxi] = {
    "green": SimulatedTaxi((1.0, 4.2), DIRT, _cab_schema("green"), partial(_cab, taxi="green")),
    "yellow": SimulatedTaxi((0.0, -1.0), DIRT, _cab_schema("yellow"), partial(_cab, taxi="yellow")),
    "fhvhv": SimulatedTaxi((1.5, -1.0), APP_DIRT, _app_schema(), _app_ride),
    "fhv": SimulatedTaxi((3.0, 0.0), SERVICE_DIRT, _service_schema(), _service_ride),
}
