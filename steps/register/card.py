"""The model card of a version, from facts of its runs: text for the registry, and a page."""

import base64
from collections.abc import Sequence
from html import escape

import mlflow
from markdown_it import MarkdownIt

from steps.common.results import PreprocessResult
from steps.register.evaluate import GateResult, TestResult
from steps.register.testset import TestSet
from storage import StorageError
from storage.tracking import artifacts, tags
from taxi import card, distances, evaluation, maps
from taxi.card import CardFacts
from taxi.distances import METERED
from taxi.gate import Provenance
from taxi.scrollable import make_tables_scrollable

PICTURE_DPI = 80
# characters: a registry in a database keeps 5000, and an import may put in longer ids
MAX_DESCRIPTION = 4980
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }}
.scroll {{ margin: 1rem 0; overflow-x: auto }}
td, th {{ font-size: 0.85rem }}
td:first-child {{ white-space: nowrap }}
td, th {{ border: 1px solid #ccc; padding: 0.2rem 0.6rem; text-align: left }}
pre {{ background: #f4f4f4; padding: 0.8rem; white-space: pre-wrap; overflow-wrap: anywhere }}
img {{ max-width: 100% }}
</style></head><body><main>
{body}
<h2>Pictures</h2>
{pictures}
</main></body></html>
"""


def make_facts(
    name: str,
    preprocess: PreprocessResult,
    test: TestSet,
    tested: TestResult,
    judged: GateResult,
    provenance: Provenance,
    command: str,
    fitted_to: Sequence[str],
) -> CardFacts:
    """Gather the facts of the card.

    Args:
        name: of the registered model.
        preprocess: the run that made its trips.
        test: the trips that it was tested on.
        tested: the candidate.
        judged: the gate's outcome.
        provenance: what it was made from.
        command: the command that makes it again.
        fitted_to: the splits that the tested model was fitted to.
    """
    dataset, candidate = preprocess.dataset, tested.candidate
    return CardFacts(
        name=name,
        taxi=dataset.taxi,
        model=candidate.model,
        outcome=judged.outcome,
        months=dataset.months,
        files=artifacts.read_table(preprocess.run_id, tags.MONTHS_TABLE),
        splits_sha256=dataset.sha256,
        is_simulated=dataset.is_simulated,
        feature_set=candidate.features,
        features=tested.features,
        rmse_valid=candidate.scores["rmse"],
        scores=tested.intervals,
        rmse_by_distance={kind: scores["rmse"] for kind, scores in tested.scores.items()},
        n_without_distance=distances.n_without_distance(test.trips),
        n_test=len(test.trips),
        checks=judged.decision.checks,
        groups=tested.groups,
        coverage=tested.coverage,
        fitted_to=fitted_to,
        commit=candidate.code.commit,
        is_dirty=provenance.is_dirty,
        command=command,
        slices=judged.decision.slices,
    )


def description(facts: CardFacts, whole: str) -> str:
    """Write the short card, which the registry shows as the version's description.

    Args:
        facts: of the version.
        whole: a link to the whole card, with its pictures, in the run of register.
    """
    text = card.write_card(facts, short=True)
    end = f"\n\nAll of it, with pictures: {whole}."
    if len(text) + len(end) > MAX_DESCRIPTION:
        text = text[: MAX_DESCRIPTION - len(end)].rpartition("\n")[0]
    return text + end


def log_card(
    facts: CardFacts, test: TestSet, tested: TestResult, preprocess: PreprocessResult
) -> None:
    """Log the whole card as one page, pictures included."""
    # js-default passes no raw HTML through: a developer or a folder may be called <script>
    text = MarkdownIt("js-default").render(card.write_card(facts, short=False))
    body = make_tables_scrollable("Table", text)
    figure = evaluation.draw_evaluation(test.trips, tested.predicted[METERED], tested.groups)
    pictures = {"errors on test": artifacts.to_png(figure, PICTURE_DPI)}
    if test.city:
        figure = maps.draw_errors(test.city, test.trips, tested.predicted[METERED])
        pictures["errors on test by zone"] = artifacts.to_png(figure, PICTURE_DPI)
    logged = (
        ("what the model looks at", tested.candidate.run_id, tags.IMPORTANCE_PICTURE),
        ("train and valid trips", preprocess.run_id, tags.PROFILE_PICTURE),
    )
    for title, run_id, artifact in logged:
        try:
            pictures[title] = artifacts.read_bytes(run_id, artifact)
        except StorageError:  # not every model has every picture
            continue
    shown = (
        f'<h3>{title}</h3><img alt="{title}" src="data:image/png;base64,'
        f'{base64.b64encode(content).decode()}">'
        for title, content in pictures.items()
    )
    title = escape(f"Model card of {facts.name}")
    mlflow.log_text(PAGE.format(title=title, body=body, pictures="\n".join(shown)), tags.CARD)
