"""Data sets in MLflow: which bytes a run read, what they contain, and where to open them."""

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

DIGEST_CHARS = 36  # all that MLflow's store has room for
PROXIED = "mlflow-artifacts:"  # scheme of files that a tracking server serves
KINDS = (
    (pa.types.is_timestamp, DataType.datetime),
    (pa.types.is_int64, DataType.long),
    (pa.types.is_integer, DataType.integer),
    (pa.types.is_floating, DataType.double),
    (pa.types.is_boolean, DataType.boolean),
)


class HashedDataset(MetaDataset):
    """A data set identified by the sha256 of its bytes, with its columns and number of rows."""

    def __init__(
        self, *, name: str, uri: str, sha256: str, columns: pa.Schema | None, n_rows: int | None
    ) -> None:
        """Describe the data set.

        Args:
            name: of the data set.
            uri: where its bytes are, without credentials.
            sha256: of its bytes.
            columns: its columns; None if it is not a table.
            n_rows: its rows; None if they were not counted.
        """
        self.n_rows = n_rows
        schema = to_schema(columns) if columns else None
        super().__init__(source_of(uri), name=name, digest=sha256[:DIGEST_CHARS], schema=schema)

    def to_dict(self) -> dict[str, str]:
        """Describe it for MLflow's store, including the number of rows."""
        about: dict[str, str] = super().to_dict()
        return about | ({"profile": json.dumps(self.profile)} if self.profile else {})

    @property
    def profile(self) -> dict[str, int] | None:
        """Number of rows and of values, under MLflow's names; None if the rows were not counted."""
        if self.n_rows is None:
            return None
        n_columns = len(self.schema.inputs) if self.schema else 1
        return {"num_rows": self.n_rows, "num_elements": self.n_rows * n_columns}


def log_datasets(inputs: Sequence[tuple[Dataset, str]]) -> None:
    """Record the data sets that the active run reads, each with its context, in one request."""
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
        # MLflow refuses one of two runs that record the same new data set at the same moment
        client.log_inputs(run_id, datasets=entries)


def log_scores(scores: dict[str, float], *, model_uri: str, dataset: Dataset) -> None:
    """Log how a logged model does on a data set: metrics of the active run and of the model.

    Args:
        scores: metric -> value.
        model_uri: models:/m-...; with any other URI, only the run gets the metrics.
        dataset: what it was scored on.
    """
    mlflow.log_metrics(scores, model_id=model_id_of(model_uri), dataset=dataset)


def model_id_of(model_uri: str) -> str | None:
    """Return the id in the URI of a logged model; None for any other URI."""
    name = model_uri.removeprefix("models:/")
    return name if name.startswith("m-") and "/" not in name else None


def source_of(uri: str) -> DatasetSource:
    """Return a source that `mlflow.data.get_source(...).load()` opens, if MLflow knows its kind.

    One that cannot be opened, such as a simulated month, is recorded as text.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # a path and file: are the same
            return resolve_dataset_source(uri)
    except MlflowException:
        return CodeDatasetSource(tags={"uri": uri})


def artifact_source(run_id: str, folder: str) -> str:
    """Return where to open a folder of a run: its address at the tracking server, else its URI."""
    uri = folder_of(run_id)
    if uri.startswith(PROXIED):
        server = without_user(mlflow.get_tracking_uri()).rstrip("/")
        return f"{server}/get-artifact?run_uuid={run_id}&path={folder}"
    return f"{uri}/{folder}"


def to_schema(columns: pa.Schema) -> Schema:
    """Convert columns to MLflow's schema; types that it does not have become text."""
    return Schema([ColSpec(_kind(field.type), field.name) for field in columns])


def _kind(kind: Any) -> DataType:
    return next((name for matches, name in KINDS if matches(kind)), DataType.string)
