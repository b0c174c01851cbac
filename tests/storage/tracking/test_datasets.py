"""Data sets in MLflow: identified by sha256, with columns, rows and a source that can be opened."""

import hashlib
import json
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from storage.data.digest import sha256_of
from storage.tracking import datasets, runs
from storage.tracking.datasets import HashedDataset
from tests.stores import Store

COLUMNS = pa.schema(
    [("at", pa.timestamp("us")), ("zone", pa.int32()), ("miles", pa.float64()), ("flag", pa.utf8())]
)


def test_a_data_set_has_its_hash_its_columns_its_rows_and_a_source_that_opens(
    store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "month"
    path.write_bytes(b"trips")
    sha256 = sha256_of(path)
    assert sha256 == hashlib.sha256(b"trips").hexdigest()
    month = HashedDataset(name="train", uri=str(path), sha256=sha256, columns=COLUMNS, n_rows=7)
    with runs.StepRun("preprocess", ""):
        run_id = runs.active().info.run_id
        datasets.log_datasets([(month, "training")])
    (given,) = mlflow.get_run(run_id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("train", sha256[: datasets.DIGEST_CHARS])
    assert {tag.value for tag in given.tags} == {"training"}
    assert json.loads(given.dataset.profile) == {"num_rows": 7, "num_elements": 28}
    columns = json.loads(given.dataset.schema)["mlflow_colspec"]
    types = {"at": "datetime", "zone": "integer", "miles": "double", "flag": "string"}
    assert {column["name"]: column["type"] for column in columns} == types
    assert Path(mlflow.data.get_source(given).load()).read_bytes() == b"trips"


@pytest.mark.parametrize("n_refusals", [1, 2])
def test_a_data_set_that_another_run_notes_at_the_same_moment_is_noted_at_the_second_try(
    store: Store, monkeypatch: pytest.MonkeyPatch, n_refusals: int
) -> None:
    answers = [MlflowException("UNIQUE constraint failed", error_code=BAD_REQUEST)] * n_refusals
    log_inputs = MlflowClient.log_inputs

    def race(client: MlflowClient, *args: Any, **options: Any) -> None:
        if answers:
            raise answers.pop()
        log_inputs(client, *args, **options)

    monkeypatch.setattr(MlflowClient, "log_inputs", race)
    month = HashedDataset(name="train", uri="u", sha256="0" * 64, columns=COLUMNS, n_rows=7)
    with runs.StepRun("preprocess", ""):
        if n_refusals > 1:  # the store really refuses
            with pytest.raises(MlflowException, match="UNIQUE"):
                datasets.log_datasets([(month, "training")])
            return
        datasets.log_datasets([(month, "training")])
        run_id = runs.active().info.run_id
    assert [given.dataset.name for given in mlflow.get_run(run_id).inputs.dataset_inputs] == [
        "train"
    ]


@pytest.mark.parametrize(
    ("uri", "kind", "kept"),
    [
        ("https://tlc/m.parquet", "http", {"url": "https://tlc/m.parquet"}),
        ("s3://tlc/m.parquet", "s3", {"uri": "s3://tlc/m.parquet"}),
        ("simulated:7:42", "code", {"tags": {"uri": "simulated:7:42"}}),
    ],
)
def test_a_source_is_of_the_kind_that_mlflow_opens(
    uri: str, kind: str, kept: dict[str, Any]
) -> None:
    source = datasets.source_of(uri)
    assert (source._get_source_type(), source.to_dict()) == (kind, kept)


def test_what_a_server_keeps_opens_at_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "folder_of", lambda run_id: "mlflow-artifacts:/1/a/artifacts")
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "https://ana:secret@mlflow/")
    found = datasets.artifact_source("1a", "data")
    assert f"{found}/t.parquet" == "https://mlflow/get-artifact?run_uuid=1a&path=data/t.parquet"


@pytest.mark.parametrize(
    ("uri", "model_id"), [("models:/m-1a", "m-1a"), ("models:/taxi/1", None), ("runs:/1/m", None)]
)
def test_a_logged_model_is_known_by_its_uri(uri: str, model_id: str | None) -> None:
    assert datasets.model_id_of(uri) == model_id
