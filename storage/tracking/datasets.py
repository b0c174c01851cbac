"""Data sets in MLflow: which bytes went in, what they hold, and where they open."""

import json
import warnings
from collections.abc import Sequence
from typing import Any

import mlflow
import pyarrow as pa
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.types.schema import ColSpec, DataType, Schema
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from storage.tracking.artifacts import folder_of
from storage.tracking.runs import active_info
from storage.uris import without_user

DIGEST_CHARS = 36  # what MLflow's store has room for
PROXIED = "mlflow-artifacts:"  # how URIs begin of files that a tracking server hands out
KINDS = (
    (pa.types.is_timestamp, DataType.datetime),
    (pa.types.is_int64, DataType.long),
    (pa.types.is_integer, DataType.integer),
    (pa.types.is_floating, DataType.double),
    (pa.types.is_boolean, DataType.boolean),
)


class HashedDataset(MetaDataset):
    """A data set that is known by the sha256 of its bytes, with its columns and rows."""

    def __init__(
        self, *, name: str, uri: str, sha256: str, columns: pa.Schema | None, n_rows: int | None
    ) -> None:
        """Describe bytes.

        Args:
            name: of the data set.
            uri: where they are, without credentials.
            sha256: of them.
            columns: that they hold; None where they are no table.
            n_rows: that they hold; None where nobody has counted.
        """
        self.n_rows = n_rows
        schema = to_schema(columns) if columns else None
        super().__init__(source_of(uri), name=name, digest=sha256[:DIGEST_CHARS], schema=schema)

    def to_dict(self) -> dict[str, str]:
        """Describe it as MLflow's store keeps it, rows included."""
        about: dict[str, str] = super().to_dict()
        return about | ({"profile": json.dumps(self.profile)} if self.profile else {})

    @property
    def profile(self) -> dict[str, int] | None:
        """Rows and values, as MLflow's own data sets count them."""
        if self.n_rows is None:
            return None
        n_columns = len(self.schema.inputs) if self.schema else 1
        return {"num_rows": self.n_rows, "num_elements": self.n_rows * n_columns}


def log_datasets(inputs: Sequence[tuple[Dataset, str]]) -> None:
    """Record on the active run which data sets it reads, each with its context, in one request."""
    entries = [
        DatasetInput(dataset._to_mlflow_entity(), [InputTag(MLFLOW_DATASET_CONTEXT, context)])
        for dataset, context in inputs
    ]
    client, run_id = MlflowClient(), active_info().run_id
    try:
        client.log_inputs(run_id, datasets=entries)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        # of two runs that note the same new data set at the same moment MLflow refuses one
        client.log_inputs(run_id, datasets=entries)


def log_scores(scores: dict[str, float], *, model_uri: str, dataset: Dataset) -> None:
    """Log how a logged model does on a data set: metrics of the active run and of the model.

    Args:
        scores: metric -> value.
        model_uri: models:/m-...; of any other model the run alone keeps the metrics.
        dataset: that it was scored on.
    """
    mlflow.log_metrics(scores, model_id=model_id_of(model_uri), dataset=dataset)


def model_id_of(model_uri: str) -> str | None:
    """Return the id of a logged model by its URI; None where it is named otherwise."""
    name = model_uri.removeprefix("models:/")
    return name if name.startswith("m-") and "/" not in name else None


def source_of(uri: str) -> DatasetSource:
    """Return a source that `mlflow.data.get_source(...).load()` opens, where MLflow knows its kind.

    One that nobody can open, such as a simulated month, is text.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # a path and file: are one kind to us
            return resolve_dataset_source(uri)
    except MlflowException:
        return CodeDatasetSource(tags={"uri": uri})


def artifact_source(run_id: str, folder: str) -> str:
    """Return where a folder of a run opens: its address at the tracking server, else its URI."""
    uri = folder_of(run_id)
    if uri.startswith(PROXIED):
        server = without_user(mlflow.get_tracking_uri()).rstrip("/")
        return f"{server}/get-artifact?run_uuid={run_id}&path={folder}"
    return f"{uri}/{folder}"


def to_schema(columns: pa.Schema) -> Schema:
    """Describe columns in MLflow's words; what it has no word for is text."""
    return Schema([ColSpec(_kind(field.type), field.name) for field in columns])


def _kind(kind: Any) -> DataType:
    return next((name for matches, name in KINDS if matches(kind)), DataType.string)
