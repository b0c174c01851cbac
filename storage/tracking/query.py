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
        UserError: as of equals.
    """
    return f"{field} != {_quoted(value)}"


def begins(field: str, start: str) -> str:
    """Write the condition that a field begins so; `_` stands for any character, as SQL has it.

    Raises:
        UserError: as of equals.
    """
    return f"{field} LIKE {_quoted(f'{start}%')}"


def both(*conditions: str) -> str:
    """Write that all of these conditions hold; empty ones hold always."""
    return " and ".join(condition for condition in conditions if condition)


def why_unsearchable(value: str) -> str:
    """Return what keeps a value out of a condition, empty where nothing does.

    The language has no escapes: a value may hold one kind of quotes, and a backslash at its end
    would take the closing one.
    """
    if "'" in value and '"' in value:
        return "holds both ' and \""
    return "ends with a backslash" if value.endswith("\\") else ""


def _quoted(value: str) -> str:
    if wrong := why_unsearchable(value):
        raise UserError(f"Nothing can be searched for by {value!r}: it {wrong}. Use another name.")
    mark = '"' if "'" in value else "'"
    return f"{mark}{value}{mark}"
