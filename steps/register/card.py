"""The model card of a version: facts from its runs, as text for the registry and as a page."""

import argparse
import base64
import csv
import io
from html import escape

import mlflow
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from steps.register.evaluate import GateResult, TestResult, is_dirty
from storage import StorageError
from storage.repro import checkout
from storage.tracking import runs
from taxi import card, evaluation
from taxi.card import Facts

MAX_DESCRIPTION = 5000  # characters, what a registry in a database server keeps
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }}
td, th {{ font-size: 0.85rem }}
td, th {{ border: 1px solid #ccc; padding: 0.2rem 0.6rem; text-align: left }}
pre {{ background: #f4f4f4; padding: 0.8rem; overflow-x: auto }}
img {{ max-width: 100% }}
</style></head><body>
{body}
<h2>Pictures</h2>
{pictures}
</body></html>
"""


def facts(tested: TestResult, judged: GateResult, args: argparse.Namespace) -> Facts:
    """Gather what the card tells from the runs behind the model."""
    preprocess = tested.preprocess
    tags = preprocess.data.tags
    months_csv = runs.fetch(preprocess.info.run_id, "months.csv").read_text()
    return Facts(
        name=args.model_name,
        taxi=tested.taxi,
        model=tested.run.data.tags["model"],
        outcome=judged.outcome,
        months=tested.months,
        files=list(csv.DictReader(io.StringIO(months_csv))),
        splits_sha256={split: tags[f"sha256.{split}"] for split in tested.months},
        is_simulated=tags.get("data") == "simulated",
        feature_set=tested.run.data.tags["features"],
        features=tested.features,
        rmse_valid=tested.run.data.metrics["rmse"],
        scores=tested.intervals,
        checks=judged.decision.checks,
        groups=evaluation.errors_by_group(tested.trips, tested.predicted),
        commit=tags.get("mlflow.source.git.commit", ""),
        is_dirty=is_dirty(tested),
        command=rerun(args),
    )


def rerun(args: argparse.Namespace) -> str:
    """Write the command that makes this model again."""
    values = vars(args)
    if "mlflow.parentRunId" in runs.active().data.tags:
        # main has made the runs from these very parameters: elsewhere they are made anew
        values = values | {name: "" for name in values if name.endswith("_run_id")}
    return checkout.run_command("register", values)


def description(found: Facts) -> str:
    """Write the card for the registry."""
    text = card.write(found, short=True)
    if len(text) <= MAX_DESCRIPTION:
        return text
    end = "\n\nThe rest is in model_card.html of the register run."
    return text[: MAX_DESCRIPTION - len(end)].rpartition("\n")[0] + end


def log_card(found: Facts, tested: TestResult) -> None:
    """Write the card to the active run as one page, pictures included."""
    # without raw HTML: a developer or a folder may be called <script>
    body = MarkdownIt("js-default").render(card.write(found, short=False))
    pictures = {"errors on test": png(evaluation.draw_evaluation(tested.trips, tested.predicted))}
    wanted = (
        ("what the model looks at", tested.run, "importance.png"),
        ("train and valid trips", tested.preprocess, "profile.png"),
    )
    for title, run, artifact in wanted:
        try:
            pictures[title] = runs.fetch(run.info.run_id, artifact).read_bytes()
        except StorageError:  # not every model has every picture
            continue
    shown = (
        f'<h3>{title}</h3><img alt="{title}" src="data:image/png;base64,'
        f'{base64.b64encode(content).decode()}">'
        for title, content in pictures.items()
    )
    page = PAGE.format(title=escape(found.name), body=body, pictures="\n".join(shown))
    mlflow.log_text(page, "model_card.html")


def png(figure: Figure) -> bytes:
    """Draw a figure into bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    return content.getvalue()
