"""Closing the active run: FINISHED only if its body ended without an error."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER,
)
from mlflow.exceptions import MlflowException

from storage import UserError
from storage.tracking import interrupted, refusals, tags
from storage.tracking.cost import Meter
from storage.uris import without_user

N_RETRIES, TIMEOUT_S = 2, 5  # per request, once something has gone wrong


@contextmanager
def closing_run() -> Iterator[None]:
    """Close the active run according to how the body ended, and log its cost."""
    meter = Meter()
    try:
        yield
    except BaseException as error:
        close_active(error, meter)
        raise
    close_active(None, meter)


def close_active(
    error: BaseException | None,
    meter: Meter | None = None,
    next_command: Callable[[], str] | None = None,
) -> None:
    """Close the active run: FINISHED, unless there is an error.

    The run is never left active: MLflow would mark it FINISHED when Python exits. If the store
    refuses to record an error, only the error itself matters and the refusal is not raised. If it
    refuses FINISHED, the run is closed as FAILED and the refusal is raised.

    Args:
        error: what ended the body; None = nothing went wrong.
        meter: measures the run's cost.
        next_command: returns the command to run once the error is mended.
    """
    run = mlflow.active_run()
    if run is None:
        return
    cost = meter.read() if meter else {}
    if error is None:
        try:
            write_final(run.info.run_id, cost, {})
            mlflow.end_run("FINISHED")
        except MlflowException as refused:
            _end(run.info.run_id, "FAILED", refused, cost)
            raise
        return
    status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
    _end(run.info.run_id, status, error, cost, next_command)


@contextmanager
def limit_retries(error: BaseException | None) -> Iterator[None]:
    """After an error, let MLflow retry a request for seconds only, not for minutes."""
    n_retries = 0 if error and refusals.is_unreachable(error) else N_RETRIES
    bounds: dict[str, str] = {
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: str(
            min(n_retries, MLFLOW_HTTP_REQUEST_MAX_RETRIES.get())
        ),
        MLFLOW_HTTP_REQUEST_TIMEOUT.name: str(min(TIMEOUT_S, MLFLOW_HTTP_REQUEST_TIMEOUT.get())),
        MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER.name: "false",
    }
    before = dict(os.environ)
    os.environ.update(bounds if error else {})
    try:
        yield
    finally:
        for name in bounds:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in bounds if name in before})


def _end(
    run_id: str,
    status: str,
    error: BaseException,
    cost: Mapping[str, float],
    next_command: Callable[[], str] | None = None,
) -> None:
    """Close a failed or killed run and record the reason, as far as the store allows."""
    client, command = MlflowClient(), ""
    with limit_retries(error):
        with suppress(MlflowException):
            command = next_command() if next_command and not refusals.is_unreachable(error) else ""
        with suppress(MlflowException):
            write_final(run_id, cost, failure_tags(status, reason_of(error), command))
        for _ in range(2):  # a refusal may be transient
            with suppress(MlflowException):
                _terminate(client, run_id, status)
                return


def _terminate(client: MlflowClient, run_id: str, status: str) -> None:
    active = mlflow.active_run()
    if active and active.info.run_id == run_id:
        mlflow.end_run(status)  # even if this raises, the run is no longer active
    else:
        client.set_terminated(run_id, status)


def reason_of(error: BaseException) -> str:
    """Return why a run failed or was killed, as its `failure` tag says it."""
    if isinstance(error, KeyboardInterrupt):
        return interrupted.REASON
    is_own_message = isinstance(error, (ValueError, UserError))
    message = str(error) if is_own_message else refusals.explain_refusal(error) or repr(error)
    return without_user(message)


def failure_tags(status: str, reason: str, command: str = "") -> dict[str, str]:
    """Return the tags of a failed run: the reason, and a page that adds the next command."""
    message = without_user(reason)
    # MLflow drops what looks like HTML, such as <folder>, except in `code`
    shown = re.sub("`[^`]*`|<", lambda part: "\\<" if part[0] == "<" else part[0], message)
    lines = [f"**{status}**: {shown}"]
    if command:
        # a run that somebody stopped has nothing to fix
        when = "Go on with:" if status == "KILLED" else "Once that is fixed:"
        lines += ["", when, "", f"    {command}"]
    return {tags.FAILURE: message, tags.NOTE: fit_page("\n".join(lines))}


MAX_CODE_WIDTH = 88  # characters; a wider code block pushes the rest of the page out of view


def fit_page(note: str) -> str:
    """Turn the commands that are too wide for a page into inline code, which wraps.

    MLflow makes a page as wide as its widest code block, and puts metrics and run details at the
    far end. Fenced blocks hold tables and stay as they are.
    """
    parts = re.split("(^```.*?^```)", note, flags=re.DOTALL | re.MULTILINE)
    parts[::2] = ["\n".join(map(_fit, part.split("\n"))) for part in parts[::2]]
    return "".join(parts)


def _fit(line: str) -> str:
    if not line.startswith("    ") or len(line) <= MAX_CODE_WIDTH:
        return line
    marks = "``" if "`" in line else "`"
    return f"{marks}{line.strip()}{marks}"


def write_final(run_id: str, cost: Mapping[str, float], tag_values: Mapping[str, str]) -> None:
    """Write metrics (linked to no model) and tags of a run in one request."""
    if not (cost or tag_values):
        return
    now = int(time.time() * 1000)
    MlflowClient().log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in cost.items()],
        tags=[RunTag(name, value) for name, value in tag_values.items()],
    )
