"""A page of text, tables and charts as one HTML file: whatever goes in is text, never markup."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from .scrollable import make_tables_scrollable
from .words import are_numbers

# no raw HTML, and nothing that is fetched or followed: names in a run may contain such markup
MARKDOWN = MarkdownIt("js-default").disable(["image", "link", "autolink", "reference"])
# the same, enforced by the browser: the page loads nothing at all
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<a class="skip" href="#main">To the content</a>
<header>
<h1>{title}</h1>
{head}
</header>
<nav aria-label="Sections"><ul>
{links}
</ul></nav>
<main id="main">
{sections}
</main>
<script type="application/json" id="charts">{charts}</script>
{scripts}
</body>
</html>
"""


class Chart(NamedTuple):
    """A chart and the table of its numbers."""

    kind: str  # bars, rows, lines, points or map, as report.js draws them
    title: str  # the finding, as a sentence
    columns: Mapping[str, Sequence[Any]]  # heading -> values; x first, then y, then any others
    series: str = ""  # the column that groups lines or points
    best: str = ""  # the series or x value that is highlighted
    wanted: Sequence[Sequence[float]] = ()  # both ends of a grey line that marks the ideal
    ends: Sequence[Sequence[float]] = ()  # of bars: the ends of each bar's interval
    shapes: Sequence[Any] = ()  # of a map: row of the columns or -1, and a ring's xs and ys
    marks: Sequence[Any] = ()  # of a map: x, y and a name
    blank: str = ""  # of a map: legend of the shapes without a row


class Section(NamedTuple):
    """A part of the page with its own heading."""

    name: str
    parts: Sequence[str | Chart]  # HTML, or a chart


def markdown(lines: Sequence[str]) -> str:
    """Convert markdown to HTML; HTML, links and pictures in it stay plain text."""
    return make_tables_scrollable("Table", str(MARKDOWN.render("\n".join(lines))))


def table(label: str, columns: Mapping[str, Sequence[Any]]) -> str:
    """Write columns, heading -> values, as an HTML table."""
    texts = [[format_cell(cell) for cell in cells] for cells in columns.values()]
    kinds = [' class="number"' if are_numbers(cells) else "" for cells in texts]
    headers = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(columns, kinds, strict=True)
    )
    rows = "\n".join(
        "<tr>" + "".join(map(_cell, row, kinds)) + "</tr>" for row in zip(*texts, strict=True)
    )
    return make_tables_scrollable(
        label, f"<table><thead><tr>{headers}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    )


MAX_SHORT_CELL = 24  # characters that a cell keeps on one line


def _cell(text: str, kind: str) -> str:
    kind = ' class="long"' if len(text) > MAX_SHORT_CELL else kind
    return f"<td{kind}>{escape(text)}</td>"


def format_cell(value: Any) -> str:
    """Write a value for people."""
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def paragraph(text: str) -> str:
    """Write a text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def render_page(
    title: str, head: str, sections: Sequence[Section], *, style: str, scripts: Sequence[str]
) -> str:
    """Write the page.

    Args:
        title: of the page, text.
        head: HTML that follows it, before all sections.
        sections: in their order; one without parts is left out.
        style: CSS.
        scripts: JavaScript; the last one draws the charts that the page holds as JSON.
    """
    sections = [section for section in sections if section.parts]
    charts = [part for section in sections for part in section.parts if isinstance(part, Chart)]
    ids = {id(chart): f"chart-{number}" for number, chart in enumerate(charts)}
    drawn = {ids[id(chart)]: chart._asdict() for chart in charts}
    parts = [
        _section(section.name, [_part(part, ids.get(id(part), "")) for part in section.parts])
        for section in sections
    ]
    links = [f'<li><a href="#{_anchor(one.name)}">{escape(one.name)}</a></li>' for one in sections]
    return PAGE.format(
        policy=POLICY,
        title=escape(title),
        style=style,
        head=head,
        links="\n".join(links),
        sections="\n".join(parts),
        # a script element ends at any </script> in its text
        charts=json.dumps(drawn, separators=(",", ":")).replace("<", "\\u003c"),
        scripts="\n".join(f"<script>\n{script}\n</script>" for script in scripts),
    )


def _anchor(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def _section(name: str, parts: Sequence[str]) -> str:
    anchor = _anchor(name)
    heading = f'<h2 id="{anchor}">{escape(name)}</h2>'
    body = "\n".join(parts)
    return f'<section aria-labelledby="{anchor}">\n{heading}\n{body}\n</section>'


def _part(part: str | Chart, name: str) -> str:
    if isinstance(part, str):
        return part
    numbers = table(f"Numbers: {part.title}", part.columns)
    return (
        f'<figure aria-labelledby="{name}-title">\n'
        f'<figcaption id="{name}-title">{escape(part.title)}</figcaption>\n'
        f'<div class="chart" id="{name}" role="img" '
        f'aria-label="{escape(part.title)} The numbers are in the table below it."></div>\n'
        f'<img class="printed" id="{name}-printed" alt="">\n'
        f"<details><summary>Numbers</summary>\n{numbers}\n</details>\n</figure>"
    )
