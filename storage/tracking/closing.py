"""Closing the active run: no path leads to FINISHED but a body that ended well."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import mlflow
from mlflow.exceptions import MlflowException

from storage import StoreGoneError, UserError
from storage.tracking import interrupted, tags
from storage.uris import without_user


@contextmanager
def closing_run() -> Iterator[None]:
    """Close the active run as the body has ended."""
    try:
        yield
    except BaseException as error:
        close_active(error)
        raise
    close_active(None)


def close_active(error: BaseException | None) -> None:
    """Close the active run: FINISHED, unless there is an error.

    Whatever happens meanwhile, it is not active afterwards: MLflow makes FINISHED what still is
    when Python ends.
    """
    if mlflow.active_run() is None:
        return
    if isinstance(error, StoreGoneError):
        # MLflow would try for minutes
        os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_REQUEST_TIMEOUT="5")
        with suppress(MlflowException):  # it may be back by now
            _end("FAILED", str(error))
    elif isinstance(error, KeyboardInterrupt):
        _end("KILLED", interrupted.REASON)
    elif error is None:
        mlflow.end_run("FINISHED")
    else:
        is_said = isinstance(error, (ValueError, UserError))
        _end("FAILED", str(error) if is_said else repr(error))


def _end(status: str, reason: str) -> None:
    try:
        mlflow.set_tag(tags.FAILURE, without_user(reason))
    finally:
        mlflow.end_run(status)
