"""What MLflow's model server says to a request that it cannot answer; travels with a saved model.

By itself that server answers a body without content type, or nested too deep, with status 500,
a csv with 400, and what it refuses with a stack or all of the caller's rows. A model that it loads
can reach the one function that its handler calls for a request, `invocations`, and guards that.
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
    """A request without an answer.

    MLflow's server would put all rows of the request before the message: it stays what it was.
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
        """Keep what was said first."""

    def get_http_status_code(self) -> int:
        """Return the status that goes with it."""
        return self.status


class GuardedModel:
    """A loaded model as the server's function asks it."""

    def __init__(self, model: Any, *, is_csv: bool) -> None:
        self.metadata = model.metadata
        self.served = model.unwrap_python_model()
        self.is_csv = is_csv
        self.remarks: list[str] = []  # on what was answered

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Answer, or say whose fault it is that there is no answer.

        The model looks at every column and param itself. So the look that MLflow takes at them
        before, and what that says of all rows, is left out.

        Raises:
            RequestError: the caller's, with status 400, or the server's, with 500.
        """
        with _telling_whose_fault():
            frame = self._as_frame(data)
            if not (len(frame) or len(frame.columns)):  # no rows need no names
                frame = frame.reindex(columns=self.metadata.get_input_schema().input_names())
            answer = self.served.predict(None, frame, params)
            self.remarks = self.served.model.remarks(frame)
            return answer

    def answer_plain(self, body: Any) -> str:
        """Write the answer to a JSON that holds nothing but plain rows; empty for any other one.

        It is the one that MLflow's function would write.

        Raises:
            RequestError: the server's, with status 500.
        """
        if type(body) is not dict or body.keys() != {RECORDS}:
            return ""
        with _telling_whose_fault():
            minutes = self.served.model.answer_plain(body[RECORDS])
        return "" if minutes is None else json.dumps({"predictions": minutes.tolist()})

    def _as_frame(self, data: Any) -> pd.DataFrame:
        if isinstance(data, pd.DataFrame):
            # pandas takes the first column for an index where rows are longer than the header
            if self.is_csv and not isinstance(data.index, pd.RangeIndex):
                raise MlflowException("The csv's rows have more fields than its header.")
            return data
        try:
            if isinstance(data, Mapping):
                is_row = not any(isinstance(v, list | np.ndarray) for v in data.values())
                return pd.DataFrame([data] if is_row else dict(data))
            return pd.DataFrame(data)
        except (TypeError, ValueError) as error:
            raise MlflowException(f"The rows are no table: {in_short(error)}.") from error


@contextmanager
def _telling_whose_fault() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        raise RequestError(error.message) from error
    except Exception as error:  # what the log holds is not for the caller
        logging.getLogger(__name__).exception("A request could not be answered.")
        raise RequestError(
            f"The server failed with {type(error).__name__}; its log says why.", status=500
        ) from error


def guard(server: ModuleType) -> None:
    """Guard the function that MLflow's server module answers requests with; once is enough."""
    if not hasattr(server.invocations, "__wrapped__"):
        answered = server.InvocationsResponse
        server.invocations = guarded(server.invocations, answered)  # type: ignore[attr-defined]


def guarded(answer: Callable[..., Any], answered_with: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the server's function so that it says of every bad request what is wrong with it.

    Args:
        answer: the function.
        answered_with: makes what it returns.
    """

    @wraps(answer)
    def answer_or_refuse(data: Any, content_type: str | None, model: Any, schema: Any) -> Any:
        kind = read_kind(content_type or "")
        # MLflow reads no csv whose columns may hold text or numbers unless it knows no types
        schema = None if kind == CSV else schema
        guarded_model = GuardedModel(model, is_csv=kind == CSV)
        body = _decoded(data) if kind == JSON else None
        if kind == JSON and (said := guarded_model.answer_plain(body)):
            return answered_with(response=said, status=200, mimetype=JSON)
        refuse_unread(body)
        try:
            answered = answer(data, kind, guarded_model, schema)
        except RequestError:
            raise
        except (MlflowException, RecursionError, TypeError, ValueError) as error:
            # only reading the body is left: all else is in GuardedModel
            reason = in_short(error)
            raise RequestError(
                f"Cannot read the body: {reason}. It must be {KINDS[kind]}."
            ) from error
        return with_warnings(answered, guarded_model.remarks)

    return answer_or_refuse


def read_kind(content_type: str) -> str:
    """Tell which of KINDS a body is, in whatever case and with whatever parameters its type stands.

    Raises:
        RequestError: it is none of them, or its characters are not UTF-8.
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


def refuse_unread(body: Any) -> None:
    """Refuse what stands beside the rows of a JSON, where MLflow's function would overlook it.

    Raises:
        RequestError: names it.
    """
    if type(body) is not dict or not (rows := sorted(ROWS & body.keys())):
        return  # it has no rows, which MLflow's function says better
    if unread := [key for key in body if key not in {*ROWS, PARAMS}]:
        raise RequestError(
            f"{unread[0][:40]!r} beside {rows[0]!r} is not read. What is asked of the rows belongs "
            f"into {PARAMS!r}, a column into each row."
        )


def _decoded(data: Any) -> Any:
    """Decode a JSON; None where it is none, which MLflow's function says better.

    Raises:
        RequestError: a name stands twice in one object, of which JSON keeps the last.
    """
    try:
        return json.loads(data, object_pairs_hook=_each_once)
    except (RecursionError, TypeError, ValueError):
        return None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in named if names.count(name) > 1)
        raise RequestError(f"{name[:40]!r} is there twice in one object. Send it once.")
    return named


def with_warnings(answered: Any, remarks: list[str]) -> Any:
    """Put what there is to say of the rows beside their predictions, an object's JSON."""
    if not remarks:
        return answered
    warned = f'{answered.response.rstrip()[:-1]}, "warnings": {json.dumps(remarks)}}}'
    return answered._replace(response=warned)


def send_at_once(server: Any) -> None:
    """Have the workers of a server send what they write as they write it; once is enough.

    The socket that uvicorn has several of them share waits, before it sends an answer's body, until
    the client has acknowledged its head, which clients put off by 40 ms.

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


def introduce(operation: Mapping[str, Any], page: str) -> None:
    """Have the server's /docs and /openapi.json say what its requests hold.

    FastAPI's own page fetches its scripts from elsewhere, and knows nothing of MLflow's requests.

    Args:
        operation: of OpenAPI, for POST /invocations.
        page: HTML.
    """
    from fastapi.responses import HTMLResponse  # which only a server has at hand

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


def in_short(error: Exception) -> str:
    """Put the reason of an error into one short line without control characters."""
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, RecursionError):
        return "it is nested too deep"
    text = " ".join(str(cause).split("\nInput:")[0].split())
    text = text.removeprefix("Invalid input. ").partition(" IMPORTANT:")[0]
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_REASON]).rstrip(". ")
