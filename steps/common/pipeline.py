"""Get the run of each step of a pipeline: given by the user, reused, or launched."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mlflow.entities import LifecycleStage, Run

from steps.common import results
from steps.common.declaration import key_names
from steps.common.parameters import (
    ALL_STEPS,
    ENTRY_POINTS,
    HpoParameters,
    ScoreParameters,
    StepsParameters,
    TrainingParameters,
)
from steps.common.results import TRAINING_STEPS, PreprocessResult, RegisterResult, TrainingResult
from storage import UserError, terminal
from storage.checkout import as_text
from storage.data import months, splits
from storage.data.months import MonthLocation, SideFile
from storage.data.splits import SplitMonth
from storage.repro import reuse, step_key
from storage.repro.reuse import ReuseDecision
from storage.repro.step_key import StepKey
from storage.tracking import launching, runs, tags
from taxi import schema, spaces
from taxi.city import ZONE_FILES

# step -> the steps it builds on, in the order they run
UPSTREAM: dict[str, tuple[str, ...]] = {
    "preprocess": (),
    "baseline": ("preprocess",),
    "hpo": ("preprocess",),
    "register": ("preprocess", *TRAINING_STEPS),
}
RESULT_READERS: dict[str, Callable[[Run], NamedTuple]] = {
    "preprocess": results.read_preprocess,
    "baseline": results.read_training,
    "hpo": results.read_training,
    "register": results.read_registration,
}


def selected_steps(text: str, given: Iterable[str] = ()) -> list[str]:
    """Return the wanted steps of a pipeline, in the order in which they run.

    Args:
        text: `all`, or a list of names.
        given: steps whose runs were given; they belong to the pipeline too.
    Raises:
        UserError: a name is not a step, or a step builds on one that is left out.
    """
    if text.strip() == ALL_STEPS:
        return list(UPSTREAM)
    named = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in named if name not in UPSTREAM]:
        raise UserError(f"Unknown steps {unknown}. Choose from {[ALL_STEPS, *UPSTREAM]}.")
    if not named:
        raise UserError(f"steps is empty. Choose from {[ALL_STEPS, *UPSTREAM]}.")
    wanted = [step for step in UPSTREAM if step in {*named, *given}]
    for step in wanted:
        if missing := [name for name in UPSTREAM[step] if name not in wanted]:
            runs_of = ", ".join(f"{tags.RUN_IDS[name]}=<id>" for name in missing)
            raise UserError(
                f"steps={text} leaves out {', '.join(missing)}, which {step} builds on. Add "
                f"{', '.join(missing)}, or pass {runs_of}."
            )
    return wanted


class Pipeline:
    """The runs that a step builds on, each reused or launched when it is asked for."""

    def __init__(self, params: TrainingParameters) -> None:
        """Look up the runs that were given.

        Raises:
            UserError: a run cannot be used or is not what was asked for, two runs did not read
                the same trips, or the months or the steps do not form valid splits or a valid
                part of a pipeline.
        """
        self.given = given_runs(params)
        # what is recorded on a given run wins over the parameters
        base = self.given.get("preprocess")
        self.dataset = results.read_preprocess(base).dataset if base else None
        recorded = self.dataset.parameters() if self.dataset else {}
        if base:
            check_requested_trips(params, recorded, base.info.run_id)
            check_requested_settings(params, self.given)
            if others := overridden_defaults(params, recorded):
                print(
                    f"trips: {', '.join(others)}, as preprocess run {base.info.run_id[:8]}… is of"
                )
        self.params = params.model_copy(update=recorded)
        wanted = params.steps if isinstance(params, StepsParameters) else ALL_STEPS
        self.steps = selected_steps(wanted, self.given)
        passed = (params.train_months, params.valid_months, params.test_months)
        self.splits = {} if self.given else splits.split_months(*passed)  # split -> months to read
        self.done: dict[str, Run] = {}
        self.trained: dict[str, TrainingResult] = {}  # results of `done` that have been read
        self.decisions: dict[str, ReuseDecision] = {}  # for the steps without a given run
        # called before a step is launched; it may raise, to refuse
        self.before_work: Callable[[], None] = lambda: None

    # --- what the steps hand over

    def preprocess(self) -> PreprocessResult:
        """Return the result of preprocess, launching it if needed."""
        return results.read_preprocess(self.get_or_run("preprocess"))

    def training(self, step: str) -> TrainingResult:
        """Return the result of a step of TRAINING_STEPS, launching it if needed."""
        run = self.get_or_run(step)
        if step not in self.trained:
            self.trained[step] = results.read_training(run)
        return self.trained[step]

    def register(self) -> RegisterResult:
        """Return the result of register, launching it if needed."""
        return results.read_registration(self.get_or_run("register"))

    # --- finding or launching a run

    def get_or_run(self, step: str) -> Run:
        """Return the run of a step: the one given, one with the same key, or a new one.

        Raises:
            UserError: the new run failed.
        """
        if step in self.done:
            return self.done[step]
        if step in self.given:
            self.done[step] = self.given[step]
        else:
            self.decisions[step] = decision = self.decide_reuse(step)
            terminal.print_line(decision.line, style="bold")
            if not decision.run:
                self.before_work()
            self.done[step] = decision.run or runs.finished(self._launch(step), step)
        return self.done[step]

    def decide_reuse(self, step: str) -> ReuseDecision:
        """Decide whether a step must run; its upstream steps must be done."""
        if not self.params.reuse:
            return ReuseDecision(step, None, "reuse=false")
        decision = reuse.find_reusable(self.key(step), runs.experiment_id())
        if decision.run and not is_readable(step, decision.run):
            return ReuseDecision(step, None, f"what {reuse.short_id(decision.run)} wrote is lost")
        return decision

    def key(self, step: str) -> StepKey:
        """Make the key of a step; its upstream steps must be done."""
        if step == "preprocess":
            return preprocess_key(self.params.taxi, self.months(), self.zone_files())
        above = [ENTRY_POINTS[name] for name in UPSTREAM[step]]
        values = ENTRY_POINTS[step].of(self.params).key_values(above)
        return step_key.make(step, values, self._inputs(step))

    def pipeline_key(self) -> StepKey:
        """Make the key of the pipeline from those of its steps, which must all be done."""
        made_of = {step: result_identity(run) for step, run in self.done.items()}
        return step_key.make("main", {}, made_of)

    def find_reusable_pipeline(self) -> ReuseDecision:
        """Look for a finished run of main that chained exactly the runs that would be reused.

        If a step must run, so must main. Nothing is started.
        """
        for step in self.steps:
            if step == "register" and not self.expects_test():
                continue
            decision = ReuseDecision(step, self.given.get(step), "given")
            if not decision.run:
                decision = self.decide_reuse(step)
            if not decision.run:
                return ReuseDecision("main", None, f"{step} {decision.summary}")
            self.done[step] = decision.run
        return reuse.find_reusable(self.pipeline_key(), runs.experiment_id())

    def tag(self, step: str) -> None:
        """Tag the active run, which is one of this step, with the step's key."""
        reuse.tag_key(self.key(step))

    def months(self) -> list[SplitMonth]:
        """Return the identity of every month asked for; missing months are downloaded."""
        schema.raw_columns(self.params.taxi)
        source, taxi = self.params.source, self.params.taxi
        return [
            SplitMonth(split, *known)
            for split, names in self.splits.items()
            for known in identities(source, taxi, names).items()
        ]

    def zone_files(self) -> dict[str, str]:
        """Return the sha256 of each zone file; missing files are downloaded."""
        return zone_inputs(months.find_side_files(self.params.source, ZONE_FILES))

    def locate(self) -> list[MonthLocation]:
        """Locate every file that preprocess would read; [] if a run of it was given."""
        source, taxi = self.params.source, self.params.taxi
        wanted = [month for names in self.splits.values() for month in names]
        located = [months.locate(source, taxi=taxi, month=month) for month in wanted]
        return located + (months.locate_side_files(source, ZONE_FILES) if located else [])

    def expects_test(self) -> bool:
        """Whether there are, or will be, test trips to judge a champion by."""
        if "preprocess" in self.done:
            return self.preprocess().dataset.has_test
        return "test" in self.splits

    def rerun_parameters(self) -> TrainingParameters:
        """Return parameters that repeat this pipeline; all steps must be done.

        A given run stays named only if they would not make it again: if its key is not the one
        that follows from them.
        """
        remade: dict[str, Any] = {
            tags.RUN_IDS[step]: ""
            for step, run in self.given.items()
            if step == "preprocess" or self.key(step).sha256 == run.data.tags.get(tags.KEY)
        }
        return self.params.model_copy(update=remade)

    def _inputs(self, step: str) -> dict[str, str]:
        if step == "register":
            return {name: result_identity(self.done[name]) for name in UPSTREAM[step]}
        # the content learned from, not the preprocess run: other test months change no model
        preprocess = results.read_preprocess(self.done["preprocess"])
        return preprocess.dataset.learned_from | self._sample_input(step, preprocess)

    def _sample_input(self, step: str, preprocess: PreprocessResult) -> dict[str, str]:
        """Return the bound on the trips that trials see, as a key input; {} if they see all."""
        if not (step == "hpo" and isinstance(self.params, HpoParameters)):
            return {}
        n_trips = preprocess.n_learned_from.values()
        max_trips = spaces.sample_size_for(n_trips, self.params.search_rows)
        return {"search_rows": str(max_trips)} if max_trips else {}

    def _launch(self, step: str) -> str:
        texts = ENTRY_POINTS[step].of(self.params).launch_texts()
        ids = {tags.RUN_IDS[name]: run.info.run_id for name, run in self.done.items()}
        return launching.launch(step, texts | {name: ids[name] for name in ids if name in texts})


def is_readable(step: str, run: Run) -> bool:
    """Whether this version of the project can read a run's result."""
    try:
        RESULT_READERS[step](run)
    except UserError:
        return False
    return True


def preprocess_key(taxi: str, contents: list[SplitMonth], zone_files: Mapping[str, str]) -> StepKey:
    """Make the key of preprocess from the identities of its months and zone files."""
    # names of the files that later steps read from its run: older versions may have had other ones
    files = f"{tags.SPLITS}, {tags.PROFILES}, {tags.MONTHS_TABLE}, {tags.CITY_FILE}"
    inputs = splits.inputs(contents) | {"files": files, **zone_files}
    return step_key.make("preprocess", {"taxi": taxi}, inputs)


def score_key(params: ScoreParameters, model_uri: str, contents: Mapping[str, str]) -> StepKey:
    """Make the key of score.

    Args:
        params: of score.
        model_uri: of the version itself, not of an alias, which may move.
        contents: month -> its identity, in the order in which they are scored.
    """
    inputs = {"model": model_uri, "months": ",".join(contents), **contents}
    return step_key.make("score", params.key_values(), inputs)


def identities(source: str, taxi: str, names: Iterable[str]) -> dict[str, str]:
    """Return month -> its identity; missing months are downloaded."""
    return {month: months.identify(source, taxi=taxi, month=month) for month in names}


def zone_inputs(files: Mapping[str, SideFile]) -> dict[str, str]:
    """Return the zone files as inputs of a step's key."""
    return {name: files[name].sha256 if name in files else "none" for name in ZONE_FILES}


def result_identity(run: Run) -> str:
    """Return what identifies a run's result: its step key, or its run id if it has none."""
    return str(run.data.tags.get(tags.KEY, run.info.run_id))


def given_runs(params: TrainingParameters) -> dict[str, Run]:
    """Look up the runs given to build on, and the preprocess run that they build on.

    Raises:
        UserError: a run cannot be used, or two runs did not read the same trips, so that their
            scores are not comparable.
    """
    given = {
        step: _find_given_run(params.run_ids()[name], step)
        for step, name in tags.RUN_IDS.items()
        if name in params.run_ids()
    }
    if len({learned_from(run) for run in given.values()}) > 1:
        named = ", ".join(sorted(run.info.run_id for run in given.values()))
        raise UserError(
            f"The runs given ({named}) do not build on the same trips, so their scores do not "
            f"compare. Pass runs of one pipeline."
        )
    if not given or "preprocess" in given:
        return given
    first, *_ = given.values()
    base = first.data.tags.get(tags.RUN_IDS["preprocess"], "")
    return {"preprocess": _find_given_run(base, "preprocess"), **given}


def _find_given_run(run_id: str, step: str) -> Run:
    run = runs.finished(run_id, step)
    if run.info.lifecycle_stage == LifecycleStage.DELETED:
        raise UserError(
            f"The {step} run {run_id} is deleted. Run `mlflow runs restore --run-id {run_id}`, or "
            f"pass another."
        )
    return run


def check_requested_trips(
    params: TrainingParameters, recorded: Mapping[str, str], run_id: str
) -> None:
    """Check that the trips asked for are those of the given runs; a default asks for nothing.

    Args:
        params: with given runs.
        recorded: the parameters that the trips were made with: name -> text.
        run_id: of the preprocess run that made them.
    Raises:
        UserError: the taxi or the months of a split differ.
    """
    fields = type(params).model_fields
    for name in sorted(recorded.keys() - {"source"}):  # a source may differ, with the same trips
        passed, read = getattr(params, name), str.split if name == "taxi" else months.parse_months
        if passed != fields[name].default and {*read(passed)} != {*read(recorded[name])}:
            raise UserError(
                f"{name}={passed} was passed, but the trips are of {recorded[name] or 'none'}: "
                f"those of preprocess run {run_id}, which was passed or is built on. Leave out "
                f"{name}, or pass no run."
            )


def overridden_defaults(params: TrainingParameters, recorded: Mapping[str, str]) -> list[str]:
    """List the parameters left at their default that the trips of a given run differ from.

    MLflow passes defaults on as if they had been typed; other values are checked before.
    """
    defaults = {
        name: type(params).model_fields[name].default for name in recorded.keys() - {"source"}
    }
    return [
        f"{name}={recorded[name]}"
        for name, default in sorted(defaults.items())
        if getattr(params, name) == default and default not in (recorded[name], "next")
    ]


def check_requested_settings(params: TrainingParameters, given: Mapping[str, Run]) -> None:
    """Check that the settings asked for are those that the given runs were made with.

    Args:
        params: with given runs; a default asks for nothing, and the seed may differ by step.
        given: step -> its run; a run that MLflow did not start has no parameters to check.
    Raises:
        UserError: a value differs.
    """
    fields = type(params).model_fields
    for step in sorted(given.keys() & {*TRAINING_STEPS}):
        declared, run = ENTRY_POINTS[step], given[step]
        own = key_names(declared) & fields.keys() - key_names(ENTRY_POINTS["preprocess"]) - {"seed"}
        for name in sorted(own):
            passed, text = getattr(params, name), runs.recorded_text(run.data.params, name)
            if text is None or passed == fields[name].default:
                continue
            made = getattr(declared(**{name: text}), name)
            if passed != made:
                raise UserError(
                    f"{name}={as_text(passed)} was passed with {step} run {run.info.run_id}, "
                    f"which was made with {as_text(made)}. Leave out {name}, or that run."
                )


def learned_from(run: Run) -> tuple[str, ...]:
    """Return the tags that identify the trips that a run learned from, or made."""
    names = (tags.TAXI, tags.SHA256.of("train"), tags.SHA256.of("valid"), tags.CITY)
    return tuple(run.data.tags.get(name, "") for name in names)
