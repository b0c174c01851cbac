"""Conditions in MLflow's filter language, with their values quoted: the only place that does so."""

from storage import UserError


def equals(field: str, value: str) -> str:
    """Write the condition that a field has this value.

    Raises:
        UserError: the value cannot be quoted.
    """
    return f"{field} = {_quoted(value)}"


def differs(field: str, value: str) -> str:
    """Write the condition that a field has another value.

    Raises:
        UserError: the value cannot be quoted.
    """
    return f"{field} != {_quoted(value)}"


def begins(field: str, start: str) -> str:
    """Write the condition that a field begins with a text; as in SQL, `_` is any character.

    Raises:
        UserError: the text cannot be quoted.
    """
    return f"{field} LIKE {_quoted(f'{start}%')}"


def both(*conditions: str) -> str:
    """Join conditions that must all hold; empty ones are left out."""
    return " and ".join(condition for condition in conditions if condition)


def why_unsearchable(value: str) -> str:
    """Return why a value cannot be used in a condition; empty if it can.

    The language has no escapes: a value may contain one kind of quotes only, and a backslash at its
    end would swallow the closing quote.
    """
    if "'" in value and '"' in value:
        return "holds both ' and \""
    return "ends with a backslash" if value.endswith("\\") else ""


def _quoted(value: str) -> str:
    if wrong := why_unsearchable(value):
        raise UserError(f"Nothing can be searched for by {value!r}: it {wrong}. Use another name.")
    mark = '"' if "'" in value else "'"
    return f"{mark}{value}{mark}"
