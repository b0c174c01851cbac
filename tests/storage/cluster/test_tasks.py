"""What is sent to workers and back."""

from pathlib import Path

import cloudpickle
import pytest

import taxi
from storage.cluster import tasks
from storage.cluster.connection import connected
from taxi import TripError
from tests.clusters import dask_cluster


def test_a_function_travels_with_its_code() -> None:
    by_value = tasks.ByValue(lambda data: data + 1)
    again = cloudpickle.loads(cloudpickle.dumps(by_value))
    assert again(1) == by_value(1) == 2


def test_an_error_of_this_project_comes_back_as_what_it_is_here(tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise TripError(text)

    def fail(text: str) -> None:
        raise ValueError(text)

    before = dict(vars(TripError))
    with (
        dask_cluster(tmp_path) as dask,
        connected(dask.address, code=[taxi], packages=[], on_gpus=False) as workers,
    ):
        with pytest.raises(TripError, match="no trips"):
            workers.submit(refuse, "no trips").result(timeout=60)
        with pytest.raises(ValueError, match="no number") as caught:
            workers.submit(fail, "no number").result(timeout=60)
    assert caught.traceback[-1].name == "fail"  # an unexpected error shows where it was raised
    assert all(vars(TripError)[name] is value for name, value in before.items())
