"""Checks of model names and URIs before any work: what registry, store and file system accept."""

import re
from urllib.parse import urlsplit

from mlflow.store.artifact.artifact_repository_registry import (
    get_registered_artifact_repositories,
)
from mlflow.utils.validation import path_not_unique

from storage import UserError
from storage.tracking.query import why_unsearchable
from storage.uris import N_SHOWN, refuse_password, without_credentials

MAX_NAME = 255  # bytes of a file's name; MLflow's tables hold one character more
MAX_URI = 4000  # characters
MAX_VERSION = 2**31 - 1  # the largest integer in a column of PostgreSQL
PROFILE = re.compile(r"//[^/]*@databricks(-uc)?(/|$)")  # a colon before a key, no password
MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


def check_name(name: str) -> None:
    """Refuse a name that cannot be registered, searched for and served, before any training.

    MLflow itself refuses some of these only when the model is registered, and accepts others that
    no URI can load.

    Raises:
        UserError: what is wrong with the name.
    """
    if wrong := _wrong_in_name(name):
        raise UserError(
            f"model_name {_cut(name)} cannot be registered and served: it {wrong}. "
            "Pass a name without / and :, such as -P model_name=nyc-taxi-duration."
        )


def check_model_uri(uri: str) -> None:
    """Refuse a text that cannot be the URI of a model, before any request.

    A password in it is refused, too: `mlflow run` has logged it already, and nothing else must.

    Raises:
        UserError: what is wrong with it.
    """
    if wrong := _wrong_in_uri(uri):
        raise UserError(
            f"model_uri {_cut(without_credentials(uri))} names no model: it {wrong}. "
            "Pass models:/<name>@champion, models:/<name>/<version>, or where its files are."
        )
    if not PROFILE.search(uri):
        refuse_password(uri, "The model_uri", "as MLFLOW_TRACKING_PASSWORD or in ~/.netrc")


def _wrong_in_name(name: str) -> str:
    if wrong := _wrong_in_text(name):
        return wrong
    # MLflow refuses / and :, cuts models:/<name>/1 at a ?, and takes an alias after an @
    if cut := [mark for mark in name if mark in "/:?@"]:
        return f"holds {cut[0]}"
    if wrong := why_unsearchable(name):
        return wrong
    if path_not_unique(name):  # such as ..
        return "is no name of a file"
    if (n_bytes := len(name.encode())) > MAX_NAME:
        return f"has {n_bytes} bytes, and a file's name holds {MAX_NAME}"
    return ""


def _wrong_in_text(text: str) -> str:
    if not text.strip():
        return "is empty"
    if text != text.strip():
        return "begins or ends with a blank"
    if unprintable := [mark for mark in text if not mark.isprintable()]:
        return f"holds {unprintable[0]!r}, which cannot be seen"
    return ""


def _wrong_in_uri(uri: str) -> str:
    if wrong := _wrong_in_text(uri):
        return wrong
    if len(uri) > MAX_URI:
        return f"has {len(uri)} characters"
    try:
        parts = urlsplit(uri, allow_fragments=False)
    except ValueError as error:  # such as a bracket that is not closed
        return f"is no URI: {error}"
    known = sorted(scheme for scheme in get_registered_artifact_repositories() if scheme)
    if parts.scheme and parts.scheme not in known:
        return f"begins with {parts.scheme}:, which is none of {', '.join(known)}"
    if parts.scheme == "models":
        return _wrong_in_registered(parts.path)
    if parts.scheme and not (parts.netloc or parts.path.strip("/")):
        return f"says nothing after {parts.scheme}:"
    return ""


def _wrong_in_registered(path: str) -> str:
    """Return what is wrong with the part of a URI after models:; empty if nothing is."""
    name, _, rest = path.lstrip("/").partition("/")
    if not path.startswith("/") or not name.strip():
        return "has no name after models:/"
    name, mark, alias = name.partition("@")
    if mark and not (name.strip() and alias.strip() and "@" not in alias):
        return "has no name before the @, or no alias after it"
    version = rest.partition("/")[0]
    if version.isascii() and version.isdigit() and not 0 < int(version[:20]) <= MAX_VERSION:
        return f"asks for version {_cut(version)}"
    if not mark and not version and not MODEL_ID.fullmatch(name):
        return "has neither a version nor an alias after the name"
    return ""


def _cut(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= N_SHOWN else f"{shown[:N_SHOWN]}... ({len(text)} characters)"
