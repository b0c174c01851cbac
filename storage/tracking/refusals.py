"""Why a store, or a proxy before it, refuses: one line that says what to do."""

import errno
import os
import re
import traceback
from collections.abc import Iterator
from http import HTTPStatus

import mlflow
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.credentials import read_mlflow_creds

from storage import UserError, one_line
from storage.uris import without_user

RETRY_LATER_HINT = "Run this again later: steps that have finished are not run twice."
LOGIN_ADVICE = (
    "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
)
NETRC_ADVICE = (
    "~/.netrc has an entry for its host, which goes before MLFLOW_TRACKING_USERNAME and its like: "
    "write the server's user there, or take it out."
)
# file requests only: for runs and models the server decodes user names differently
NOT_ASCII_ADVICE = (
    f"{LOGIN_ADVICE} Where they are right: MLflow's own server takes no files from a user whose "
    "name or password is not ASCII, so have its admin make one of plain letters."
)
ADVICE_BY_STATUS: dict[int, str] = {  # by HTTP status
    301: "Set MLFLOW_TRACKING_URI to the address that it has now.",
    400: "Check MLFLOW_TRACKING_URI, and that the server is as new as the MLflow here.",
    401: LOGIN_ADVICE,
    403: "Ask for the permission to read and edit this experiment and model, or log in as another.",
    404: "Check MLFLOW_TRACKING_URI, and that what is asked for was not deleted.",
    407: "Set HTTPS_PROXY with the user of the proxy, or NO_PROXY.",
    413: "Let the proxy before the server take larger bodies (nginx: client_max_body_size).",
    429: f"It received too many requests. {RETRY_LATER_HINT}",
    507: "Make room on the server.",
}
DISK_FULL_ADVICE = (
    "Make room there, or point TMPDIR, TAXI_CACHE or MLFLOW_TRACKING_URI to another disk."
)
DENIED_ADVICE = "Let this user write there, or set another place."
ERRNOS: dict[int, str] = {  # errors that no code can mend
    errno.ENOSPC: DISK_FULL_ADVICE,  # also the code for no inodes left
    errno.EDQUOT: DISK_FULL_ADVICE,
    errno.EROFS: DENIED_ADVICE,
    errno.EACCES: DENIED_ADVICE,
    errno.EPERM: DENIED_ADVICE,
    errno.EIO: "Look at the disk.",
    errno.EMFILE: "Raise the limit: ulimit -n 4096.",
}
# MLflow's own clients, which do not check what a response contains
READERS = ("mlflow.store.artifact.http_artifact_repo", "mlflow.store.tracking.rest_store")
CLIENTS = ("botocore", "boto3", "google", "azure", "urllib3")  # of artifact stores
HTML = re.compile(r"\s*<(!doctype|html|head|body)", re.I)
# a request with an empty id, because an earlier response held none
NO_ID = re.compile(
    r"Missing value for required parameter '(experiment|run|model)_(id|uuid)'|experiment ID ''"
)
CODE = re.compile(  # status of a request, and of each file that MLflow could not download
    r"^API request to endpoint .* failed with error code (\d{3})"
    r"|^(\d{3}) (?:Client|Server) Error: ",
    re.M,
)
DELETED = re.compile(r"The run ([0-9a-f]{32}) must be in the 'active' state")
PROXY_ADVICE = "Look at the proxy before it, which changes its answers."
# for files that were logged through a server, but are read through the database behind it
PROXIED_ADVICE = "A tracking server hands out its files: set MLFLOW_TRACKING_URI to its address."
DATABASE_ADVICE = "Look whether the database answers, has room and may be written."


def explain_refusal(error: BaseException) -> str:
    """Explain in one line why a store refused; empty if the error is something else.

    The server may quote an address with a password, which is removed.
    """
    for cause in _causes(error):
        if line := _explain(cause):
            return without_user(line)
    return ""


def find_first_error(error: BaseException) -> UserError | None:
    """Return the UserError that came first, if closing its run raised this error; else None."""
    return next((cause for cause in _causes(error) if isinstance(cause, UserError)), None)


def is_unreachable(error: BaseException) -> bool:
    """Whether the store did not answer, after all of MLflow's retries."""
    silent = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    causes = [*_causes(error)]
    is_from_mlflow = any(isinstance(cause, MlflowException) for cause in causes)
    return is_from_mlflow and any(isinstance(cause, silent) for cause in causes)


def is_missing(error: BaseException) -> bool:
    """Whether a store says that something does not exist, not just that it refuses or fails."""
    missing = "RESOURCE_DOES_NOT_EXIST"
    return isinstance(error, MlflowException) and error.error_code == missing


def is_no_such_id(error: MlflowException) -> bool:
    """Whether a store says that there is nothing with this id, or that the id is invalid."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def explain_answer(answer: requests.Response) -> str:
    """Explain why a response cannot come from an MLflow server; empty if it can."""
    if HTML.match(answer.text):
        page = "with a web page, such as a login's"
        message = page if answer.ok else f"{_status(answer.status_code)}, {page}"
        return f"answers {message}. {LOGIN_ADVICE if answer.ok else _advice(answer.status_code)}"
    if not answer.ok:
        return f"answers {_status(answer.status_code)}. {_advice(answer.status_code)}"
    try:
        answer.json()
    except requests.JSONDecodeError:
        return "answers with something that is not MLflow's. Check MLFLOW_TRACKING_URI."
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _explain(error: BaseException) -> str:
    if isinstance(error, requests.RequestException):
        return _explain_request(error)
    if isinstance(error, OSError) and error.errno in ERRNOS:
        where = f": {error.filename}" if error.filename else ""
        return f"{os.strerror(error.errno)}{where}. {ERRNOS[error.errno]}"
    if isinstance(error, MlflowException):
        return _explain_mlflow(error)
    package = type(error).__module__.partition(".")[0]  # by name: importing them takes long
    if package == "sqlalchemy" and type(error).__name__ in ("OperationalError", "InterfaceError"):
        # SQLAlchemy may put its own operation before the driver's message
        message = str(getattr(error, "orig", error)).partition("\n")[0]
        return f"The database of the store says: {one_line(Exception(message))}. {DATABASE_ADVICE}"
    if isinstance(error, (AttributeError, LookupError, TypeError)) and _raised_in(error) in READERS:
        return f"The server answers with what is not MLflow's. {LOGIN_ADVICE}"
    if package in CLIENTS:
        message = one_line(Exception(str(error)))
        own = "" if "amazonaws.com" not in message else " An S3 of your own: set AWS_ENDPOINT_URL."
        return f"The store of files says: {message}. Check its address and credentials.{own}"
    return ""


def _raised_in(error: BaseException) -> str:
    """Return the module of the function that raised."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", ""))


def _explain_request(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"The server {explain_answer(error.response)}"
    if code := re.search(r"too many (\d{3}) error responses", str(error)):
        return (
            f"The server answers {_status(int(code[1]))} again and again. {_advice(int(code[1]))}"
        )
    if isinstance(error, requests.JSONDecodeError):
        return f"The server answers with something that is not MLflow's. {LOGIN_ADVICE}"
    return f"The server's answer was incomplete ({type(error).__name__}). {RETRY_LATER_HINT}"


def _explain_mlflow(error: MlflowException) -> str:
    if deleted := DELETED.search(str(error)):
        return (
            f"Run {deleted[1]}, or its experiment, was deleted before it had finished. Run this "
            f"again; after `mlflow runs restore --run-id {deleted[1]}` its results are reused."
        )
    if isinstance(error, RestException):
        if NO_ID.search(str(error)):
            return f"The server created something but returned no id. {PROXY_ADVICE}"
        if error.error_code == "INVALID_PARAMETER_VALUE":
            return ""  # a bad request by this project: a bug
        code = error.get_http_status_code()
        return f"The server refuses ({one_line(error)}). {_advice(code)}"
    text = str(error)
    if "tracking URI must be a valid http or https URI" in text:
        return PROXIED_ADVICE
    body = text.partition("Response body: '")[2]
    if "not in a valid JSON format" in text:
        what = "a web page, such as a login's" if HTML.match(body) else "what is not MLflow's"
        return f"The server answers with {what}. {LOGIN_ADVICE}"
    if code := CODE.search(text):
        status = int(code[1] or code[2])
        page = ", with a web page, such as a login's" if HTML.match(body) else ""
        return f"The server answers {_status(status)}{page}. {_advice(status)}"
    return ""


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _advice(code: int) -> str:
    if code == 401 and requests.utils.get_netrc_auth(mlflow.get_tracking_uri()):
        return NETRC_ADVICE
    if code == 401 and not "".join(filter(None, read_mlflow_creds())).isascii():
        return NOT_ASCII_ADVICE
    if code in ADVICE_BY_STATUS:
        return ADVICE_BY_STATUS[code]
    return f"See the server's log. {RETRY_LATER_HINT}" if code >= 500 else ADVICE_BY_STATUS[400]
