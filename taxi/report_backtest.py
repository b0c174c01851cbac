"""The report of a backtest: its verdict, errors by month and by age, on a self-contained page."""

from collections.abc import Sequence
from html import escape

import numpy as np

from .backtest import COMPARED_BASELINES, MonthErrors, RmseRise, format_n_months, fresh_errors
from .page import Chart, Section, markdown, paragraph, render_page, table
from .words import percent

AGEING = (
    "Each model is compared with a fresh one on the same months, so a hard month is not "
    "ageing. The lines are 95 % intervals (Student's t over the months)."
)


def write_backtest(
    title: str,
    about: str,
    sentences: Sequence[str],
    rows: Sequence[MonthErrors],
    rises: Sequence[RmseRise],
    *,
    rerun: Sequence[str],
    missing: Sequence[str],
    style: str,
    scripts: Sequence[str],
) -> str:
    """Write the report as one HTML file.

    Args:
        title: what was judged.
        about: which run it describes.
        sentences: the verdict, and how two recipes compare, a sentence each.
        rows: the table of the backtest.
        rises: by age; may be empty.
        rerun: markdown: how to run it again.
        missing: what is not on the page, each with the reason.
        style: CSS.
        scripts: JavaScript: the chart library and the code that uses it.
    """
    answer, *others = sentences
    verdict = f'<p class="verdict">{escape(answer)}</p><p class="about">{escape(about)}</p>'
    head = verdict + "".join(map(paragraph, others))
    sections = [
        Section("Month by month", month_parts(rows)),
        Section("What ageing costs", ageing_parts(rises)),
        Section("All models", [all_rows_table(rows)]),
        Section("Run it again", [markdown(rerun)]),
        Section("Not on this page", [paragraph(reason) for reason in missing]),
    ]
    return render_page(title, head, sections, style=style, scripts=scripts)


def month_parts(rows: Sequence[MonthErrors]) -> list[str | Chart]:
    """Show the errors of fresh models by month, and those of the baselines beside them."""
    fresh = fresh_errors(rows)
    months = sorted(fresh)
    worst = max(months, key=lambda month: fresh[month].rmse.value)
    title = f"{worst} was the hardest month: RMSE {fresh[worst].rmse.value:.3f} min."
    columns: dict[str, Sequence[str | float]] = {
        "month": months,
        "RMSE, min": [round(fresh[month].rmse.value, 4) for month in months],
        "95 %": [f"{fresh[m].rmse.low:.3f} to {fresh[m].rmse.high:.3f}" for m in months],
        "bias, min": [round(fresh[month].bias.value, 4) for month in months],
    }
    for model, name in COMPARED_BASELINES.items():
        if baseline_errors := fresh_errors(rows, model):
            columns[name] = [round(baseline_errors[month].rmse.value, 4) for month in months]
    ends = [[fresh[month].rmse.low, fresh[month].rmse.high] for month in months]
    return [Chart("bars", title, columns, best=worst, ends=ends)]


def ageing_parts(rises: Sequence[RmseRise]) -> list[str | Chart]:
    """Show how RMSE rises with the age of a model."""
    if not rises:
        return []
    last = rises[-1]
    age, judged = format_n_months(last.age), format_n_months(last.n_months)
    rise = percent(last.share.value, sign="+")
    title = f"{rise} at an age of {age}, measured on {judged}."
    columns: dict[str, Sequence[str | float]] = {
        "age of the model": [format_n_months(rise.age) for rise in rises],
        "RMSE above a fresh model's, %": [round(100 * rise.share.value, 3) for rise in rises],
        "95 %": [
            f"{100 * low:+.2f} to {100 * high:+.2f}" if np.isfinite(low) else "one month only"
            for _, low, high in (rise.share for rise in rises)
        ],
        "months judged": [rise.n_months for rise in rises],
    }
    ends = [[100 * share.low, 100 * share.high] for _, _, share in rises]
    known = bool(np.isfinite(ends).all())
    return [paragraph(AGEING), Chart("bars", title, columns, ends=ends if known else ())]


def all_rows_table(rows: Sequence[MonthErrors]) -> str:
    """Show the whole table."""
    columns: dict[str, Sequence[str | int | float]] = {
        "trained for": [row.fold for row in rows],
        "judged on": [row.month for row in rows],
        "age, months": [row.age for row in rows],
        "model": [COMPARED_BASELINES.get(row.model, row.model) for row in rows],
        "trips": [row.n_trips for row in rows],
        "RMSE, min": [row.rmse.value for row in rows],
        "bias, min": [row.bias.value for row in rows],
        "scored by run": [row.run_id for row in rows],
    }
    return table("All models, by the month they were trained for", columns)
