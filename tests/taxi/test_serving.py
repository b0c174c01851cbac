"""A model loaded through MLflow, called from many threads as in a server."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import invocations

from storage import StorageError
from storage.tracking import models
from taxi import TripError
from taxi.model import TripModel, input_columns, trips_to_frame
from taxi.request_params import PARAM_DEFAULTS
from taxi.spread import fit_spread
from tests import docs
from tests.conftest import ROOT, simulated_trips
from tests.logged import log_model, own_experiment
from tests.taxi.test_model import START, TIME, calibrate, make_model

N_THREADS, N_REQUESTS = 8, 400


@pytest.fixture(scope="module")
def model() -> TripModel:
    model = make_model(n_boosters=3)
    return model.with_spread(fit_spread(calibrate(model, simulated_trips("2021-02"))))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with own_experiment(tmp_path_factory, "served") as experiment:
        yield experiment


@pytest.fixture(scope="module")
def uri(model: TripModel, experiment: str) -> str:
    return log_model(model, experiment, frame().iloc[:5])


@pytest.fixture(scope="module")
def served(uri: str) -> PyFuncModel:
    return models.load(uri)


def frame() -> pd.DataFrame:
    return trips_to_frame(simulated_trips("2021-02"), "green")


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
        together.wait(timeout=60)  # so that the model's very first calls are concurrent
        return [served.predict(trips.iloc[rows]) for rows in asked[first::N_THREADS]]

    with ThreadPoolExecutor(N_THREADS) as executor:
        answers = list(executor.map(ask, range(N_THREADS)))
    assert sum(map(len, answers)) == N_REQUESTS
    wanted = model.answer(trips)  # a row's answer does not depend on the rows beside it
    for first, of_thread in enumerate(answers):
        for rows, minutes in zip(asked[first::N_THREADS], of_thread, strict=True):
            assert minutes.tobytes() == wanted[rows].tobytes()


def test_many_rows_from_several_threads_are_answered_the_same(uri: str, model: TripModel) -> None:
    served = models.load(uri)
    wanted = model.answer(frame()).tobytes()
    with ThreadPoolExecutor(N_THREADS) as executor:
        answers = list(executor.map(lambda _: served.predict(frame()), range(N_THREADS)))
    assert {minutes.tobytes() for minutes in answers} == {wanted}


# --- what a request may ask besides the minutes

EVERYTHING = {"quantiles": [0.1, 0.5, 0.025], "longer_than": 12}


def post(model: PyFuncModel, params: object) -> Any:
    """Send five trips and params to MLflow's server; return its predictions."""
    body = json.dumps({"dataframe_split": json.loads(sent()), "params": params})
    schema = model.metadata.get_input_schema()
    answer = invocations(body, "application/json", model, schema)
    assert answer.status == 200
    return json.loads(answer.response)["predictions"]


def sent() -> str:
    return frame().iloc[:5].astype({TIME: str}).to_json(orient="split", index=False)


def test_a_server_answers_a_column_for_each_thing_asked(
    served: PyFuncModel, model: TripModel
) -> None:
    found = post(served, EVERYTHING)
    wanted = model.answer(frame().iloc[:5], EVERYTHING)
    assert isinstance(wanted, pd.DataFrame)
    assert list(wanted) == ["prediction", "p10", "p50", "p2_5", "longer_than"]
    assert found == wanted.to_dict("records")
    for row in found:
        assert row["p2_5"] < row["p10"] < row["p50"]
        assert 0 < row["longer_than"] < 1


def test_the_request_of_the_docs_is_answered_with_the_columns_of_the_docs(
    served: PyFuncModel,
) -> None:
    blocks = [block for block in docs.parse(ROOT / "docs" / "serving.md") if block.type == "fence"]
    request, shown = (block for block in blocks if "longer_than" in block.content)
    schema = served.metadata.get_input_schema()
    answer = invocations(request.content, "application/json", served, schema)
    found, wanted = (json.loads(text)["predictions"] for text in (answer.response, shown.content))
    assert [list(row) for row in found] == [list(row) for row in wanted]


@pytest.mark.parametrize("params", [{}, {"quantiles": [], "longer_than": 0}])
def test_a_request_that_asks_no_more_is_answered_the_plain_minutes(
    params: object, served: PyFuncModel, model: TripModel
) -> None:
    assert post(served, params) == model.answer(frame().iloc[:5]).tolist()
    assert [column.type.name for column in served.metadata.get_output_schema()] == ["double"]


@pytest.mark.parametrize(
    ("params", "seen"),
    [
        ({"quantiles": [1.5]}, "1.5"),
        ({"quantiles": [0.5, 1]}, "1.0"),
        ({"quantiles": ["half"]}, "half"),
        ({"quantiles": "half"}, "received str"),
        ({"quantiles": [None]}, "None"),
        ({"quantiles": [math.nan]}, "nan"),
        ({"quantiles": [0.5] * 100}, "got 100 of them"),
        ({"longer_than": "soon"}, "soon"),
        ({"longer_than": -1}, "-1"),
        ({"longer_than": math.inf}, "inf"),
    ],
)
def test_a_server_refuses_what_cannot_be_asked_as_the_callers_fault(
    params: object, seen: str, served: PyFuncModel
) -> None:
    with pytest.raises(MlflowException) as refusal:
        post(served, params)
    assert refusal.value.get_http_status_code() == 400
    reason = refusal.value.message.rpartition("Error: ")[2]
    assert seen in reason
    assert "\n" not in reason


def test_a_model_without_a_spread_refuses_quantiles_and_answers_the_rest(experiment: str) -> None:
    served = models.load(log_model(make_model(), experiment, frame().iloc[:5], PARAM_DEFAULTS))
    assert post(served, {}) == make_model().answer(frame().iloc[:5]).tolist()
    with pytest.raises(MlflowException, match="without a spread of its errors") as refusal:
        post(served, {"quantiles": [0.5]})
    assert refusal.value.get_http_status_code() == 400


def test_columns_are_asked_of_a_loaded_model_by_their_params(
    served: PyFuncModel, uri: str, model: TripModel
) -> None:
    found = models.predict_columns(served, frame(), uri, EVERYTHING)
    pd.testing.assert_frame_equal(found, model.answer(frame(), EVERYTHING))
    with pytest.raises(StorageError, match=r"refuses these rows: Param 'quantiles': got 2.0"):
        models.predict_columns(served, frame(), uri, {"quantiles": [2.0]})


def test_a_model_saved_before_params_were_is_scored_and_says_that_it_knows_no_quantiles(
    experiment: str, model: TripModel
) -> None:
    old_uri = log_model(model, experiment, frame().iloc[:5], {})
    old = models.load(old_uri)
    assert old.metadata.get_params_schema() is None
    wanted = model.answer(frame())
    assert np.array_equal(models.predict(old, frame(), old_uri), wanted)
    assert np.array_equal(models.predict_typed(old, frame(), old_uri), wanted)
    with pytest.raises(StorageError, match="saved before one could ask for quantiles"):
        models.predict_columns(old, frame(), old_uri, {"quantiles": [0.5]})


# --- whose fault it is


def asked_with(error: Exception, uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a model whose prediction fails; return the served object."""
    served = models.load(uri).unwrap_python_model()

    def fail(*request: object, **more: object) -> np.ndarray:
        raise error

    monkeypatch.setattr(served.model, "answer", fail)
    return served


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, MemoryError, TripError])
def test_a_fault_of_the_server_keeps_its_type(
    kind: type[Exception], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # this is the checkout's TripError, not that of the model's own copy of the package
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
