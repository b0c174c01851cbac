"""The page of a run of register, and the description of the registered model."""

from steps.common import page
from steps.common.results import Dataset, write_registration
from steps.register.evaluate import PROMOTED, UNCHANGED, GateResult, TestResult
from storage.tracking import runs, tags
from storage.tracking.registry import Registry
from taxi.distances import DISTANCE_KINDS

TESTED = "tested"  # outcome of a candidate that was not to be registered
TEST_ONLY = "test_only=true"

MODEL_DESCRIPTION = (
    "Predicts the minutes from pickup to drop-off of a taxi trip from what is known at pickup. "
    "Input: raw trips with the TLC's column names. Serve the version with alias `champion`; the "
    "page of each version says what it was trained and tested on, and why it was refused, if so."
)


def write_registration_page(
    registry: Registry, tested: TestResult, judged: GateResult, dataset: Dataset
) -> None:
    """Write the page of the run, its verdict first."""
    model, score = tested.candidate.model, tested.scores[judged.distance]["rmse"]
    rmse = (
        f"test RMSE **{score:.3f} min** on {page.format_months(dataset.months['test'])} with "
        f"{DISTANCE_KINDS[judged.distance]}"
    )
    version = f"{registry.name} version {judged.version}"
    if judged.outcome == UNCHANGED:
        verdict = f"**Unchanged**: {model} is already the champion, {version}: {rmse}"
    elif judged.outcome == PROMOTED:
        over = f", in place of version {judged.champion_before}" if judged.champion_before else ""
        verdict = f"**Promoted**: {model} is the champion, {version}{over}: {rmse}"
    else:
        stays = (
            f"version {judged.champion_before} stays champion"
            if judged.champion_before
            else "no champion"
        )
        verdict = f"**Refused**: {model} is {version}; {stays}: {rmse}"
    rows = [
        (check.check, check.found, check.wanted, "yes" if check.passed else "**no**")
        for check in judged.decision.rows
    ]
    table = page.to_table(["check", "found", "wanted", "passed"], rows)
    champion = judged.version if judged.outcome in (PROMOTED, UNCHANGED) else judged.champion_before
    serve = page.serving_text(registry.name) if champion else ""
    page.write_verdict(verdict, serve, table, page.link_worst(), dataset=dataset, rmse=score)


def promotion_reason(tested: TestResult, judged: GateResult, allowed: str) -> str:
    """Say in a line, for the history, why a version becomes champion; all reasons are in its tags.

    Args:
        tested: the candidate.
        judged: the gate's outcome.
        allowed: what the gate was told to overlook; empty if nothing.
    """
    score, distance = tested.scores[judged.distance]["rmse"], DISTANCE_KINDS[judged.distance]
    reason = f"test RMSE {score:.3f} min with {distance}"
    if judged.improvement:
        value, low, high = judged.improvement
        reason += (
            f", {value:.3f} below version {judged.champion_before}'s ({low:.3f} to {high:.3f})"
        )
    return f"{reason}; {allowed}" if allowed else reason


def write_test_result(tested: TestResult, dataset: Dataset, distance: str) -> None:
    """Record and print the test result of a model that is not to be registered.

    Args:
        tested: the model.
        dataset: trips of its pipeline.
        distance: kind of distance that candidates were chosen by.
    """
    model, score = tested.candidate.model, tested.scores[distance]["rmse"]
    write_registration(
        model_name="",
        version="",
        champion_version="",
        outcome=TESTED,
        reasons=TEST_ONLY,
        model_uri=tested.candidate.model_uri,
    )
    rmse = f"test RMSE **{score:.3f} min** on {page.format_months(dataset.months['test'])}"
    verdict = (
        f"**Tested**: {model}, {rmse} with {DISTANCE_KINDS[distance]}; not registered: {TEST_ONLY}"
    )
    page.write_verdict(verdict, dataset=dataset, rmse=score)
    print(
        f"{model} tested: test rmse {score:.4f} min with {DISTANCE_KINDS[distance]}; not registered"
    )


def write_rollback_page(registry: Registry, line: str) -> None:
    """Write the page of a run that made a former champion champion again."""
    subject = f"{registry.name} back to version {runs.active().data.tags[tags.VERSION]}"
    runs.write_page(f"**Put back**: {line}\n\n{page.serving_text(registry.name)}", subject)
