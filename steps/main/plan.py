"""What a pipeline would do: which steps run and why, which months are missing. Starts nothing."""

import argparse
from collections.abc import Iterator

from steps.common.pipeline import UPSTREAM, Pipeline
from storage.data import months
from storage.data.months import MonthLocation
from storage.repro import reuse
from storage.repro.reuse import ReuseDecision
from storage.tracking import runs


def plan(args: argparse.Namespace) -> list[str]:
    """Draw the steps with what becomes of each, then the months that would be downloaded."""
    chain = Pipeline(args)
    if args.preprocess_run_id or chain.args["preprocess_run_id"]:
        found: list[MonthLocation] = []
    else:
        found = [
            months.look(args.source, taxi=args.taxi, month=month)
            for names in chain.split_months().values()
            for month in names
        ]
    decisions = [plan_step(chain, step, found) for step in UPSTREAM]
    *others, last = decisions
    return [
        "main",
        *(f"├── {decision.step:<11} {decision.why}" for decision in others),
        f"└── {last.step:<11} {last.why}",
        *downloads(found),
        "Nothing was started.",
    ]


def plan_step(chain: Pipeline, step: str, found: list[MonthLocation]) -> ReuseDecision:
    """Say what becomes of a step, as far as it can be known before the ones above have run."""
    if run_id := chain.args.get(f"{step}_run_id", ""):
        chain.done[step] = runs.finished(run_id, step)
        return ReuseDecision(step, chain.done[step], f"taken as given, {run_id[:8]}…")
    if step == "preprocess" and any(month.must_come for month in found):
        return ReuseDecision(step, None, "runs, unless the same bytes have been read before")
    above = [name for name in UPSTREAM[step] if name not in chain.done]
    if step == "register" and not wants_test(chain):
        return ReuseDecision(step, None, "left out, there are no test months")
    if above:
        return ReuseDecision(step, None, later(step, above[-1]))
    decision = chain.decide_reuse(step)
    if decision.run:
        chain.done[step] = decision.run
    elif step == "hpo":
        return decision._replace(why=f"{decision.why}; {trials(chain)}")
    return decision


def trials(chain: Pipeline) -> str:
    """Say how many trials of the search are done, whichever run they belong to."""
    args, base = argparse.Namespace(**chain.args), chain.done["preprocess"]
    if not (args.reuse and runs.experiment_id()):
        return f"0 of {args.max_evals} trials are done"
    # seconds of imports and encoding, which only this question is worth
    from steps.common.candidates import load_trips
    from steps.hpo.search import n_done

    train, valid = (load_trips(base, split) for split in ("train", "valid"))
    n_trials = n_done(train, valid, args, runs.experiment_id())
    return f"{n_trials} of {args.max_evals} trials are done"


def later(step: str, above: str) -> str:
    """Say what is known of a step before the one above it has run."""
    if reuse.newest(step, runs.experiment_id()) is None:
        return f"runs, {reuse.FIRST}"
    but = "" if step == "register" else ", unless the trips come out as before"
    return f"runs after {above}{but}"


def wants_test(chain: Pipeline) -> bool:
    """Tell whether there will be test trips to judge a champion by."""
    if base := chain.done.get("preprocess"):
        return "sha256.test" in base.data.tags
    return "test" in chain.split_months()


def downloads(found: list[MonthLocation]) -> Iterator[str]:
    """List the months that are not here, with their sizes where the server tells."""
    missing = [month for month in found if month.must_come]
    for month in missing:
        size = "size unknown: the server does not say"
        if month.n_bytes is not None:
            size = f"{month.n_bytes / 1e6:,.1f} MB"
        yield f"to download: {month.uri} ({size})"
    if found and not missing:
        yield "to download: nothing"
