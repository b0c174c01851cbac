"""The report of a pipeline: what won, why and where it fails, on a self-contained page."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from .breakdown import Breakdown
from .city import City
from .evaluation import GroupErrors
from .page import Section, markdown, paragraph, render_page, table
from .report_errors import calibration_chart, error_parts, interval_parts
from .report_search import CsvRows, importance_parts, search_parts
from .words import drift_subject, drop_reasons_among


class StepFacts(NamedTuple):
    """A step, and how the pipeline got its result."""

    step: str
    status: str  # run, reused or given
    reason: str
    seconds: float | None  # its duration when it ran; None if unknown
    run_id: str


class ErrorFacts(NamedTuple):
    """The errors of the model that won."""

    trips_label: str  # which trips: the test months 2021-03, with metered distance
    groups: Sequence[GroupErrors]
    breakdown: Breakdown | None


class ReportFacts(NamedTuple):
    """The contents of a report; empty where the store lacks them."""

    title: str
    about: str  # which run it describes
    headline: Sequence[str]  # markdown, a line each: what won, by how much, the next command
    outcome: Sequence[str]  # markdown: what was registered, and how it is used
    steps: Sequence[Sequence[StepFacts]]  # by stage; steps of a stage are independent
    files: CsvRows  # months.csv of preprocess
    leaderboard: Sequence[str]  # markdown
    trials: CsvRows
    curves: CsvRows
    search_gain: Mapping[str, float]  # gain of the search, and noise of another seed, minutes
    # trips without a distance have boosters of their own in the search's model
    is_split_by_distance: bool
    errors: ErrorFacts
    city: City | None
    coverage: CsvRows
    importance: CsvRows
    champion: Mapping[str, Sequence[str]]  # table: what is compared, before, now
    gate: CsvRows
    drift: CsvRows  # of scored months
    rerun: Sequence[str]  # markdown
    missing: Sequence[str]  # what could not be read, each with the reason


def write_report(facts: ReportFacts, *, style: str, scripts: Sequence[str]) -> str:
    """Write the report as one HTML file.

    Args:
        facts: its contents.
        style: CSS.
        scripts: JavaScript: the chart library and the code that uses it.
    """
    errors = facts.errors
    verdict = markdown(["  \n".join(facts.headline)])
    about = f'<p class="about">{escape(facts.about)}</p>'
    head = f'<div class="verdict">{verdict}</div>\n{about}\n{markdown(facts.outcome)}'
    calibration = [calibration_chart(errors.breakdown)] if errors.breakdown else []
    sections = [
        Section("Steps", [draw_steps(facts.steps)] if facts.steps else []),
        Section("Data", data_parts(facts.files)),
        Section("Models", [markdown(facts.leaderboard)] if facts.leaderboard else []),
        Section(
            "Search",
            search_parts(
                facts.trials,
                facts.curves,
                facts.search_gain,
                is_split_by_distance=facts.is_split_by_distance,
            ),
        ),
        Section(
            "Where it fails",
            error_parts(errors.trips_label, errors.groups, errors.breakdown, facts.city),
        ),
        Section("Calibration and intervals", [*calibration, *interval_parts(facts.coverage)]),
        Section("What the model looks at", importance_parts(facts.importance)),
        Section("The champion", champion_parts(facts.champion, facts.gate)),
        Section("Drift of scored months", drift_parts(facts.drift)),
        Section("Run it again", [markdown(facts.rerun)] if facts.rerun else []),
        Section("Not on this page", [paragraph(reason) for reason in facts.missing]),
    ]
    return render_page(facts.title, head, sections, style=style, scripts=scripts)


def draw_steps(stages: Sequence[Sequence[StepFacts]]) -> str:
    """Draw the steps from top to bottom, independent ones side by side."""
    lines = ["<li>" + "".join(map(_step, stage)) + "</li>" for stage in stages]
    return '<ol class="steps">' + "\n".join(lines) + "</ol>"


def _step(step: StepFacts) -> str:
    took = "" if step.seconds is None else f" · {format_duration(step.seconds)}"
    return (
        f'<div class="step {"run" if step.status == "run" else "reused"}">'
        f"<h3>{escape(step.step)}</h3><p><strong>{escape(step.status)}</strong>{took}</p>"
        f"<p>{escape(step.reason)}</p><p>run <code>{escape(step.run_id)}</code></p></div>"
    )


def format_duration(seconds: float) -> str:
    """Write how long something took: 8 s, 3 min 5 s, 1 h 2 min."""
    hours, minutes, rest = int(seconds // 3600), int(seconds // 60) % 60, int(seconds) % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s"


VERSION = "version"  # column added to the rows of drift.csv: which model scored


def data_parts(files: CsvRows) -> list[str]:
    """Show which files were read, and how many of their rows were dropped for which reason."""
    if not files:
        return []
    reasons = [
        reason
        for reason in drop_reasons_among(files[0])
        if any(int(file[reason]) for file in files)
    ]
    n_raw, n_kept = (sum(int(file[name]) for file in files) for name in ("n_raw", "n_kept"))
    lead = paragraph(f"{n_kept:,} of {n_raw:,} rows are usable trips; the others were dropped.")
    columns: dict[str, list[str]] = {
        "split": [file["split"] for file in files],
        "month": [file["month"] for file in files],
        "rows": [f"{int(file['n_raw']):,}" for file in files],
        "kept": [f"{int(file['n_kept']):,}" for file in files],
        **{
            f"dropped: {reason}": [f"{int(file[reason]):,}" for file in files] for reason in reasons
        },
        "file": [file["uri"] for file in files],
        "sha256": [file["sha256"][:16] for file in files],
    }
    return [lead, table("Months, rows kept and dropped", columns)]


def champion_parts(compared: Mapping[str, Sequence[str]], gate: CsvRows) -> list[str]:
    """Show the previous champion beside this model, and the gate's checks."""
    parts = []
    if compared:
        parts.append(table("The previous champion and this model", compared))
    elif gate:
        parts.append(paragraph("There was no previous champion."))
    if gate:
        shown = {
            "check": [row["check"] for row in gate],
            "found": [row["found"] for row in gate],
            "wanted": [row["wanted"] for row in gate],
            "passed": ["yes" if row["passed"] == "True" else "NO" for row in gate],
        }
        parts += ["<h3>The gate</h3>", table("The gate", shown)]
    return parts


def drift_parts(rows: CsvRows) -> list[str]:
    """Show how far each scored month has drifted from the months its model was trained on."""
    if not rows:
        return []
    drifted = sorted({row["month"] for row in rows if row["drifted"] == "True"})
    shown = {
        "month": [row["month"] for row in rows],
        "scored by": [row[VERSION] for row in rows],
        "measure": [f"{row['measure']} of {drift_subject(row['of'])}" for row in rows],
        "value": [f"{float(row['value']):.3f}" for row in rows],
        "drift from": [f"{float(row['threshold']):g}" for row in rows],
        "drifted": ["yes" if row["drifted"] == "True" else "no" for row in rows],
    }
    summary = f"Drifted: {', '.join(drifted)}." if drifted else "No scored month has drifted."
    about = (
        "PSI is the population stability index, a distance between two histograms: below 0.1 there "
        "is no drift to speak of, above 0.25 the months differ strongly."
    )
    return [paragraph(f"{summary} {about}"), table("Drift by measure", shown)]
