"""The same numbers to the last bit, whichever kernels the machine's mathematics uses."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from taxi import (
    bootstrap,
    distances,
    drift,
    features,
    learned_map,
    least_squares,
    scores,
    surroundings,
    zones,
)
from taxi.spaces import select_space
from tests.conftest import ROOT, random_trips, simulated_trips
from tests.taxi import searches, test_live
from tests.taxi.same_bits import CITY

# an x86-64 of 2004, whose mathematics has no fused multiply-add
OLD_MACHINE = {
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4",
}


def fitted(threads: int, **machine: str) -> tuple[list[str], dict[str, str]]:
    """Run same_bits as on such a machine: its kernels, and part -> sha256."""
    n_threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), str(threads))
    command = [sys.executable, "-W", "ignore", "-m", "tests.taxi.same_bits"]
    env = os.environ | n_threads | machine
    done = subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True, text=True)
    kernels, parts = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    return kernels, parts


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kernels of x86-64")
def test_an_old_machine_and_one_thread_fit_the_same_bits_as_this_one_and_two_threads() -> None:
    here, then = fitted(2), fitted(1, **OLD_MACHINE)
    assert then[0] != here[0]  # or nothing is shown
    moved = sorted(part for part in here[1] if then[1][part] != here[1][part])
    assert not moved, "of BLAS or np.exp: CONTRIBUTING.md, «The same bits on any x86-64 machine»"


def psi() -> bytes:
    return repr(drift.psi(np.array([900, 500, 70]), np.array([800, 650, 10]))).encode()


def planned() -> bytes:
    return distances.apply_distance_kind(
        random_trips(500, seed=1), "planned_20"
    ).distance_miles.tobytes()


def places() -> bytes:
    return surroundings.turn_to_grid(CITY.centroid).tobytes()


def live_factors() -> bytes:
    return test_live.run(test_live.make_ended()).factor.tobytes()


def learned() -> bytes:
    return zones.fit_zone_tables(random_trips(1_500, seed=10)).position.tobytes()


@pytest.mark.parametrize("result", [psi, planned, places, live_factors, learned])
def test_no_result_has_the_last_digit_of_the_machines_mathematics(
    result: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = result()
    for name in ("exp", "log", "cos", "sin", "arctan2"):
        function = getattr(np, name)
        monkeypatch.setattr(np, name, lambda *x, of=function: np.nextafter(of(*x), np.inf))
    assert result() == before


def test_what_a_search_suggests_has_six_digits() -> None:
    known = select_space("lossguide")
    space = replace(known, first=(), objectives=known.objectives[1:])  # only unscaled objectives
    suggested = searches.points(searches.run(space, max_evals=14))
    values = [value for point in suggested for value in point.values() if isinstance(value, float)]
    assert {float(f"{value:.6g}") for value in values} >= {*values}


def test_another_start_leads_to_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    trips = simulated_trips("2021-01")
    before = zones.fit_zone_tables(trips).position
    find_start = learned_map._spectral_start
    noise = np.random.default_rng(1).standard_normal(2 * 263).reshape(2, 263)

    def moved(ways: np.ndarray) -> np.ndarray:
        return find_start(ways) + 0.01 * noise[:, : len(ways)]

    monkeypatch.setattr(learned_map, "_spectral_start", moved)
    after = zones.fit_zone_tables(trips).position
    assert np.nanmax(np.abs(after - before)) <= 10.0**-learned_map.DECIMALS


def test_whole_numbers_stand_for_the_columns_and_no_sum_of_them_is_inexact() -> None:
    rng = np.random.default_rng(2)
    columns = rng.lognormal(0, 3, (5_000, 3)) * [1, -1e6, 0]
    units = bootstrap._choose_units(columns.__getitem__, len(columns))
    integers = bootstrap._to_integers(columns, *units)
    coarse, fine = np.split(integers[:, 1:] * units.ravel(), 2, axis=1)
    assert coarse + fine == pytest.approx(columns, rel=1e-12)
    assert np.array_equal(integers, np.rint(integers))
    assert np.abs(integers).max() * bootstrap.MAX_COUNT * len(columns) <= 2**53


def test_linear_regression_takes_the_steps_that_sklearn_takes() -> None:
    train, valid = (simulated_trips(month) for month in ("2021-01", "2021-02"))
    encoder = features.fit_encoder("course", train)
    matrix = encoder.transform_train(train)
    rmses = [
        scores.rmse(model.predict(encoder.transform(valid)) - valid.trip_minutes)
        for model in (
            LinearRegression().fit(matrix, train.trip_minutes),
            least_squares.fit_linear_regression(LinearRegression(), matrix, train.trip_minutes),
        )
    ]
    assert rmses[1] == pytest.approx(rmses[0], abs=0.005)


def test_linear_regression_reaches_the_least_squares_where_it_may_take_its_time() -> None:
    rng = np.random.default_rng(3)
    matrix, wanted = rng.normal(size=(50, 4)), rng.normal(size=50)
    centred = matrix - matrix.mean(axis=0)
    products = least_squares.Centred(lambda x: centred @ x, lambda x: centred.T @ x)
    found = least_squares.lsqr(products, wanted, tolerance=1e-13)
    assert found == pytest.approx(np.linalg.lstsq(centred, wanted)[0])


def test_linear_regression_of_nothing_to_explain_is_the_mean() -> None:
    train = simulated_trips("2021-01")
    matrix = features.fit_encoder("course", train).transform_train(train)
    model = least_squares.fit_linear_regression(
        LinearRegression(), matrix, np.full(len(train), 12.0)
    )
    assert np.array_equal(model.predict(matrix), np.full(len(train), 12.0))
