"""The first lines of a pipeline's page: what won, by how much, and the next command."""

from collections.abc import Sequence
from typing import NamedTuple

from steps.common import page
from steps.common.results import Candidate, Dataset, RegisterResult, rmse_name
from storage.tracking import tags
from taxi.words import percent


class PipelineOutcome(NamedTuple):
    """The result of a pipeline that made models."""

    dataset: Dataset
    candidates: Sequence[Candidate]  # best first
    registered: RegisterResult | None  # what became of the best; None if register did not run
    distance: str  # kind of distance that candidates were chosen by
    rerun: str  # command that repeats the pipeline
    missing_option: str  # parameter to add so that register runs, if it did not


def headline(outcome: PipelineOutcome) -> list[str]:
    """Write the lines that MLflow shows without unfolding the page."""
    months, registered = outcome.dataset.months, outcome.registered
    won = describe_winner(outcome.candidates, outcome.distance)
    verdict = f"{won} on {page.format_months(months['valid'])} (valid)"
    if registered is None:
        lines = [
            "Not tested, so not registered.",
            f"Next: the same with `{outcome.missing_option}`",
        ]
    else:
        test = registered.metrics[tags.TEST.of(rmse_name(outcome.distance))]
        tested = f"Test RMSE **{test:.3f} min** on {page.format_months(months['test'])}"
        lines = [f"{tested}: {describe_standing(registered)}", f"Next: {suggest_next(registered)}"]
    return [verdict, *lines]


def describe_winner(candidates: Sequence[Candidate], distance: str) -> str:
    """Name the best candidate, its error, and how far the next model is behind."""
    name = rmse_name(distance)
    best, rmse = candidates[0], candidates[0].scores[name]
    others = [one for one in candidates[1:] if one.model != best.model]
    won = f"**{best.model} won: RMSE {rmse:.3f} min"
    if not others:
        return f"{won}**"
    behind = others[0].scores[name] - rmse
    share = behind / others[0].scores[name] if behind else 0.0  # both may be without any error
    return f"{won}, {behind:.3f} ({percent(share)}) below {others[0].model}**"


def describe_standing(registered: RegisterResult) -> str:
    """Say whether the winner is champion."""
    if not registered.version:
        return f"not registered ({registered.reasons})"
    version = f"`{registered.model_name}` version {registered.version}"
    if registered.champion_version == registered.version:
        return f"champion, {version}"
    champion = registered.champion_version
    return f"{version}; {f'version {champion} stays champion' if champion else 'no champion'}"


def suggest_next(registered: RegisterResult) -> str:
    """Say what to run next: the champion's server, if there is a champion."""
    if not registered.version:
        return "the same with `-P test_only=false`, which registers it"
    if not registered.champion_version:
        return f"more trips, more trials or another bound: {registered.reasons}"
    return f"`{page.serve_command(registered.model_name)}`"
