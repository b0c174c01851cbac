"""Every parameter of every entry point, said once.

A class per entry point; what several of them have stands in a class that they share. Parsers and
their help, MLproject's blocks (`make contract`), the table in docs/parameters.md, what a step is
known by and the command that runs it again all follow from here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    computed_field,
    field_validator,
)
from pydantic.fields import FieldInfo

from steps.common.parameter_file import ParameterFile
from storage.checkout import as_text, portable
from storage.uris import refuse_password
from taxi.spaces import lag_of

Value = bool | int | float | str
MAX_SEED = 2**31 - 1_000  # numpy and xgboost take no larger one, and boosters count up from it
ALL_STEPS = "all"
RUNS = "finished runs to build on"  # group of --help


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
        default: also of MLproject.
        meaning: one line for --help and the docs.
        minimum, maximum: bounds of a number, both allowed themselves.
        in_key: whether a step's result depends on the value, so that it enters the step's key.
            Months and runs do not: they enter by their content. What changes a trial of the search
            enters the search's own key too, in steps/common/search_key.py.
        in_rerun: whether it belongs to the command that runs the step again.
    """
    bounds = {"ge": minimum, "le": maximum}
    rules: dict[str, Any] = {rule: bound for rule, bound in bounds.items() if bound is not None}
    if isinstance(default, float):
        rules["allow_inf_nan"] = False
    extra: dict[str, Any] = {"in_key": in_key, "in_rerun": in_rerun}
    return Field(default, description=meaning, json_schema_extra=extra, **rules)


def run_id(step: str, use: str) -> Any:
    """Declare a parameter that names a finished run of a step."""
    return param("", f"{step} run {use}; empty makes one", in_key=False)


def is_run_id(name: str) -> bool:
    """Whether a parameter names a run to build on."""
    return name.endswith("_run_id")


class Parameters(BaseModel):
    """What every entry point takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    entry_point: ClassVar[str] = ""
    room: ClassVar[str] = "steps"  # package that the entry point's module is in
    group: ClassVar[str] = "how it runs"  # of --help, for the parameters that a class declares
    takes_lists: ClassVar[bool] = False  # in a file of parameters, each value of a list for a run
    # what the step itself uses of the parameters that the steps above have too
    shared_in_key: ClassVar[frozenset[str]] = frozenset()
    config: str = param(
        "",
        "YAML file of parameters, such as `experiments/2023.yaml`, for what is not given here or "
        "has its default; empty = none",
        in_key=False,
        in_rerun=False,
    )
    developer: str = param(
        "", "tag on every run; empty = the git or system user", in_key=False, in_rerun=False
    )
    _file: ParameterFile | None = PrivateAttr(None)  # of config
    _stated: dict[str, Value] = PrivateAttr({})  # what it says of these parameters

    @classmethod
    def module(cls) -> str:
        """Name what `python -m` runs: steps.hpo."""
        return f"{cls.room}.{cls.entry_point}"

    @field_validator("*", mode="before")
    @classmethod
    def _read_plainly(cls, value: Any, info: ValidationInfo) -> Any:
        """Read true, 7 and 0.5; pydantic would take yes, on, 1_0 and blanks around as well."""
        kind, text = cls.model_fields[str(info.field_name)].annotation, str(value)
        if kind is bool:
            return {"true": True, "false": False}.get(text.lower(), "neither")
        plain = {int: r"-?[0-9]+", float: r"-?[0-9.]+(e[+-]?[0-9]+)?|-?(inf|nan)"}
        if kind in plain and not re.fullmatch(plain[kind], text, re.IGNORECASE):
            return "no number"
        return value

    @field_validator("*")
    @classmethod
    def _one_zero(cls, value: Any) -> Any:
        """Take -0 for 0, so that both make one key."""
        return value + 0.0 if isinstance(value, float) else value

    @classmethod
    def of(cls, others: "Parameters") -> Self:
        """Take over what another entry point was given; the rest keeps its default."""
        shared = cls.model_fields.keys() & type(others).model_fields.keys()
        made = cls(**{name: getattr(others, name) for name in shared})
        return made._knowing(others._file) if others._file else made

    def over(self, file: ParameterFile) -> Self:
        """Take from a file of parameters what has its default here."""
        fields, stated = type(self).model_fields, self._knowing(file)._stated
        taken = {
            name: value
            for name, value in stated.items()
            if getattr(self, name) == fields[name].default
        }
        return self.model_copy(update=taken)._knowing(file)

    def _knowing(self, file: ParameterFile) -> Self:
        """Remember a file and what it says of these parameters; lists are for a sweep to read."""
        mine = file.of(type(self).model_fields)
        texts = {name: entry.texts[0] for name, entry in mine.items() if not entry.is_list}
        made, read = self.model_copy(), type(self)(**texts)
        made._file, made._stated = file, {name: getattr(read, name) for name in texts}
        return made

    @property
    def file(self) -> ParameterFile | None:
        """The file of parameters, where there is one."""
        return self._file

    def from_file(self) -> dict[str, str]:
        """Write the values that follow from the file of parameters."""
        return {name: as_text(v) for name, v in self._stated.items() if getattr(self, name) == v}

    def texts(self) -> dict[str, str]:
        """Write every value as MLproject and its users do."""
        return {name: as_text(getattr(self, name)) for name in type(self).model_fields}

    def filed(self) -> list[str]:
        """Name what comes from the file of parameters, lists included."""
        lists = self._file.of(type(self).model_fields) if self._file else {}
        return [*self.from_file(), *(name for name, entry in lists.items() if entry.is_list)]

    def given(self) -> set[str]:
        """Name what was typed on the command line: it is neither of the file nor the default."""
        fields, filed = type(self).model_fields, self.from_file()
        return {
            name
            for name, field in fields.items()
            if getattr(self, name) != field.default and name not in filed
        }

    def handed_on(self) -> dict[str, str]:
        """Write every value for a run that is launched: what a file says of them has been read."""
        return self.texts() | {"config": ""}

    def key_values(self, above: Sequence[type["Parameters"]] = ()) -> dict[str, Value]:
        """Return what a step's result depends on.

        Args:
            above: of the steps it builds on, whose parameters enter as what those came to.
        """
        theirs = {name for other in above for name in key_names(other)} - self.shared_in_key
        return {name: getattr(self, name) for name in sorted(key_names(type(self)) - theirs)}

    def rerun_texts(self) -> dict[str, str]:
        """Write what belongs to the command that runs this again, runs only where given.

        A file of parameters that the commit holds is named instead of what follows from it, unless
        it would win over a value: one that is the default, and was not given by who typed it.
        """
        texts = self.texts()
        if "source" in texts:
            texts["source"] = portable(texts["source"])
        wanted = _marked(type(self).model_fields, "in_rerun")
        unsaid = {name for name in texts if is_run_id(name)} - self.run_ids().keys()
        texts = {name: text for name, text in texts.items() if name in wanted - unsaid}
        follows, fields = self.from_file(), type(self).model_fields
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

    def without_runs(self) -> Self:
        """Return the same with no run given, for a store that does not have them."""
        return self.model_copy(update=dict.fromkeys(self.run_ids(), ""))


LAST = Parameters.model_fields


def fields_of(declared: type[Parameters]) -> dict[str, FieldInfo]:
    """List the parameters of an entry point in the order of MLproject, those of all last."""
    return dict(sorted(declared.model_fields.items(), key=lambda item: item[0] in LAST))


def groups_of(declared: type[Parameters]) -> dict[str, list[str]]:
    """Sort the parameters of an entry point by what they are about: group -> names."""
    found: dict[str, list[str]] = {}
    for name in fields_of(declared):
        (home,) = (cls for cls in declared.__mro__ if name in vars(cls).get("__annotations__", {}))
        group = RUNS if is_run_id(name) else home.group  # type: ignore[attr-defined]
        found.setdefault(group, []).append(name)
    return dict(sorted(found.items(), key=lambda item: item[0] == Parameters.group))


def file_names(entry_points: Iterable[type[Parameters]]) -> dict[str, type[Parameters]]:
    """Name what may stand in a file of parameters, with a class that has it: parameter -> class."""
    return {
        name: declared
        for declared in entry_points
        for name in _marked(declared.model_fields, "in_rerun")
    }


def key_names(declared: type[Parameters]) -> set[str]:
    """Name what a step's result depends on."""
    computed: Mapping[str, Any] = declared.model_computed_fields
    return _marked({**declared.model_fields, **computed}, "in_key")


def _marked(fields: Mapping[str, Any], mark: str) -> set[str]:
    extras = {name: field.json_schema_extra for name, field in fields.items()}
    return {name for name, extra in extras.items() if isinstance(extra, dict) and extra[mark]}


class MonthsParameters(Parameters):
    """Whose trips, and where their months are."""

    group = "months"
    taxi: str = param(
        "green",
        "trips of which kind: `green` or `yellow` taxis, `fhvhv` (app rides: Uber, Lyft) or `fhv` "
        "(other cars for hire, without distances)",
    )
    source: str = param(
        "tlc",
        "`tlc` (the public files, downloaded once to a cache that all checkouts share), "
        "`simulated`, `simulated:<trips>:<seed>`, or a folder or URI (file, http, s3, gs) with "
        "files named as the TLC names them: parquet, csv, csv.gz, or in a folder a folder of "
        "such parts, or `year=2021/month=01`; its two files of the zones "
        "may lie beside them",
        in_key=False,
    )

    @field_validator("source")
    @classmethod
    def _without_password(cls, value: str) -> str:
        refuse_password(value, "The source", "in ~/.netrc, or for s3 as AWS_SECRET_ACCESS_KEY")
        return value


class ReuseParameters(Parameters):
    """Whether what is there already is taken."""

    group = Parameters.group
    reuse: bool = param(
        True,
        "take the results of steps that have run already, and months that are clean already; false "
        "runs all, and the search afresh",
        in_key=False,
    )


class PreprocessParameters(ReuseParameters, MonthsParameters):
    """Parameters of preprocess."""

    entry_point = "preprocess"
    train_months: str = param(
        "2021-01",
        "months to fit on: `2021-01`, a list `2021-01,2021-03`, a range `2021-01..2021-06`",
        in_key=False,
    )
    valid_months: str = param("2021-02", "months to choose by", in_key=False)
    test_months: str = param(
        "next",
        "months that only register opens; `next` is the one after valid_months, empty is none",
        in_key=False,
    )


class ClusterParameters(Parameters):
    """Where work is done that can be spread."""

    group = Parameters.group
    scheduler: str = param(
        "",
        "address of a Dask scheduler whose workers run the trials or score the months; "
        "empty = here",
        in_key=False,
    )


class SeedParameters(Parameters):
    """What chance begins with."""

    group = Parameters.group
    seed: int = param(42, "every random choice", minimum=0, maximum=MAX_SEED)


class TrainingParameters(SeedParameters, PreprocessParameters):
    """What the steps have in common that train on clean trips."""

    group = Parameters.group
    preprocess_run_id: str = run_id("preprocess", "to build on")


class ModelsParameters(Parameters):
    """Which baselines there are."""

    group = "baselines"
    models: str = param("all", "baselines to fit: `all`, or a list of names of taxi/baselines.py")


class BaselineParameters(ModelsParameters, TrainingParameters):
    """Parameters of baseline."""

    entry_point = "baseline"


class SearchParameters(ClusterParameters):
    """How a search goes."""

    group = "search"
    features: str = param("full", "feature set of the search: `course`, `compact` or `full`")
    search_space: str = param(
        "lossguide",
        "`lossguide`, `seed` (the course's own) or `course_best` (its best point, no search)",
    )
    max_evals: int = param(
        50,
        "trials in all, those that an earlier run of the same search finished included",
        minimum=1,
    )
    max_minutes: float = param(0.0, "start no trial after so many minutes; 0 = no limit", minimum=0)
    warm_start: bool = param(
        False, "try the best points of earlier searches of this space and these features first"
    )
    half_life: float = param(
        8.0,
        "months after which a train trip counts half, against one of the latest month; 0 = all "
        "count the same",
        minimum=0,
    )
    parallelism: int = param(
        0,
        "trials at once; 0 = one per core (or worker's thread), at most 8. Up to 8 the result "
        "does not depend on it",
        minimum=0,
        in_key=False,
    )
    device: str = param("cpu", "cpu or cuda")

    @computed_field(json_schema_extra={"in_key": True})  # type: ignore[prop-decorator]
    @property
    def lag(self) -> int:
        """How many trials back a suggestion looks; what of parallelism the result depends on."""
        return lag_of(self.parallelism)


class HpoParameters(SearchParameters, TrainingParameters):
    """Parameters of hpo."""

    entry_point = "hpo"


class ChoiceParameters(Parameters):
    """How a candidate is chosen, and what is made of it."""

    group = "registration"
    refit: str = param(
        "train_valid",
        "what the chosen model is fitted to before it is tested: `train_valid`, the latest months "
        "included, or `train`, as it was chosen",
    )
    judge_by: str = param(
        "metered",
        "distance that RMSE and R2 are measured with to choose a candidate and judge it: "
        "`metered`, `planned` (a tenth off) or `missing`",
    )


class PipelineParameters(ChoiceParameters, HpoParameters, BaselineParameters):
    """What the steps have in common that come to a registered model."""

    group = "registration"
    baseline_run_id: str = run_id("baseline", "whose models are candidates")
    hpo_run_id: str = run_id("hpo", "whose model is a candidate")
    model_name: str = param("nyc-taxi-duration", "registered model")
    test_only: bool = param(
        False, "true refits and tests the best candidate, and leaves the registry as it is"
    )
    max_rmse: float = param(
        7.0, "largest RMSE on test, in minutes, that a champion may have", minimum=0
    )
    min_r2: float = param(0.5, "smallest R2 on test that a champion may have", minimum=-1)
    min_improvement: float = param(
        0.01, "minutes of test RMSE by which the champion must be beaten", minimum=0
    )
    max_coverage_gap: float = param(
        0.08,
        "share by which the 80 % interval may hold more or fewer test trips than it promises",
        minimum=0,
        maximum=1,
    )
    max_slice_loss: float = param(
        0.05,
        "share by which RMSE may surely be above the champion's on a slice of the test trips "
        "(hours, distances, airports, parts of town), or on the champion's own test months",
        minimum=0,
    )
    allow_simulated: bool = param(
        False, "true lets a model of simulated months replace a champion of real ones"
    )
    allow_dirty: bool = param(
        False, "true lets a model of uncommitted code replace a champion of committed code"
    )
    allow_slice_loss: bool = param(
        False, "true lets a model replace a champion that is surely better on some slice"
    )


class RegisterParameters(PipelineParameters):
    """Parameters of register."""

    entry_point = "register"
    shared_in_key = frozenset({"seed"})  # of the bootstrap
    rollback: bool = param(False, "true only puts the champion before this one back", in_key=False)


class PartParameters(Parameters):
    """How much of a pipeline is run."""

    group = Parameters.group
    steps: str = param(
        ALL_STEPS,
        "part of the pipeline to run: `all`, or a list such as `preprocess,hpo`",
        in_key=False,
    )


class PlanParameters(Parameters):
    """Whether anything runs at all."""

    group = Parameters.group
    plan: bool = param(
        False, "true says what would run, and why, and runs nothing", in_key=False, in_rerun=False
    )


class MainParameters(PartParameters, PlanParameters, PipelineParameters):
    """Parameters of main."""

    entry_point = "main"


class SweepParameters(PartParameters, PlanParameters, PipelineParameters):
    """Parameters of sweep."""

    entry_point, room = "sweep", "steps.pipelines"
    takes_lists = True


class JudgedMonthsParameters(MonthsParameters):
    """Which months are looked at, one by one."""

    months: str = param(
        "", "months to score, or to judge models on; written as `train_months`", in_key=False
    )


class BacktestParameters(
    PlanParameters,
    ChoiceParameters,
    SearchParameters,
    ModelsParameters,
    SeedParameters,
    ReuseParameters,
    JudgedMonthsParameters,
):
    """Parameters of backtest."""

    entry_point, room, group = "backtest", "steps.pipelines", "folds"
    window: int = param(
        3, "months that a fold's models are fitted on, before its valid month", minimum=1
    )
    horizon: int = param(
        3, "months for which a fold's model is followed after its own, within `months`", minimum=0
    )
    growing: bool = param(
        False, "true lets the window begin where that of the first fold does, and grow"
    )
    against: str = param(
        "", "backtest run whose recipe this one is compared with, month by month", in_key=False
    )


class ScoreParameters(ClusterParameters, JudgedMonthsParameters):
    """Parameters of score."""

    entry_point, group = "score", "scoring"
    model_uri: str = param(
        "models:/nyc-taxi-duration@champion",
        "model to score with: an alias, `models:/name/version`, or any other model URI",
        in_key=False,
    )
    live: str = param(
        "off",
        "`off`, or what is followed: `feed` (trips that have ended so far, each told of "
        "`feed_delay` minutes late) or `nightly` (trips that ended before midnight)",
    )
    feed_delay: float = param(15.0, "minutes until a trip that has ended is known", minimum=0)
    live_state: str = param(
        "",
        "file or URI that the live level is read from where it is there, and written to at the "
        "end, as a model server takes it; empty = none",
        in_key=False,
    )
    quantiles: str = param(
        "", "levels of quantiles of the minutes, each a column: 0.1,0.5,0.9 adds p10, p50 and p90"
    )
    output: str = param(
        "", "folder for the predictions; empty = the artifacts of the run", in_key=False
    )
    overwrite: bool = param(False, "true replaces predictions that are there", in_key=False)
    fail_on_drift: bool = param(
        False, "true ends with exit code 3 where a month has drifted", in_key=False
    )
    max_psi: float = param(
        0.25, "population stability index above which a feature has drifted", minimum=0
    )
    max_unseen: float = param(
        0.05,
        "share of trips with an unseen zone or pair, above valid's, or without a usable distance, "
        "above train's",
        minimum=0,
    )
    max_rmse_rise: float = param(
        0.15, "share by which RMSE may be above that on the test months", minimum=0
    )


class VerifyParameters(SeedParameters):
    """Parameters of verify."""

    entry_point, room, group = "verify", "steps.pipelines", "verification"
    run_id: str = param("", "finished run of main to run again")
    sample: int = param(0, "runs of main to choose by chance, instead of run_id", minimum=0)
    month: str = param(
        "", "month, YYYY-MM, that those of the sample began in; empty = the last 30 days"
    )
    tracking_uri: str = param(
        "",
        "store that the runs are in, without a password; `env:<NAME>` reads it from the "
        "environment; empty = the one that this runs in",
    )
    env_manager: str = param(
        "uv", "what makes the fresh environment: `uv`, or `local`, which takes this one"
    )


ENTRY_POINTS: dict[str, type[Parameters]] = {
    declared.entry_point: declared
    for declared in (
        PreprocessParameters,
        BaselineParameters,
        HpoParameters,
        RegisterParameters,
        MainParameters,
        SweepParameters,
        ScoreParameters,
        BacktestParameters,
        VerifyParameters,
    )
}
