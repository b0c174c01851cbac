"""A pipeline, or a scoring, below a run of many of them: found finished, or launched.

It is known by what its result depends on, as a step is, so a run of many that was killed goes on
with what it had, and two runs of many share what they have in common. What was found stays below
the run that made it. An interruption closes the pipeline, its steps and the run above them all.
"""

from collections.abc import Iterable, Iterator, Mapping

from mlflow.entities import Run

from steps.common import results
from steps.common.declaration import Parameters
from steps.common.parameters import MainParameters, ScoreParameters
from steps.common.pipeline import Pipeline, identities, score_key
from steps.common.results import PipelineResult, ScoringResult
from storage import UserError, terminal
from storage.data import months
from storage.repro import reuse
from storage.repro.reuse import ReuseDecision
from storage.tracking import launching, model_references, runs


def run_pipeline(params: MainParameters, *, name: str) -> PipelineResult:
    """Take or make a pipeline with these parameters below the active run.

    Args:
        params: of main.
        name: of its run, and what every line about it begins with.
    Raises:
        UserError: it failed; the message carries the reason of the step that did.
    """
    return results.read_pipeline(get_or_run_pipeline(params, name=name))


def run_pipelines(asked: Mapping[str, MainParameters], *, at_once: int) -> Iterator[PipelineResult]:
    """Take or make pipelines below the active run, as `run_pipeline` does, in their order.

    Args:
        asked: name -> parameters of main.
        at_once: pipelines that run at the same time; all of them are made before the first is
            told where there is more than one.
    Raises:
        UserError: one failed; others that ran with it have ended.
    """
    if at_once == 1:
        yield from (run_pipeline(params, name=name) for name, params in asked.items())
        return
    decisions = {name: say_decision(find_pipeline(params), name) for name, params in asked.items()}
    missing = {name: asked[name] for name, decision in decisions.items() if not decision.run}
    for params in missing.values():  # one after the other: months that they share are cleaned once
        if params.reuse:
            Pipeline(params).preprocess()
    texts = {name: params.launch_texts() for name, params in missing.items()}
    run_ids = launching.launch_all(MainParameters.entry_point, texts, at_once=at_once)
    for name, decision in decisions.items():
        run = decision.run or runs.finished(run_ids[name], MainParameters.entry_point)
        yield results.read_pipeline(run)


def get_or_run_pipeline(params: MainParameters, *, name: str) -> Run:
    """Take or make a pipeline, or the part of one that is wanted, as `run_pipeline` does."""
    return _get_or_run(params, find_pipeline(params), name)


def run_scoring(params: ScoreParameters, *, name: str) -> ScoringResult:
    """Take or make a scoring with these parameters below the active run, as `run_pipeline` does."""
    return results.read_scoring(_get_or_run(params, find_scoring(params), name))


def find_pipeline(params: MainParameters) -> ReuseDecision:
    """Decide whether a pipeline must run: it need not where each of its steps need not.

    Months that are not here yet are downloaded; nothing is started.
    """
    return Pipeline(params).find_whole()


def plan_pipeline(params: MainParameters) -> str:
    """Say what becomes of a pipeline, as far as can be known without a download."""
    pipeline = Pipeline(params)
    if absent := next((place for place in pipeline.locate() if place.must_come), None):
        return f"runs, unless {absent.uri}, which is to be downloaded, has been read before"
    return pipeline.find_whole().why


def check_months(source: str, taxi: str, wanted: Iterable[str]) -> None:
    """Look for every month before any work.

    Raises:
        StorageError: the source has one not.
    """
    for month in sorted({*wanted}):
        months.locate(source, taxi=taxi, month=month)


def find_scoring(params: ScoreParameters) -> ReuseDecision:
    """Decide whether months must be scored; those that are not here yet are downloaded."""
    model = model_references.resolve(params.model_uri)
    wanted = months.parse_months(params.months)
    key = score_key(params, model.uri, identities(params.source, params.taxi, wanted))
    return reuse.find_reusable(key, runs.experiment_id())


def _get_or_run(params: Parameters, decision: ReuseDecision, name: str) -> Run:
    say_decision(decision, name)
    if decision.run:
        return decision.run
    step = params.entry_point
    try:
        return runs.finished(launching.launch(step, params.launch_texts(), name=name), step)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def say_decision(decision: ReuseDecision, name: str) -> ReuseDecision:
    """Say what becomes of a run below this one; returns the decision."""
    terminal.say(f"{name}: {decision.step} {decision.why}", style="bold")
    return decision
