"""What the steps that make candidate models share: the trips they read, how a model is logged."""

import json

import mlflow
import numpy as np
import pyarrow.parquet as pq
from mlflow.entities import Run

from steps.common.artifacts import PROFILES
from storage import StorageError
from storage.tracking import models, runs
from storage.tracking.served_model import PROFILE
from taxi import evaluation, schema
from taxi.drift import make_reference
from taxi.model import MODULES, TripModel, input_columns, write_frame
from taxi.profile import Profile
from taxi.schema import Trips

N_EXAMPLE_ROWS = 5
CARRIED = ("months.", "sha256.", "taxi", "data")  # tags that follow the trips from run to run


def load_trips(preprocess: Run, split: str) -> Trips:
    """Read train, valid or test trips of a preprocess run."""
    path = runs.fetch(preprocess.info.run_id, f"data/{split}.parquet")
    if runs.sha256_of(path) != preprocess.data.tags[f"sha256.{split}"]:
        raise StorageError(
            f"data/{split}.parquet of run {preprocess.info.run_id} is not what that run wrote. "
            f"Run preprocess again."
        )
    return schema.to_trips(pq.read_table(path))


def log_inputs(preprocess: Run, contexts: dict[str, str]) -> None:
    """Record on the active run which trips it reads: split -> context."""
    run_id, tags = preprocess.info.run_id, preprocess.data.tags
    carried = {key: tags[key] for key in tags if key.startswith(CARRIED)}
    mlflow.set_tags(carried | {"preprocess_run_id": run_id})
    for split, context in contexts.items():
        runs.log_dataset(
            name=split,
            uri=f"runs:/{run_id}/data/{split}.parquet",
            sha256=tags[f"sha256.{split}"],
            context=context,
        )


def log_candidate(model: TripModel, valid: Trips) -> dict[str, float]:
    """Score a model on valid and log both on the active run; gives the scores."""
    predicted = model.predict(valid)
    scores = evaluation.score(valid.trip_minutes, predicted)
    mlflow.log_metrics(scores)
    groups = evaluation.errors_by_group(valid, predicted)
    runs.log_table([group._asdict() for group in groups], "errors_by_group.csv")
    mlflow.log_figure(evaluation.draw_evaluation(valid, predicted), "evaluation.png")
    uri = models.log(
        model.to_files() | {PROFILE: reference(predicted, scores["rmse"])},
        name="model",
        package="taxi",
        modules=MODULES,
        columns=input_columns(model.taxi),
        example=write_frame(valid.take(np.arange(N_EXAMPLE_ROWS)), model.taxi),
    )
    mlflow.set_tags({"candidate": "true", "model_uri": uri})
    return scores


def reference(predicted: np.ndarray, rmse: float) -> bytes:
    """Note what the trips look like that the active run's model knows, for whoever watches it.

    Args:
        predicted: [n] minutes of the valid trips.
        rmse: on them.
    """
    parent = mlflow.get_run(runs.active().data.tags["mlflow.parentRunId"])
    path = runs.fetch(parent.data.tags["preprocess_run_id"], PROFILES)
    states = json.loads(path.read_text())
    train, valid = (Profile.restore(states[split]) for split in ("train", "valid"))
    return json.dumps(make_reference(train, valid, predicted, rmse).state()).encode()
