"""The served model compared with its bare boosters: rows per second, and latency of one row."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb
from mlflow.pyfunc import PyFuncModel

from bench import DATA, Result
from storage.tracking import models
from taxi import features, schema, spaces
from taxi.boosting import TrainingJob, build_matrices, train_booster
from taxi.cleaning import clean
from taxi.model import MODULES, TripModel, input_columns, trips_to_frame
from taxi.recipes import WEIGHT_WITHOUT_DISTANCE
from taxi.request_params import PARAM_DEFAULTS
from taxi.rows import Rows, rows_with_distance, rows_without_distance
from taxi.schema import Trips

N_BULK, N_SINGLE = 7, 200
N_ROUNDS = 420  # of each booster, about as many as in the refit on 2023-01 and -02


def measure() -> Iterator[Result]:
    """Train on 2023-01, log the model, and time it on 2023-02 as served."""
    train, valid = load("2023-01"), load("2023-02")
    model = train_model(train, valid)
    matrix = model.encoder.transform(valid)
    # the model's own boosters are limited to one thread each; bare ones use all cores
    files = model.to_files().items()
    boosters = [xgb.Booster(model_file=bytearray(f)) for name, f in files if name[-4:] == ".ubj"]
    served = as_served(model, valid)
    frame = trips_to_frame(valid, "green")
    bare = timed(lambda: [b.inplace_predict(matrix) for b in boosters], N_BULK)
    whole = timed(lambda: served.unwrap_python_model().predict(None, frame), N_BULK)
    what = "raw rows/s through the model over rows/s of its bare boosters"
    yield Result(what, f"{bare / whole:.2f}", "0.6")
    # includes MLflow's schema check, value by value for columns that may hold text or numbers
    checked = timed(lambda: served.predict(frame), N_BULK)
    yield Result(f"{what}, MLflow's signature check included", f"{bare / checked:.2f}", "")
    row = frame.iloc[[0]]
    yield Result(
        "one raw row through pyfunc",
        f"{timed(lambda: served.predict(row), N_SINGLE) * 1e3:.1f} ms",
        "10 ms",
    )


def train_model(train: Trips, valid: Trips, *, n_rounds: int = N_ROUNDS) -> TripModel:
    """Fit the largest number of boosters that a model may have, at the search's first points."""
    encoder = features.fit_encoder("full", train)
    space = spaces.select_space("lossguide")
    points = [
        dict(space.fixed) | space.parameters(number, space.first[number])
        for number in range(space.n_boosters)
    ]
    jobs = [TrainingJob(point, n_rounds, patience=n_rounds, keep_booster=True) for point in points]
    with_distance, without_distance = (
        make_rows(encoder, train, valid)._replace(max_bin=space.max_bin)
        for make_rows in (rows_with_distance, rows_without_distance)
    )
    boosters, boosters_without_distance = (
        train_all(with_distance, jobs),
        train_all(without_distance, jobs[: len(space.objectives)]),
    )
    return TripModel(
        "green",
        encoder,
        boosters,
        boosters_without_distance,
        weight_without_distance=WEIGHT_WITHOUT_DISTANCE,
    )


def train_all(rows: Rows, jobs: Sequence[TrainingJob]) -> list[xgb.Booster]:
    """Train the booster of each job."""
    matrices = build_matrices(rows)
    outcomes = [train_booster(matrices, job) for job in jobs]
    return [outcome.booster for outcome in outcomes if outcome.booster]


def load(month: str) -> Trips:
    """Clean a real month."""
    file = pq.ParquetFile(DATA / f"green_tripdata_{month}.parquet")
    kept = [clean(batch, taxi="green", month=month).trips for batch in file.iter_batches()]
    return schema.to_trips(pa.Table.from_batches(kept))


def as_served(model: TripModel, trips: Trips) -> PyFuncModel:
    """Log a model to a fresh store, and load it back."""
    with TemporaryDirectory() as folder:
        return models.load(log_in(Path(folder), model, trips))


def log_in(folder: Path, model: TripModel, trips: Trips) -> str:
    """Log a model to a new store in a folder; return its URI."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("bench", folder.as_uri()))
    with mlflow.start_run():
        return models.log(
            model.to_files(),
            name="model",
            package="taxi",
            modules=MODULES,
            columns=input_columns("green"),
            params=PARAM_DEFAULTS,
            example=trips_to_frame(trips.take(np.arange(5)), "green"),
        )


def timed(call: Callable[[], object], n_times: int) -> float:
    """Return the median seconds of a call, after one to warm up."""
    call()
    seconds = []
    for _ in range(n_times):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return median(seconds)
