"""Addresses that users type: removing secrets from them and reading them, in one place.

Needs only the standard library: tools.doctor runs before there is an environment.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from storage import UserError

# User and password before the host: all up to its last @; or, if the password has a slash that is
# not encoded, from a colon that no port follows up to the @, or up to the last @ before a host with
# a port. An IPv6 host begins with a bracket.
_OPEN = r"[^/\s:@?#\[]*:(?![0-9]*(?:[/?#\s]|$))"
_USER = re.compile(
    rf"(?<=://)(?:{_OPEN}(?:(?!://)\S)*@(?=[\w.-]+:[0-9]+(?:[/?#\s]|$))"
    rf"|[^/\s]*@|{_OPEN}(?:(?!://)[^\s@])*@)"
)
_USER_WITH_A_BLANK = re.compile(r"(?<=://)[^/?#]*\s[^/?#]*@")  # only for a text that is one URI
FROM_ENVIRONMENT = "env:"  # prefix of the name of a variable that holds the address
N_SHOWN = 60  # characters of a value, in a message
_QUERY, _QUERY_OR_FRAGMENT = re.compile(r"\?.*", re.DOTALL), re.compile(r"[?#].*", re.DOTALL)


def without_credentials(uri: str) -> str:
    """Remove user, password, query and fragment from a URI; any other text stays as it is.

    A URI without a host, such as sqlite:///a#b.db, is the path of a file, and keeps its #.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*", scheme):
        return uri
    secret = _QUERY if rest.startswith("/") else _QUERY_OR_FRAGMENT
    return secret.sub("", without_user(_USER_WITH_A_BLANK.sub("", uri)))


def without_user(text: str) -> str:
    """Remove user and password from every URI in a text; all else stays as it is."""
    return _USER.sub("", text)


def holds_password(uri: str) -> bool:
    """Whether a URI has a password before its host; a user alone is no secret."""
    before = _USER_WITH_A_BLANK.search(uri) or _USER.search(uri)
    return before is not None and ":" in before[0]


def refuse_password(uri: str, what: str, instead: str) -> None:
    """Refuse a parameter with a password, which `mlflow run` logs before a step begins.

    Args:
        uri: the parameter's value.
        what: the parameter, such as "The source".
        instead: where the password belongs.
    Raises:
        UserError: there is a password before the host.
    """
    if holds_password(uri):
        public = without_credentials(uri)[:N_SHOWN]
        raise UserError(
            f"{what} {public!r} was passed with a password, which `mlflow run` logs with the "
            f"run in plain text: change it. Pass the address without, and the password {instead}."
        )


def refuse_query(uri: str, what: str, instead: str) -> None:
    """Refuse a parameter with a query or fragment, which may be a signature or a token.

    Arguments as for refuse_password.

    Raises:
        UserError: it has one.
    """
    public = without_credentials(uri)
    if public != without_user(uri):
        raise UserError(
            f"{what} {public[:N_SHOWN]!r} was passed with a query, which may be a secret and which "
            f"`mlflow run` logs with the run in plain text. Pass {instead}."
        )


def expand_env_address(text: str, what: str) -> str:
    """Return an address; env:<NAME> is read from that variable of the environment.

    Args:
        text: as it was passed.
        what: the parameter, such as "source".
    Raises:
        UserError: the environment has no such variable, or nothing in it.
    """
    if not text.startswith(FROM_ENVIRONMENT):
        return text
    name = text.removeprefix(FROM_ENVIRONMENT)
    if not os.environ.get(name):
        shown = f"{what}={FROM_ENVIRONMENT}<NAME>"
        raise UserError(f"{shown}, and there is no {name[:N_SHOWN]} in the environment.")
    return os.environ[name]


def file_path(uri: str) -> str:
    """Return the path that a URI such as file:///a%20b names; any other text stays as it is."""
    if not uri.lower().startswith("file://"):
        return uri
    return unquote(uri[len("file://") :].removeprefix("localhost"))


def expand_home(text: str) -> Path:
    """Return the path that a text names, with its ~ expanded if the user is known."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of an unknown user: a file of that name may be meant
        return Path(text)


def existing_folder(text: str) -> Path | None:
    """Return the local folder that a text names; None if there is none."""
    try:
        folder = Path(text).expanduser().resolve()
        return folder if text.strip() and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, of an unknown user, or with a NUL
        return None
