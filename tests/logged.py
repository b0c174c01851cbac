"""Log models in a store of the test module's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
import pandas as pd
import pytest

from storage.tracking import models
from taxi.model import MODULES, TripModel, input_columns
from taxi.request_params import PARAM_DEFAULTS
from tests.stores import copy_empty_store


@contextmanager
def own_experiment(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[str]:
    """Point MLflow at a store of the test module's own; yield the id of an experiment in it."""
    folder = tmp_path_factory.mktemp(name)
    mlflow.set_tracking_uri(copy_empty_store(tmp_path_factory, folder))
    yield mlflow.create_experiment(name, (folder / "artifacts").as_uri())
    mlflow.set_tracking_uri(None)  # back to the one that the environment sets


def log_model(
    model: TripModel,
    experiment: str,
    example: pd.DataFrame,
    params: Mapping[str, Any] = PARAM_DEFAULTS,
) -> str:
    """Log a model of green trips on a new run; return its URI."""
    with mlflow.start_run(experiment_id=experiment):
        return models.log(
            model.to_files(),
            name="model",
            package="taxi",
            modules=MODULES,
            columns=input_columns("green"),
            params=params,
            example=example,
        )
