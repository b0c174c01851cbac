"""Reuse or launch a pipeline, or a run of score, below a run of many of them.

Like a step, each has a key of what its result depends on. So a sweep or backtest that was killed
resumes where it was, and two of them share what they have in common. A reused run stays below the
run that made it. An interruption closes the pipeline, its steps and the run above them.
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
    """Reuse or run a pipeline with these parameters below the active run.

    Args:
        params: of main.
        name: of its run; every line printed about it begins with it.
    Raises:
        UserError: it failed; the message has the reason of the step that failed.
    """
    return results.read_pipeline(get_or_run_pipeline(params, name=name))


def run_pipelines(
    pipelines: Mapping[str, MainParameters], *, at_once: int
) -> Iterator[PipelineResult]:
    """Reuse or run pipelines below the active run, as `run_pipeline` does, in their order.

    Args:
        pipelines: name -> parameters of main.
        at_once: how many run at the same time; if more than one, all of them finish before the
            first result is yielded.
    Raises:
        UserError: one failed; those that ran beside it have ended.
    """
    if at_once == 1:
        yield from (run_pipeline(params, name=name) for name, params in pipelines.items())
        return
    decisions = {
        name: print_decision(find_pipeline(params), name) for name, params in pipelines.items()
    }
    missing = {name: pipelines[name] for name, decision in decisions.items() if not decision.run}
    for params in missing.values():  # one by one, so that months they share are cleaned only once
        if params.reuse:
            Pipeline(params).preprocess()
    texts = {name: params.launch_texts() for name, params in missing.items()}
    run_ids = launching.launch_all(MainParameters.entry_point, texts, at_once=at_once)
    for name, decision in decisions.items():
        run = decision.run or runs.finished(run_ids[name], MainParameters.entry_point)
        yield results.read_pipeline(run)


def get_or_run_pipeline(params: MainParameters, *, name: str) -> Run:
    """Reuse or run a pipeline, or the wanted steps of one, as `run_pipeline` does."""
    return _get_or_run(params, find_pipeline(params), name)


def run_scoring(params: ScoreParameters, *, name: str) -> ScoringResult:
    """Reuse or run score with these parameters below the active run, as `run_pipeline` does."""
    return results.read_scoring(_get_or_run(params, find_scoring(params), name))


def find_pipeline(params: MainParameters) -> ReuseDecision:
    """Decide whether a pipeline must run, as it must if one of its steps must.

    Missing months are downloaded; nothing is started.
    """
    return Pipeline(params).find_reusable_pipeline()


def plan_pipeline(params: MainParameters) -> str:
    """Say what would happen to a pipeline, as far as is known without a download."""
    pipeline = Pipeline(params)
    if absent := next((place for place in pipeline.locate() if place.needs_download), None):
        return f"runs, unless {absent.uri}, which is to be downloaded, has been read before"
    return pipeline.find_reusable_pipeline().summary


def check_months(source: str, taxi: str, month_names: Iterable[str]) -> None:
    """Check, before any work, that the source has every month.

    Raises:
        StorageError: a month is missing.
    """
    for month in sorted({*month_names}):
        months.locate(source, taxi=taxi, month=month)


def find_scoring(params: ScoreParameters) -> ReuseDecision:
    """Decide whether months must be scored; missing months are downloaded."""
    model = model_references.resolve(params.model_uri)
    month_names = months.parse_months(params.months)
    key = score_key(params, model.uri, identities(params.source, params.taxi, month_names))
    return reuse.find_reusable(key, runs.experiment_id())


def _get_or_run(params: Parameters, decision: ReuseDecision, name: str) -> Run:
    print_decision(decision, name)
    if decision.run:
        return decision.run
    step = params.entry_point
    try:
        return runs.finished(launching.launch(step, params.launch_texts(), name=name), step)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def print_decision(decision: ReuseDecision, name: str) -> ReuseDecision:
    """Print what happens to a child run; return the decision."""
    terminal.print_line(f"{name}: {decision.step} {decision.summary}", style="bold")
    return decision
