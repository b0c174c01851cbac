"""Addresses that users type, without what may be secret in them, or as folders: the only place.

It needs the standard library alone: tools.doctor runs before there is an environment.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from storage import UserError

# What stands before the host: all up to its last @; or, where a password holds a slash that nobody
# has encoded, from a colon that no port follows up to the @, or up to the last @ that a host with a
# port follows. A host of IPv6 begins with a bracket.
_OPEN = r"[^/\s:@?#\[]*:(?![0-9]*(?:[/?#\s]|$))"
_USER = re.compile(
    rf"(?<=://)(?:{_OPEN}(?:(?!://)\S)*@(?=[\w.-]+:[0-9]+(?:[/?#\s]|$))"
    rf"|[^/\s]*@|{_OPEN}(?:(?!://)[^\s@])*@)"
)
_USER_WITH_A_BLANK = re.compile(
    r"(?<=://)[^/?#]*\s[^/?#]*@"
)  # of a text that is a URI, and no more
FROM_ENVIRONMENT = "env:"  # before the name of a variable that holds the address
N_SHOWN = 60  # characters of what was passed
_QUERY, _QUERY_OR_FRAGMENT = re.compile(r"\?.*", re.DOTALL), re.compile(r"[?#].*", re.DOTALL)


def without_credentials(uri: str) -> str:
    """Cut user, password, query and fragment out of a URI; any other text stays as it is.

    A URI without a host, such as sqlite:///a#b.db, is the path of a file, and keeps its #.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*", scheme):
        return uri
    secret = _QUERY if rest.startswith("/") else _QUERY_OR_FRAGMENT
    return secret.sub("", without_user(_USER_WITH_A_BLANK.sub("", uri)))


def without_user(text: str) -> str:
    """Cut user and password out of every URI in a text; all else stays as it is."""
    return _USER.sub("", text)


def holds_password(uri: str) -> bool:
    """Whether a password stands before the host of a URI; a user alone is no secret."""
    before = _USER_WITH_A_BLANK.search(uri) or _USER.search(uri)
    return before is not None and ":" in before[0]


def refuse_password(uri: str, what: str, instead: str) -> None:
    """Refuse a parameter that holds a password, which `mlflow run` notes before a step begins.

    Args:
        uri: its value.
        what: the parameter, such as "The source".
        instead: where the password belongs.
    Raises:
        UserError: a password stands before the host.
    """
    if holds_password(uri):
        public = without_credentials(uri)[:N_SHOWN]
        raise UserError(
            f"{what} {public!r} was passed with a password, which `mlflow run` logs with the "
            f"run in plain text: change it. Pass the address without, and the password {instead}."
        )


def refuse_query(uri: str, what: str, instead: str) -> None:
    """Refuse a parameter whose query or fragment may be a signature or a token; as refuse_password.

    Raises:
        UserError: it has one.
    """
    public = without_credentials(uri)
    if public != without_user(uri):
        raise UserError(
            f"{what} {public[:N_SHOWN]!r} was passed with a query, which may be a secret and which "
            f"`mlflow run` logs with the run in plain text. Pass {instead}."
        )


def read_indirect(text: str, what: str) -> str:
    """Return an address, read from the environment where env:<NAME> stands for it.

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
    """Return the path that a text names, its ~ replaced unless nobody has that name."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of a user nobody knows: a file of that name may be meant
        return Path(text)


def existing_folder(text: str) -> Path | None:
    """Return the folder of this machine that a text names; None where there is none."""
    try:
        folder = Path(text).expanduser().resolve()
        return folder if text.strip() and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, of a user nobody knows, or with a NUL
        return None
