"""A model loaded through MLflow, asked as a server's threads ask it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from storage.tracking import models
from taxi import TripError
from taxi.model import MODULES, TripModel, input_columns, write_frame
from tests.conftest import simulated_trips
from tests.taxi.test_model import START, make_model

N_THREADS, N_REQUESTS = 8, 2_000


@pytest.fixture(scope="module")
def model() -> TripModel:
    return make_model(n_boosters=3)


@pytest.fixture(scope="module")
def uri(model: TripModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("served", (folder / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment):
        yield models.log(
            model.to_files(),
            name="model",
            package="taxi",
            modules=MODULES,
            columns=input_columns("green"),
            example=frame().iloc[:5],
        )
    mlflow.set_tracking_uri(None)  # the environment decides again


def frame() -> pd.DataFrame:
    return write_frame(simulated_trips("2021-02"), "green")


def requests(n: int) -> list[slice]:
    """Choose the rows of n valid requests, 1 to 5 rows each."""
    starts = np.random.default_rng(1).integers(0, len(frame()) - 5, n)
    return [slice(start, start + 1 + start % 5) for start in starts]


def test_of_many_requests_at_once_none_is_refused_and_none_answered_differently(
    uri: str, model: TripModel
) -> None:
    served, trips, asked = models.load(uri), frame(), requests(N_REQUESTS)
    together = Barrier(N_THREADS)

    def ask(first: int) -> list[np.ndarray]:
        together.wait(timeout=60)  # the model's very first answers are asked for at once
        return [served.predict(trips.iloc[rows]) for rows in asked[first::N_THREADS]]

    with ThreadPoolExecutor(N_THREADS) as executor:
        answers = list(executor.map(ask, range(N_THREADS)))
    assert sum(map(len, answers)) == N_REQUESTS
    wanted = model.predict_frame(trips)  # each row is answered alone as among others
    for first, of_thread in enumerate(answers):
        for rows, minutes in zip(asked[first::N_THREADS], of_thread, strict=True):
            assert minutes.tobytes() == wanted[rows].tobytes()


def test_many_rows_from_several_threads_are_answered_the_same(uri: str, model: TripModel) -> None:
    served = models.load(uri)
    wanted = model.predict_frame(frame()).tobytes()
    with ThreadPoolExecutor(N_THREADS) as executor:
        answers = list(executor.map(lambda _: served.predict(frame()), range(N_THREADS)))
    assert {minutes.tobytes() for minutes in answers} == {wanted}


# --- whose fault it is


def asked_with(error: Exception, uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a model whose prediction fails; gives the served object."""
    served = models.load(uri).unwrap_python_model()

    def fail(frame: pd.DataFrame) -> np.ndarray:
        raise error

    monkeypatch.setattr(served.model, "predict_frame", fail)
    return served


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, MemoryError, TripError])
def test_a_fault_of_the_server_keeps_its_type(
    kind: type[Exception], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # TripError is that of this checkout, not that of the model's own copy of the package
    error = kind("[17:45:00] src/learner.cc:42: Check failed")
    with pytest.raises(kind) as fault:
        asked_with(error, uri, monkeypatch).predict(None, frame().iloc[:1])
    assert fault.value is error


def test_a_row_that_cannot_be_judged_is_the_callers_fault(uri: str) -> None:
    bad = frame().iloc[:1].astype({START: object})
    bad.iloc[0, bad.columns.get_loc(START)] = "Harlem"
    with pytest.raises(
        MlflowException, match="Row 0, column 'PULocationID': got 'Harlem'"
    ) as fault:
        models.load(uri).unwrap_python_model().predict(None, bad)
    assert fault.value.error_code == "INVALID_PARAMETER_VALUE"


ODD: list[object] = [
    *("", " ", "x", "1e400", "0x10", "2021-13-01", "99999-01-01", "\x00", "٣", "+1", "1_000"),
    *(10**30, -(10**30), 2**63, -(2**63) - 1, 2**64, 1e308, -0.0, True, b"74", None),
    *(np.nan, np.inf, pd.NaT, pd.NA, pd.Timestamp.max, pd.Timestamp.min, pd.Timedelta(1, "D")),
    *([], {}, (1,), {1}, np.arange(2), object, pd.Period("2021-01"), pd.Interval(0, 1)),
]


@pytest.mark.parametrize("column", list(input_columns("green")))
def test_whatever_a_caller_sends_is_answered_or_refused_as_the_callers_fault(
    column: str, uri: str
) -> None:
    served, good = models.load(uri).unwrap_python_model(), frame().iloc[:1].astype(object)
    n_refused = 0
    for value in ODD:
        bad = good.copy()
        bad[column] = pd.Series([value], dtype=object, index=bad.index)
        try:
            assert np.isfinite(served.predict(None, bad)).all()
        except MlflowException as refusal:
            assert refusal.error_code == "INVALID_PARAMETER_VALUE"
            n_refused += 1
    assert n_refused > len(ODD) / 2
