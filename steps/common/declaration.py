"""Parameters: how one is declared, how its value is read, and where it comes from.

A typed value wins over one of a parameter file, and that over the default.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import get_annotations
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from steps.common.parameter_file import ParameterFile
from storage.checkout import as_text, portable_source
from storage.uris import refuse_password, without_credentials
from taxi.words import format_count

Value = bool | int | float | str
RUNS_GROUP = "finished runs to build on"  # heading of a group in --help
# where a password belongs instead
PASSWORD_HINT = "in ~/.netrc, or for s3 as AWS_SECRET_ACCESS_KEY"
URI_SUFFIX = "_uri"  # parameters with this ending are checked for passwords elsewhere


def param(
    default: Value,
    meaning: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    in_key: bool = True,
    in_rerun: bool = True,
) -> Any:
    """Declare a parameter.

    Args:
        default: goes into MLproject too.
        meaning: one line for --help and the docs.
        minimum, maximum: inclusive bounds of a number.
        in_key: whether a step's result depends on the value, so that it is part of the step's key.
            Months and runs are not: their content is. What changes a trial of the search belongs
            in the search key too, steps/common/search_key.py.
        in_rerun: whether it is part of the command that runs the step again.
    """
    bounds = {"ge": minimum, "le": maximum}
    rules: dict[str, Any] = {rule: bound for rule, bound in bounds.items() if bound is not None}
    if isinstance(default, float):
        rules["allow_inf_nan"] = False
    extra: dict[str, Any] = {"in_key": in_key, "in_rerun": in_rerun}
    return Field(default, description=meaning, json_schema_extra=extra, **rules)


def run_id(step: str, use: str) -> Any:
    """Declare a parameter that names a finished run of a step."""
    return param("", f"{step} run {use}; empty = run {step}", in_key=False)


def is_run_id(name: str) -> bool:
    """Whether a parameter names a run to build on."""
    return name.endswith("_run_id")


class Parameters(BaseModel):
    """The parameters that every entry point has."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    entry_point: ClassVar[str] = ""
    package: ClassVar[str] = "steps"  # package of the entry point's module
    group: ClassVar[str] = "how it runs"  # heading in --help of a class's own parameters
    takes_lists: ClassVar[bool] = False  # whether its parameter file may hold lists, for a sweep
    # parameters of upstream steps that this step uses itself too, so that they stay in its key
    shared_in_key: ClassVar[frozenset[str]] = frozenset()
    config: str = param(
        "",
        "YAML file of parameters, such as `experiments/2023.yaml`, for those that are not given or "
        "have their default; empty = none",
        in_key=False,
        in_rerun=False,
    )
    developer: str = param(
        "", "tag on every run; empty = the git or system user", in_key=False, in_rerun=False
    )
    _file: ParameterFile | None = PrivateAttr(None)  # of config
    _stated: dict[str, Value] = PrivateAttr({})  # the values that it sets

    @classmethod
    def module(cls) -> str:
        """Return the module that `python -m` runs, such as steps.hpo."""
        return f"{cls.package}.{cls.entry_point}"

    @field_validator("*", mode="before")
    @classmethod
    def _parse_strictly(cls, value: Any, info: ValidationInfo) -> Any:
        """Accept only true, 7 and 0.5; pydantic would accept yes, on, 1_0 and padding as well."""
        kind, text = cls.model_fields[str(info.field_name)].annotation, str(value)
        if kind is bool:
            return {"true": True, "false": False}.get(text.lower(), "neither")
        plain = {int: r"-?[0-9]+", float: r"-?[0-9.]+(e[+-]?[0-9]+)?|-?(inf|nan)"}
        if kind in plain and not re.fullmatch(plain[kind], text, re.IGNORECASE):
            return "no number"
        return value

    @field_validator("*")
    @classmethod
    def _normalise_zero(cls, value: Any) -> Any:
        """Turn -0 into 0, so that both make the same key."""
        return value + 0.0 if isinstance(value, float) else value

    @field_validator("*")
    @classmethod
    def _refuse_password(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a password in any address, because MLflow logs every parameter as typed."""
        if isinstance(value, str) and not str(info.field_name).endswith(URI_SUFFIX):
            refuse_password(value, f"The {info.field_name}", PASSWORD_HINT)
        return value

    @classmethod
    def of(cls, others: "Parameters") -> Self:
        """Copy the parameters shared with another entry point; the rest keep their defaults."""
        shared = cls.model_fields.keys() & type(others).model_fields.keys()
        made = cls(**{name: getattr(others, name) for name in shared})
        return made.with_file(others._file) if others._file else made

    def filled_from(self, file: ParameterFile) -> Self:
        """Fill in, from a parameter file, the parameters that have their default here."""
        fields, stated = type(self).model_fields, self.with_file(file)._stated
        taken = {
            name: value
            for name, value in stated.items()
            if getattr(self, name) == fields[name].default
        }
        return self.model_copy(update=taken).with_file(file)

    def with_file(self, file: ParameterFile) -> Self:
        """Attach a file and the single values that it sets; lists are left for a sweep to read."""
        entries = file.of(type(self).model_fields)
        texts = {name: entry.texts[0] for name, entry in entries.items() if not entry.is_list}
        made, read = self.model_copy(), type(self)(**texts)
        made._file, made._stated = file, {name: getattr(read, name) for name in texts}
        return made

    @property
    def file(self) -> ParameterFile | None:
        """The parameter file, if there is one."""
        return self._file

    def file_texts(self) -> dict[str, str]:
        """Return the values that come from the parameter file, as text."""
        return {name: as_text(v) for name, v in self._stated.items() if getattr(self, name) == v}

    def texts(self) -> dict[str, str]:
        """Return every value as text, as it is written in MLproject and on a command line."""
        return {name: as_text(getattr(self, name)) for name in type(self).model_fields}

    def names_in_file(self) -> list[str]:
        """Name the parameters that come from the parameter file, lists included."""
        lists = self._file.of(type(self).model_fields) if self._file else {}
        return [*self.file_texts(), *(name for name, entry in lists.items() if entry.is_list)]

    def describe_lists(self) -> list[str]:
        """Name the lists of the parameter file that apply here, with the number of values each."""
        file, typed = self._file, self.typed_names()
        lists = {n: e.texts for n, e in file.entries.items() if e.is_list} if file else {}
        counts = [
            f"{len(texts)} values of {name}" for name, texts in lists.items() if name not in typed
        ]
        return (
            [*counts, format_count(len(file.points), "point")] if file and file.points else counts
        )

    def typed_names(self) -> set[str]:
        """Name the typed parameters: those whose value is neither the file's nor the default."""
        fields, of_file = type(self).model_fields, self.file_texts()
        return {
            name
            for name, field in fields.items()
            if getattr(self, name) != field.default and name not in of_file
        }

    def launch_texts(self) -> dict[str, str]:
        """Return every value as text for a child run, without the file, which is read already."""
        return self.texts() | {"config": ""}

    def key_values(self, upstream: Sequence[type["Parameters"]] = ()) -> dict[str, Value]:
        """Return the parameters that a step's own key is made of.

        Args:
            upstream: parameters of the upstream steps; they count through those steps' results.
        """
        theirs = {name for other in upstream for name in key_names(other)} - self.shared_in_key
        return {name: getattr(self, name) for name in sorted(key_names(type(self)) - theirs)}

    def rerun_texts(self) -> dict[str, str]:
        """Return the parameters of the command that runs this again; run ids only if given.

        A committed parameter file is named in place of the values that it sets, unless it would
        override a value of this run: a default that was typed.
        """
        texts = {name: without_credentials(text) for name, text in self.texts().items()}
        if "source" in texts:
            texts["source"] = portable_source(texts["source"])
        rerun_names = _flagged(type(self).model_fields, "in_rerun")
        omitted = {name for name in texts if is_run_id(name)} - self.run_ids().keys()
        texts = {name: text for name, text in texts.items() if name in rerun_names - omitted}
        follows, fields = self.file_texts(), type(self).model_fields
        would_win = [
            name
            for name in self._stated.keys() - follows.keys()
            if getattr(self, name) == fields[name].default
        ]
        if not self._file:
            return texts
        needs_file = self.takes_lists and self._file.has_lists
        if not needs_file and (would_win or not self._file.committed):
            return texts
        named = {
            name: text for name, text in texts.items() if name not in follows or is_run_id(name)
        }
        return {"config": self._file.committed or self.config} | named

    def run_ids(self) -> dict[str, str]:
        """Return the runs that were given to build on: parameter -> run id."""
        return {name: value for name, value in self if is_run_id(name) and value}


SHARED_FIELDS = Parameters.model_fields


def fields_of(declared: type[Parameters]) -> dict[str, FieldInfo]:
    """List the parameters of an entry point in MLproject's order, those that all share last."""
    return dict(sorted(declared.model_fields.items(), key=lambda item: item[0] in SHARED_FIELDS))


def groups_of(declared: type[Parameters]) -> dict[str, list[str]]:
    """Group the parameters of an entry point as in --help: group -> names."""
    found: dict[str, list[str]] = {}
    for name in fields_of(declared):
        (home,) = (cls for cls in declared.__mro__ if name in get_annotations(cls))
        group = RUNS_GROUP if is_run_id(name) else home.group  # type: ignore[attr-defined]
        found.setdefault(group, []).append(name)
    return dict(sorted(found.items(), key=lambda item: item[0] == Parameters.group))


def file_names(entry_points: Iterable[type[Parameters]]) -> dict[str, type[Parameters]]:
    """Map each parameter that a parameter file may hold to a class that declares it."""
    return {
        name: declared
        for declared in entry_points
        for name in _flagged(declared.model_fields, "in_rerun")
    }


def key_names(declared: type[Parameters]) -> set[str]:
    """Name the parameters that a step's result depends on."""
    computed: Mapping[str, Any] = declared.model_computed_fields
    return _flagged({**declared.model_fields, **computed}, "in_key")


def _flagged(fields: Mapping[str, Any], flag: str) -> set[str]:
    extras = {name: field.json_schema_extra for name, field in fields.items()}
    return {name for name, extra in extras.items() if isinstance(extra, dict) and extra[flag]}
