import datetime
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Lasso, LinearRegression

from taxi import TripError
from taxi.matching import match_columns
from taxi.schema import TAXIS, raw_columns
from taxi.simulation import BOROUGH_NAMES, month_batches, simulated_zones

N_TRIPS = 30_000
SEED = 42
MONTH = "2021-01"


def make_month(
    month: str = MONTH, n_trips: int = 2_000, seed: int = SEED, **options: object
) -> pa.Table:
    return pa.Table.from_batches(list(month_batches(month, n_trips, seed, **options)))


def column(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()


def trip_minutes(table: pa.Table) -> np.ndarray:
    spent = column(table, "lpep_dropoff_datetime") - column(table, "lpep_pickup_datetime")
    return spent / np.timedelta64(1, "m")


@pytest.fixture(scope="module")
def january() -> pa.Table:
    return make_month(MONTH, N_TRIPS)


@pytest.fixture(scope="module")
def february() -> pa.Table:
    return make_month("2021-02", N_TRIPS)


@pytest.mark.parametrize("taxi", TAXIS)
def test_the_same_arguments_give_the_same_bytes(taxi: str) -> None:
    def written() -> bytes:
        sink = pa.BufferOutputStream()
        batches = list(month_batches(MONTH, 2_500, SEED, taxi=taxi, batch_rows=1_000))
        with pa.ipc.new_stream(sink, batches[0].schema) as stream:
            for batch in batches:
                stream.write_batch(batch)
        return sink.getvalue().to_pybytes()

    assert written() == written()


@pytest.mark.parametrize("other", [{"seed": 43}, {"month": "2021-02"}, {"taxi": "yellow"}])
def test_another_seed_month_or_taxi_gives_other_trips(other: dict[str, object]) -> None:
    assert column(make_month(**other), "trip_distance").tolist() != (
        column(make_month(), "trip_distance").tolist()
    )


def test_batches_of_one_month_differ_from_each_other() -> None:
    first, second = month_batches(MONTH, 2_000, SEED, batch_rows=1_000)
    assert not first.column("trip_distance").equals(second.column("trip_distance"))


@pytest.mark.parametrize("n_trips", [1, 999, 1_000, 1_001, 2_500])
@pytest.mark.parametrize("batch_rows", [1, 1_000, 131_072])
def test_the_number_of_rows_is_exact_whatever_the_batch_size(n_trips: int, batch_rows: int) -> None:
    n_trips = min(n_trips, 40 * batch_rows)
    sizes = [b.num_rows for b in month_batches(MONTH, n_trips, SEED, batch_rows=batch_rows)]
    assert sum(sizes) == n_trips
    assert all(size == batch_rows for size in sizes[:-1])


def test_batches_are_made_only_when_asked_for() -> None:
    batches = month_batches(MONTH, 10**12, SEED, batch_rows=1_000)
    assert isinstance(batches, Iterator)
    assert next(batches).num_rows == 1_000


@pytest.mark.parametrize(("taxi", "prefix"), [("green", "lpep"), ("yellow", "tpep")])
def test_columns_and_types_are_those_of_the_tlc_files(taxi: str, prefix: str) -> None:
    # source: the parquet schema of green_tripdata_2023-02
    money = "fare_amount extra mta_tax tip_amount tolls_amount ehail_fee improvement_surcharge"
    wanted = pa.schema(
        [
            ("VendorID", pa.int32()),
            (f"{prefix}_pickup_datetime", pa.timestamp("us")),
            (f"{prefix}_dropoff_datetime", pa.timestamp("us")),
            ("store_and_fwd_flag", pa.string()),
            ("RatecodeID", pa.float64()),
            ("PULocationID", pa.int32()),
            ("DOLocationID", pa.int32()),
            *((name, pa.float64()) for name in ["passenger_count", "trip_distance"]),
            *((name, pa.float64()) for name in money.split()),
            *((name, pa.float64()) for name in ["total_amount", "payment_type", "trip_type"]),
            ("congestion_surcharge", pa.float64()),
        ]
    )
    made = make_month(taxi=taxi)
    assert made.schema.equals(wanted)
    assert len(match_columns(made.schema, taxi)) == 5
    made.validate(full=True)


@pytest.mark.parametrize("taxi", TAXIS)
def test_a_simulated_file_has_every_column_that_is_read_and_no_other_taxi_takes_its_place(
    taxi: str,
) -> None:
    made = make_month(taxi=taxi)
    made.validate(full=True)
    found = match_columns(made.schema, taxi)
    assert sorted(found) == sorted(column.name for column in raw_columns(taxi))


def test_app_rides_are_shared_at_times_and_then_take_longer() -> None:
    # source: the parquet schema of fhvhv_tripdata_2024-01, whose columns these are
    made = make_month("2021-01", N_TRIPS, taxi="fhvhv")
    assert (made.num_columns, made.schema.field("trip_time").type) == (24, pa.int64())
    shared = column(made, "shared_match_flag") == "Y"
    assert 0.005 < np.mean(shared) < 0.02
    assert set(column(made, "shared_request_flag")[shared]) == {"Y"}
    seconds, miles = column(made, "trip_time"), column(made, "trip_miles")
    pace = seconds / np.maximum(miles, 0.1)
    assert np.median(pace[shared]) > 1.3 * np.median(pace[~shared])
    spent = column(made, "dropoff_datetime") - column(made, "pickup_datetime")
    assert 0.0002 < np.mean(spent / np.timedelta64(1, "s") != seconds) < 0.002
    assert np.all(column(made, "request_datetime") <= column(made, "pickup_datetime"))


def test_most_car_service_rides_tell_no_pickup_zone() -> None:
    # source: 83.5 % of the course's fhv_tripdata_2021-01
    made = make_month(taxi="fhv")
    missing = {
        name: made.column(name).null_count / len(made) for name in ("PUlocationID", "SR_Flag")
    }
    assert missing["PUlocationID"] == pytest.approx(0.835, abs=0.03)
    assert missing["SR_Flag"] > 0.99


# bounds around the shares seen in the TLC green months of 2023, wide enough for 30,000 trips
def test_distances_are_as_dirty_as_in_real_months(january: pa.Table) -> None:
    miles = column(january, "trip_distance")
    assert 0.035 < np.mean(miles == 0) < 0.055
    assert 0.0002 < np.mean(miles > 60) < 0.0015
    assert 10_000 < miles.max() <= 180_000
    assert miles.min() == 0


def test_durations_are_as_dirty_as_in_real_months(january: pa.Table) -> None:
    minutes = trip_minutes(january)
    assert 0.019 < np.mean(minutes < 1) < 0.033
    assert np.any(minutes == 0)
    assert 0.005 < np.mean(minutes > 60) < 0.02
    assert 0.0005 < np.mean(minutes > 23 * 60) < 0.004
    assert minutes.min() >= 0
    assert minutes.max() < 24 * 60


def test_a_few_pickups_claim_another_month_and_none_a_later_one(january: pa.Table) -> None:
    months = column(january, "lpep_pickup_datetime").astype("M8[M]")
    assert 1 <= np.sum(months != np.datetime64(MONTH)) <= 40
    assert months.max() == np.datetime64(MONTH)


def test_details_are_missing_together_and_the_ehail_fee_always(january: pa.Table) -> None:
    missing = january.column("passenger_count").is_null()
    assert 0.05 < np.mean(missing.to_numpy()) < 0.07
    for name in ["RatecodeID", "trip_type", "store_and_fwd_flag"]:
        assert january.column(name).is_null().equals(missing), name
    assert january.column("ehail_fee").null_count == N_TRIPS
    for name in ["PULocationID", "DOLocationID", "trip_distance", "fare_amount"]:
        assert january.column(name).null_count == 0, name


def test_some_fares_are_negative_and_totals_add_up(january: pa.Table) -> None:
    fares, totals = column(january, "fare_amount"), column(january, "total_amount")
    assert 0.001 < np.mean(fares < 0) < 0.006
    assert np.array_equal(fares < 0, totals < 0)


def test_zones_are_those_of_the_tlc_unknown_ones_rare(january: pa.Table) -> None:
    for name in ["PULocationID", "DOLocationID"]:
        zones = column(january, name)
        assert zones.min() >= 1
        assert zones.max() == 265
        assert 0.0005 < np.mean(zones > 263) < 0.015


def test_pickups_come_in_whole_seconds_and_in_rough_order(january: pa.Table) -> None:
    pickup_at = column(january, "lpep_pickup_datetime").astype("M8[us]").astype(np.int64)
    assert np.all(pickup_at % 1_000_000 == 0)
    steps = np.diff(pickup_at[pickup_at > np.median(pickup_at) - 16 * 86_400e6])
    assert 0.2 < np.mean(steps < 0) < 0.6
    assert np.quantile(np.abs(steps), 0.999) < 3_600e6


# golden: trips of green 2021-01 of 1..60 minutes: mean 16.9 and sd 11.6 minutes, quartiles of 1.3,
# 2.6 and 5.7 miles, 9 % within one zone (12 % in 2023)
def test_kept_trips_look_like_those_of_a_real_month(january: pa.Table) -> None:
    minutes, miles = trip_minutes(january), column(january, "trip_distance")
    kept = (minutes >= 1) & (minutes <= 60)
    assert minutes[kept].mean() == pytest.approx(16.9, abs=1.0)
    assert minutes[kept].std() == pytest.approx(11.6, abs=0.8)
    assert np.quantile(miles[kept], [0.25, 0.5, 0.75]) == pytest.approx([1.3, 2.6, 5.7], rel=0.2)
    same_zone = column(january, "PULocationID") == column(january, "DOLocationID")
    assert np.mean(same_zone) == pytest.approx(0.11, abs=0.04)


def test_ten_zones_of_many_make_two_fifths_of_the_pickups(january: pa.Table) -> None:
    n_pickups = np.sort(np.bincount(column(january, "PULocationID")))[::-1]
    assert n_pickups[:10].sum() / N_TRIPS == pytest.approx(0.41, abs=0.05)
    assert np.sum(n_pickups > 0) > 200


def test_the_zones_lie_where_the_trips_say(january: pa.Table) -> None:
    city = simulated_zones(SEED)
    pickup, dropoff = (city.centroid[column(january, f"{end}LocationID")] for end in ("PU", "DO"))
    straight, miles = np.hypot(*(pickup - dropoff).T), column(january, "trip_distance")
    usual = (straight > 1) & (miles > 0.3) & (miles < 60)
    assert np.corrcoef(straight[usual], miles[usual])[0, 1] > 0.95
    assert np.corrcoef(np.roll(straight[usual], 1), miles[usual])[0, 1] < 0.1
    assert set(city.borough[1:264]) == set(BOROUGH_NAMES)
    assert not city.has_place[[0, 264, 265]].any()


def test_rush_hours_are_slow_on_weekdays(january: pa.Table) -> None:
    pickup_at = column(january, "lpep_pickup_datetime")
    hour = (pickup_at - pickup_at.astype("M8[D]")) / np.timedelta64(1, "h")
    workday = np.is_busday(pickup_at.astype("M8[D]"))
    minutes, miles = trip_minutes(january), column(january, "trip_distance")
    metered = workday & (minutes > 1) & (minutes < 60) & (miles > 0) & (miles < 60)
    speed = 60 * miles / np.maximum(minutes, 1)
    night, rush = metered & (hour < 5), metered & (hour > 15) & (hour < 18)
    assert np.median(speed[night]) > 1.3 * np.median(speed[rush])


def median_miles(table: pa.Table) -> np.ndarray:
    """Return the median metered miles between zones, NaN for fewer than 5 trips; [266 * 266]."""
    pickup_zone, dropoff_zone = column(table, "PULocationID"), column(table, "DOLocationID")
    miles = column(table, "trip_distance")
    between = (miles > 0) & (pickup_zone != dropoff_zone)
    pair, miles = (pickup_zone * 266 + dropoff_zone)[between], miles[between]
    medians = np.full(266 * 266, np.nan)
    for code in np.flatnonzero(np.bincount(pair) >= 5):
        medians[code] = np.median(miles[pair == code])
    return medians


def test_months_of_one_seed_share_the_city_and_those_of_another_do_not(
    january: pa.Table, february: pa.Table
) -> None:
    def agreement(one: pa.Table, other: pa.Table) -> float:
        pairs = np.stack([median_miles(one), median_miles(other)])
        known = ~np.isnan(pairs).any(axis=0)
        assert known.sum() > 20
        return float(np.corrcoef(np.log(pairs[:, known]))[0, 1])

    assert agreement(january, february) > 0.95
    assert agreement(january, make_month("2021-02", N_TRIPS, seed=SEED + 1)) < 0.5


def kept_trips(table: pa.Table) -> dict[str, np.ndarray]:
    minutes = trip_minutes(table)
    kept = (minutes >= 1) & (minutes <= 60)
    pickup_at = column(table, "lpep_pickup_datetime")[kept]
    minute_of_day = (pickup_at - pickup_at.astype("M8[D]")) // np.timedelta64(1, "m")
    zones = [column(table, name)[kept] for name in ("PULocationID", "DOLocationID")]
    miles = column(table, "trip_distance")[kept]
    weekday = (pickup_at.astype("M8[D]").astype(np.int64) + 3) % 7
    return {
        "minutes": minutes[kept],
        "pair": zones[0] * 266 + zones[1],
        "miles": miles,
        "where": np.column_stack([*zones, miles]),
        "when": np.column_stack([minute_of_day // 60, weekday, minute_of_day]),
    }


def one_hot_pairs(trips: dict[str, np.ndarray], known: np.ndarray) -> sp.csr_matrix:
    """Encode one column per pair seen in training, then raw miles; an unseen pair is all zeros."""
    n, place = len(trips["pair"]), np.searchsorted(known, trips["pair"]).clip(max=len(known) - 1)
    rows = np.flatnonzero(known[place] == trips["pair"])
    hot = sp.coo_matrix((np.ones(len(rows)), (rows, place[rows])), (n, len(known)))
    matrix = sp.hstack([hot, trips["miles"][:, None]], format="csr")
    # Lasso refuses 64-bit indices
    matrix.indices, matrix.indptr = (x.astype(np.int32) for x in (matrix.indices, matrix.indptr))
    return matrix


def test_models_rank_as_they_do_on_real_months(january: pa.Table, february: pa.Table) -> None:
    # golden: RMSE on green 2021-02, trained on 2021-01 (30,000 trips of each): 12.18, 12.10, 11.12,
    # 8.21, 6.26, 5.90 minutes, in this order
    train, valid = kept_trips(january), kept_trips(february)
    known = np.unique(train["pair"])
    linear = [one_hot_pairs(trips, known) for trips in (train, valid)]
    place = [trips["where"] for trips in (train, valid)]
    both = [np.hstack([trips["where"], trips["when"]]) for trips in (train, valid)]

    def rmse(predicted: np.ndarray | float) -> float:
        return float(np.sqrt(np.mean((predicted - valid["minutes"]) ** 2)))

    def fitted(model: object, features: list) -> float:
        return rmse(model.fit(features[0], train["minutes"]).predict(features[1]))

    trees = HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=64, random_state=SEED)
    errors = [
        rmse(train["minutes"].mean()),
        fitted(Lasso(alpha=0.1), linear),
        fitted(Lasso(alpha=0.01), linear),
        fitted(LinearRegression(), linear),
        fitted(trees, place),
        fitted(trees, both),
    ]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == len(errors)
    assert errors == pytest.approx([11.6, 11.4, 10.5, 8.1, 6.2, 5.8], abs=0.4)


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ({"n_trips": 0}, "n_trips is 0"),
        ({"n_trips": -5}, "n_trips is -5"),
        ({"batch_rows": 0}, "batch_rows is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"month": "2021-13"}, "'2021-13'"),
        ({"month": "2021-1"}, "'2021-1'"),
        ({"month": "January"}, "'January'"),
        ({"month": "2021-01\n"}, r"'2021-01\\n'"),
        ({"taxi": "blue"}, "'blue'"),
    ],
)
def test_arguments_out_of_range_are_refused_at_the_call_in_one_line(
    arguments: dict[str, object], seen: str
) -> None:
    with pytest.raises(TripError, match=seen) as refusal:
        month_batches(**{"month": MONTH, "n_trips": 10, "seed": SEED, **arguments})
    assert "\n" not in str(refusal.value)
    assert any(advice in str(refusal.value) for advice in ("Choose", "Write"))


@pytest.mark.parametrize(("month", "days"), [("2020-02", 29), ("2021-02", 28), ("2023-12", 31)])
def test_a_month_is_filled_from_its_first_day_to_its_last(month: str, days: int) -> None:
    pickup_at = column(make_month(month, 20_000), "lpep_pickup_datetime")
    inside = pickup_at[pickup_at.astype("M8[M]") == np.datetime64(month)].astype("M8[D]")
    first = datetime.date.fromisoformat(f"{month}-01")
    assert set(inside.tolist()) == {first + datetime.timedelta(day) for day in range(days)}


def test_simulating_imports_neither_pandas_nor_mlflow() -> None:
    code = f"""if True:
        import sys
        from taxi.simulation import month_batches
        next(month_batches("{MONTH}", 10, {SEED}))
        print(sorted({{"pandas", "mlflow"}} & set(sys.modules)))
    """
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
