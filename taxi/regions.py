"""Tables of a page as regions, which are reached, and scrolled sideways, by keyboard."""

from html import escape


def framed(label: str, html: str) -> str:
    """Let the tables in some HTML be scrolled sideways, with a finger as with the keyboard."""
    before, *tables = html.split("<table>")
    # a screen reader lists regions by their names
    names = [f"{label} {n}" for n in range(1, len(tables) + 1)] if tables[1:] else [label]
    for name, rest in zip(names, tables, strict=False):
        region = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name)}">'
        before += f"{region}<table>{rest}"
    return before.replace("</table>", "</table></div>")
