"""Plan a pipeline: which steps would run and why, which months are missing. Starts nothing."""

from collections.abc import Iterator, Sequence

from steps.common.parameters import MainParameters
from steps.common.pipeline import UPSTREAM, Pipeline
from steps.main.needs import count_trips, describe_needs
from storage.data.months import MonthLocation
from storage.repro import reuse
from storage.tracking import runs
from taxi.spaces import select_space


def plan(pipeline: Pipeline, params: MainParameters) -> list[str]:
    """List the steps with what would happen to each, then the months to be downloaded."""
    locations = pipeline.locate()
    outlooks = {step: plan_step(pipeline, step, locations) for step in pipeline.steps}
    n_trials = n_left = params.max_evals if select_space(params.search_space).ranges else 1
    if outlooks.get("hpo", "").startswith("runs") and "preprocess" in pipeline.done:
        n_done = min(count_finished_trials(pipeline, params), n_trials)
        n_left -= n_done
        outlooks["hpo"] += f"; {n_done} of {n_trials} trials are done"
    wanted = [step for step, summary in outlooks.items() if summary.startswith("runs")]
    known = pipeline.preprocess().metrics if "preprocess" in pipeline.done else {}
    n_trips = count_trips(known, pipeline.splits, locations)
    *others, last = (f"{step:<11} {summary}" for step, summary in outlooks.items())
    return [
        "main",
        *(f"├── {line}" for line in others),
        f"└── {last}",
        *list_known_odd_months(pipeline),
        *(describe_needs(params, n_trips, n_left, wanted) if wanted else []),
        *list_downloads(locations),
    ]


def plan_step(pipeline: Pipeline, step: str, locations: Sequence[MonthLocation]) -> str:
    """Say what would happen to a step, as far as is known before its upstream steps have run."""
    if step in pipeline.given:
        pipeline.get_or_run(step)
        return f"taken as given, {reuse.short_id(pipeline.given[step])}"
    if step == "preprocess" and any(month.needs_download for month in locations):
        return "runs, unless the same bytes have been read before"
    if step == "register" and not pipeline.expects_test():
        return "left out, there are no test months"
    if above := [name for name in UPSTREAM[step] if name not in pipeline.done]:
        return describe_pending_step(step, above[-1])
    decision = pipeline.decide_reuse(step)
    if decision.run:
        pipeline.done[step] = decision.run
    return decision.summary


def list_known_odd_months(pipeline: Pipeline) -> list[str]:
    """List what is implausible about the months, if the preprocess run is known."""
    known = pipeline.preprocess().odd_months if "preprocess" in pipeline.done else []
    return [f"odd: {line}" for line in known]


def count_finished_trials(pipeline: Pipeline, params: MainParameters) -> int:
    """Return how many trials of the search are done, in whichever runs."""
    if not (params.reuse and (experiment_id := runs.experiment_id())):
        return 0
    # imported here: only needed if there is a search
    from steps.common.search_key import count_finished, read_settings

    return count_finished(read_settings(params), pipeline.preprocess(), experiment_id)


def describe_pending_step(step: str, above: str) -> str:
    """Say what is known of a step before its upstream step has run."""
    if reuse.newest(step, runs.experiment_id()) is None:
        return f"runs, {reuse.FIRST_TIME}"
    but = "" if step == "register" else ", unless the trips come out as before"
    return f"runs after {above}{but}"


def list_downloads(locations: Sequence[MonthLocation]) -> Iterator[str]:
    """List the months to be downloaded, with their sizes if the server tells them."""
    missing = [month for month in locations if month.needs_download]
    for month in missing:
        size = "size unknown: " + (
            "the server does not say" if month.server_answers else "no connection"
        )
        if month.n_bytes is not None:
            size = f"{month.n_bytes / 1e6:,.1f} MB"
        yield f"to download: {month.uri} ({size})"
    if locations and not missing:
        yield "to download: nothing"
