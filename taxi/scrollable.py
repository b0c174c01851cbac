"""Tables of a page as regions, which can be focused and scrolled sideways by keyboard."""

from html import escape


def make_tables_scrollable(label: str, html: str) -> str:
    """Make the tables in some HTML scroll sideways, by touch and by keyboard."""
    html_so_far, *tables = html.split("<table>")
    # a screen reader lists regions by their names
    names = [f"{label} {n}" for n in range(1, len(tables) + 1)] if tables[1:] else [label]
    for name, after in zip(names, tables, strict=False):
        region = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        html_so_far += f"{region}<table>{after}"
    return html_so_far.replace("</table>", "</table></div>")
