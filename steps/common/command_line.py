"""Parse the command line of a step, and write its help."""

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from steps.common.declaration import Parameters, fields_of, file_names, groups_of
from steps.common.parameter_file import POINTS, ParameterFile, read_parameter_file
from steps.common.parameters import ENTRY_POINTS
from storage import UserError
from storage.checkout import as_text

P = TypeVar("P", bound=Parameters)


class _Parser(argparse.ArgumentParser):
    """A parser that refuses in one line, without the usage, and lists choices only in --help."""

    def __init__(self, declared: type[Parameters], description: str | None) -> None:
        self.module = declared.module()
        super().__init__(
            prog=declared.entry_point,
            usage=f"python -m {self.module} [--<parameter>=<value> ...]",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.fields = fields_of(declared)
        self.parameters: dict[str, argparse.Action] = {}
        for title, names in groups_of(declared).items():
            group = self.add_argument_group(title)
            for name in names:
                default = as_text(self.fields[name].default)
                self.parameters[name] = group.add_argument(f"--{name}", default=default)

    def error(self, message: str) -> NoReturn:
        advice = suggest_name(message, list(self.fields))
        raise UserError(f"{message}.{advice} See python -m {self.module} --help.")

    def format_help(self) -> str:
        named = choices()
        for name, action in self.parameters.items():
            field, names = self.fields[name], named.get(name, [])
            action.metavar, action.help = placeholder(field, names), help_text(field, names)
        return super().format_help()


def make_parser(declared: type[Parameters], description: str | None) -> argparse.ArgumentParser:
    """Build the parser of an entry point; it leaves values as text, for `parse` to convert."""
    return _Parser(declared, description)


def suggest_name(message: str, names: Sequence[str]) -> str:
    """Suggest what an unknown parameter was meant to be; empty if no name is similar."""
    if typed := re.match(r"unrecognized arguments: -P ?([\w-]+=\S*)", message):
        return f" -P is mlflow run's: type --{typed[1]} here."
    unknown = re.match(r"unrecognized arguments: --([\w-]+)", message)
    close = difflib.get_close_matches(unknown[1].replace("-", "_"), names, 1) if unknown else []
    return f" Did you mean {close[0]}?" if close else ""


# --- help


def choices() -> dict[str, list[str]]:
    """List the choices of each parameter that takes names; importing the tables is slow."""
    from steps.common.validate import DEVICES, REFITS
    from taxi.baselines import BASELINES
    from taxi.distances import JUDGE_BY
    from taxi.features import FEATURE_SETS
    from taxi.live import MODES
    from taxi.schema import TAXIS
    from taxi.spaces import SEARCH_SPACES

    tables: dict[str, Iterable[str]] = {
        **{"taxi": TAXIS, "features": FEATURE_SETS, "search_space": SEARCH_SPACES},
        **{"device": DEVICES, "refit": REFITS, "judge_by": JUDGE_BY, "live": MODES},
        "models": BASELINES,
    }
    return {name: list(table) for name, table in tables.items()}


def placeholder(field: FieldInfo, names: Sequence[str]) -> str:
    """Write the placeholder for a parameter's value in --help."""
    if field.annotation is bool:
        return "{true,false}"
    if names and field.default in names:
        return "{" + ",".join(names) + "}"
    return "LIST" if names else "TEXT" if field.annotation is str else "N"


def help_text(field: FieldInfo, names: Sequence[str]) -> str:
    """Write a parameter's help: its description, the names to choose from, and its default."""
    text = (field.description or "").replace("`", "")
    if names and field.default not in names:
        text += f": {', '.join(names)}"
    if default := as_text(field.default):
        text += f" (default: {default})"
    return text.replace("%", "%%")  # argparse formats it


# --- reading


def parse(declared: type[P], parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> P:
    """Read a command line, and the parameter file that it names.

    Raises:
        UserError: a parameter is unknown, or its value is invalid; names both.
    """
    texts = vars(parser.parse_args(argv))
    try:
        params = declared(**texts)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        parser.error(
            f"argument --{name}: {invalid_value(declared.model_fields[name], texts[name])}"
        )
    if not params.config:
        return params
    file = read_parameter_file(params.config)
    check_parameter_file(file, with_lists=declared.takes_lists)
    return params.filled_from(file)


def check_parameter_file(file: ParameterFile, *, with_lists: bool) -> None:
    """Check a parameter file; it may hold parameters of any entry point.

    Raises:
        UserError: a parameter is unknown, its value is invalid, or a list stands where only a
            single value is allowed.
    """
    known = file_names(ENTRY_POINTS.values())
    for entries in (file.entries, *file.points):
        for name, entry in entries.items():
            if name not in known:
                raise file.error(entry.line, _unknown(name, sorted(known)))
            for text in entry.texts:
                try:
                    known[name](**{name: text})
                except ValidationError as error:
                    problem = invalid_value(known[name].model_fields[name], text)
                    raise file.error(entry.line, f"{name} {problem}.") from error
    lists = {name: entry.line for name, entry in file.entries.items() if entry.is_list}
    if file.points:
        lists[POINTS] = min(entry.line for entry in file.points[0].values())
    if lists and not with_lists:
        name, line = next(iter(lists.items()))
        raise file.error(
            line,
            f"{name} is a list where a value must be. Lists are for -e sweep; several months, or "
            f"models, are one text: 2021-01,2021-02.",
        )


def _unknown(name: str, names: Sequence[str]) -> str:
    if any(name in declared.model_fields for declared in ENTRY_POINTS.values()):
        return f"{name} belongs to a single run. Pass it as -P {name}=..."
    close = difflib.get_close_matches(name.replace("-", "_"), names, 1)
    guess = f" Did you mean {close[0]}?" if close else " docs/parameters.md lists them."
    return f"no entry point has a parameter {name!r}.{guess}"


def invalid_value(field: FieldInfo, text: str) -> str:
    """Say what a value must be, and what was given."""
    low, high = (
        next((getattr(rule, key) for rule in field.metadata if hasattr(rule, key)), None)
        for key in ("ge", "le")
    )
    kinds: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}
    expected = kinds[field.annotation]
    if low is not None:
        expected += f" of at least {low:g}"
    if high is not None:
        expected += f" and at most {high:d}"
    return f"must be {expected}, got {text!r}"
