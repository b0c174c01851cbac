"""How MLflow's model server answers bad requests; this module is saved with each model.

By itself the server answers a body without content type, or nested too deep, with status 500, and a
csv with 400; its refusals contain a stack trace or all of the caller's rows. The model that it
loads can reach the one function that it calls for each request, `invocations`, and wraps that.
"""

import codecs
import json
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

MAX_REASON = 200  # characters
KINDS = {  # content type -> what its body holds
    "application/json": 'JSON. Send {"dataframe_records": [{<column>: <value>}]}',
    "text/csv": "csv. Send a header and a line for each row",
    "application/vnd.apache.parquet": "parquet",
}
JSON, CSV = "application/json", "text/csv"
RECORDS = "dataframe_records"
ROWS = {RECORDS, "dataframe_split", "instances", "inputs"}  # MLflow's names for a JSON's rows
PARAMS = "params"


class RequestError(MlflowException):
    """A request that cannot be answered.

    The message cannot be changed: MLflow's server would put all rows of the request before it.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message, INTERNAL_ERROR if status >= 500 else INVALID_PARAMETER_VALUE)
        self.status = status

    @property
    def message(self) -> str:
        """What is wrong, in one line."""
        return str(self)

    @message.setter
    def message(self, text: str) -> None:
        """Ignore the new text and keep the original message."""

    def get_http_status_code(self) -> int:
        """Return the HTTP status of the response."""
        return self.status


class GuardedModel:
    """A loaded model as the server's function calls it."""

    def __init__(self, model: Any, *, is_csv: bool) -> None:
        self.metadata = model.metadata
        self.served = model.unwrap_python_model()
        self.is_csv = is_csv
        self.warnings: list[str] = []  # on the rows that were answered last

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Predict, or say whose fault it is that this failed.

        The model checks every column and param itself, so MLflow's own check, whose messages list
        all rows, is skipped.

        Raises:
            RequestError: the caller's fault, with status 400, or the server's, with 500.
        """
        with _as_request_errors():
            frame = self._as_frame(data)
            if not (len(frame) or len(frame.columns)):  # an empty table needs no column names
                frame = frame.reindex(columns=self.metadata.get_input_schema().input_names())
            answer = self.served.predict(None, frame, params)
            self.warnings = self.served.model.list_warnings(frame)
            return answer

    def answer_plain(self, body: Any) -> str:
        """Return the response to a JSON body of plain rows only; empty for any other body.

        It is the same text that MLflow's function would return.

        Raises:
            RequestError: the server's fault, with status 500.
        """
        if type(body) is not dict or body.keys() != {RECORDS}:
            return ""
        with _as_request_errors():
            minutes = self.served.model.answer_plain(body[RECORDS])
        return "" if minutes is None else json.dumps({"predictions": minutes.tolist()})

    def _as_frame(self, data: Any) -> pd.DataFrame:
        if isinstance(data, pd.DataFrame):
            # pandas takes the first column for an index if rows are longer than the header
            if self.is_csv and not isinstance(data.index, pd.RangeIndex):
                raise MlflowException("The csv's rows have more fields than its header.")
            return data
        try:
            if isinstance(data, Mapping):
                is_row = not any(isinstance(v, list | np.ndarray) for v in data.values())
                return pd.DataFrame([data] if is_row else dict(data))
            return pd.DataFrame(data)
        except (TypeError, ValueError) as error:
            raise MlflowException(f"The rows are no table: {short_reason(error)}.") from error


@contextmanager
def _as_request_errors() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise RequestError(error.message) from error
    except Exception as error:  # the details are for the log, not for the caller
        logging.getLogger(__name__).exception("A request could not be answered.")
        raise RequestError(
            f"The server failed with {type(error).__name__}; its log says why.", status=500
        ) from error


def guard(server: ModuleType) -> None:
    """Wrap the function that answers requests in MLflow's server module, unless already done."""
    if not hasattr(server.invocations, "__wrapped__"):
        answered = server.InvocationsResponse
        server.invocations = guarded(server.invocations, answered)  # type: ignore[attr-defined]


def guarded(answer: Callable[..., Any], answered_with: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the server's function so that it says what is wrong with a bad request.

    Args:
        answer: the function.
        answered_with: constructor of its return value.
    """

    @wraps(answer)
    def answer_or_refuse(data: Any, content_type: str | None, model: Any, schema: Any) -> Any:
        kind = read_kind(content_type or "")
        # given a schema, MLflow reads no csv whose columns may hold text or numbers
        schema = None if kind == CSV else schema
        guarded_model = GuardedModel(model, is_csv=kind == CSV)
        body = _decoded(data) if kind == JSON else None
        if kind == JSON and (response := guarded_model.answer_plain(body)):
            return answered_with(response=response, status=200, mimetype=JSON)
        refuse_unknown_keys(body)
        try:
            answered = answer(data, kind, guarded_model, schema)
        except RequestError:
            raise
        except (MlflowException, RecursionError, TypeError, ValueError) as error:
            # raised by reading the body: GuardedModel turns all else into RequestErrors
            reason = short_reason(error)
            raise RequestError(
                f"Cannot read the body: {reason}. It must be {KINDS[kind]}."
            ) from error
        return with_warnings(answered, guarded_model.warnings)

    return answer_or_refuse


def read_kind(content_type: str) -> str:
    """Return which of KINDS a content type is, whatever its case and parameters.

    Raises:
        RequestError: it is none of them, or its charset is neither UTF-8 nor ASCII.
    """
    header = Message()
    header["Content-Type"] = content_type
    kind = content_type.split(";")[0].strip().lower()
    if kind not in KINDS:
        seen = f"Content type {kind[:40]!r} is not read" if kind else "No content type"
        raise RequestError(f"{seen}. Send one of {', '.join(KINDS)}.", status=415)
    charset = header.get_content_charset("utf-8")
    try:
        is_read = codecs.lookup(charset).name in ("utf-8", "ascii")
    except (LookupError, ValueError):
        is_read = False
    if not is_read:
        raise RequestError(f"Charset {charset[:40]!r} is not read. Send UTF-8.", status=415)
    return kind


def refuse_unknown_keys(body: Any) -> None:
    """Refuse unknown keys beside the rows of a JSON body, which MLflow's function would ignore.

    Raises:
        RequestError: there is one; names it.
    """
    if type(body) is not dict or not (rows := sorted(ROWS & body.keys())):
        return  # no rows: MLflow's function has the better message
    if unread := [key for key in body if key not in {*ROWS, PARAMS}]:
        raise RequestError(
            f"{unread[0][:40]!r} beside {rows[0]!r} is not read. What is asked of the rows belongs "
            f"into {PARAMS!r}, a column into each row."
        )


def _decoded(data: Any) -> Any:
    """Decode a JSON body; None if it is invalid: MLflow's function has the better message.

    Raises:
        RequestError: an object has the same key twice, of which JSON keeps the last.
    """
    try:
        return json.loads(data, object_pairs_hook=_refuse_repeated_keys)
    except (RecursionError, TypeError, ValueError):
        return None


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in named if names.count(name) > 1)
        raise RequestError(f"{name[:40]!r} is there twice in one object. Send it once.")
    return named


def with_warnings(answered: Any, warnings: list[str]) -> Any:
    """Add warnings on the rows as `warnings` to a response, whose body is a JSON object."""
    if not warnings:
        return answered
    warned = f'{answered.response.rstrip()[:-1]}, "warnings": {json.dumps(warnings)}}}'
    return answered._replace(response=warned)


def set_tcp_nodelay(server: Any) -> None:
    """Patch a server to set TCP_NODELAY on its workers' shared sockets, unless already done.

    Without it, a socket that uvicorn's workers share sends the body of a response only after the
    client has acknowledged its head, which clients delay by 40 ms.

    Args:
        server: uvicorn's class.
    """
    start = server.startup

    @wraps(start)
    async def startup(self: Any, sockets: Sequence[socket.socket] | None = None) -> None:
        for shared in sockets or ():
            if shared.family != socket.AF_UNIX:
                shared.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await start(self, sockets=sockets)

    if not hasattr(start, "__wrapped__"):
        server.startup = startup


def patch_openapi(operation: Mapping[str, Any], page: str) -> None:
    """Make the server's /docs and /openapi.json describe its requests.

    FastAPI's own page loads scripts from other hosts, and knows nothing of MLflow's requests.

    Args:
        operation: OpenAPI's description of POST /invocations.
        page: HTML of /docs.
    """
    from fastapi.responses import HTMLResponse  # only a server has it

    applications: Any = import_module("fastapi.applications")
    make = applications.get_openapi

    @wraps(make)
    def get_openapi(**given: Any) -> dict[str, Any]:
        schema = make(**given)
        schema["info"]["title"] = operation["summary"]
        schema["paths"].get("/invocations", {}).get("post", {}).update(operation)
        return schema

    applications.get_openapi = get_openapi
    for name in ("get_swagger_ui_html", "get_redoc_html"):
        setattr(applications, name, lambda **_: HTMLResponse(page))


def short_reason(error: Exception) -> str:
    """Return the reason of an error as one short line without control characters."""
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, RecursionError):
        return "it is nested too deep"
    text = " ".join(str(cause).split("\nInput:")[0].split())
    text = text.removeprefix("Invalid input. ").partition(" IMPORTANT:")[0]
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_REASON]).rstrip(". ")
