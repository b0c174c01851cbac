"""What people see while something runs: lines, bars and tables, plain where nobody watches.

Colours and bars are for a terminal; into a pipe or a file go whole lines without escape codes.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID
    from rich.table import Table

# rich is imported where something is drawn: most of what runs prints lines alone

LEVEL, QUIET = "MLFLOW_LOGGING_LEVEL", "WARNING"
# what MLflow shows besides its log, and how it is asked not to
SHOWS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a run, of a server's runs alone
}
# what is raised too, and then told in one line of ours, or (psycopg's) taken as done: MLflow writes
# the metrics of a run once more with each model
RAISED_TOO = ("mlflow.store.db.utils", "mlflow.exceptions", "psycopg")
ASKS_AGAIN = "urllib3.connectionpool"  # its log, which goes nowhere
EVERY_S = 30.0  # between two lines of progress, where there is no bar
ENDLESS = 10_000  # columns of what is no terminal
COMMAND = " " * 4  # how a line begins that is to be pasted


def quieten() -> None:
    """Leave the terminal to what the steps print, unless MLFLOW_LOGGING_LEVEL asks for more.

    The steps that this process starts find its choice in their environment.
    """
    for name, value in SHOWS.items():
        os.environ.setdefault(name, value)
    asks_again = logging.getLogger(ASKS_AGAIN)
    if not any(isinstance(handler, Waiting) for handler in asks_again.handlers):
        asks_again.addHandler(Waiting())
    level = os.environ.setdefault(LEVEL, QUIET).upper()
    logging.getLogger("mlflow").setLevel(level)
    if logging.getLogger("mlflow").isEnabledFor(logging.INFO):
        return
    for name in RAISED_TOO:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class Waiting(logging.Handler):
    """Says that a server is waited for: MLflow asks again for minutes without a word."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing said."""
        super().__init__(logging.WARNING)
        self.clock, self.quiet_until = clock, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Say so, of each process and outage once."""
        is_retry = record.getMessage().startswith("Retrying") and "/mlflow" in record.getMessage()
        if is_retry and self.clock() >= self.quiet_until:
            print(
                "The MLflow server does not answer: retrying, for some minutes.",
                file=sys.stderr,
            )
        if is_retry:
            self.quiet_until = self.clock() + 10 * EVERY_S


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody watches who can be shown colours and bars."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def say(line: str, *, style: str, to: TextIO | None = None) -> None:
    """Print a line, on a terminal in a style of rich; it stays one line wherever it goes."""
    stream = to or sys.stdout
    if is_terminal(stream):
        _console(stream).print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, file=stream)


def print_page(lines: Iterable[str]) -> None:
    """Print lines of a run's page without their marks.

    A terminal's end breaks them between words, but for what is to be pasted.
    """
    console = _console(sys.stdout) if is_terminal(sys.stdout) else None
    for line in lines:
        is_command = line.startswith(COMMAND)
        text = line if is_command else without_marks(line)
        if console:
            console.print(text, markup=False, highlight=False, soft_wrap=is_command)
        else:
            print(text)


def without_marks(line: str) -> str:
    """Take Markdown's marks out of a line: of words that are strong or code, and of links."""
    return re.sub(r"\*\*|`", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line))


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, n_texts: int, strong: int
) -> None:
    """Print a table; where the terminal is too narrow for it, without its last columns.

    Args:
        heads: of the columns.
        rows: a text for each column.
        n_texts: columns of words; the others are numbers, and stand to the right.
        strong: row that a terminal shows in bold.
    """
    console = _console(sys.stdout)
    options = console.options.update(max_width=ENDLESS)
    for n_columns in range(len(heads), n_texts, -1):
        table = _table(heads[:n_columns], rows, n_texts, strong)
        if console.measure(table, options=options).maximum <= console.width:
            break
    console.print(table, highlight=False)
    if left_out := ", ".join(heads[n_columns:]):
        console.print(f"(left out for lack of space: {left_out})", highlight=False, markup=False)


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], n_texts: int, strong: int
) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=False)
    for number, head in enumerate(heads):
        justify = "left" if number < n_texts else "right"
        table.add_column(Text(head), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for number, row in enumerate(rows):
        texts = map(Text, row[: len(heads)])  # no markup: a name may hold brackets
        table.add_row(*texts, style="bold" if number == strong else "")
    return table


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    watched = is_terminal(stream)
    return Console(file=stream, force_terminal=watched, width=None if watched else ENDLESS)


class Progress:
    """How far something has come: a bar on a terminal, elsewhere a line now and then.

    A bar of this kind is one for pooch, too, which sets `total` and calls the rest.
    """

    def __init__(
        self, what: str, total: int, unit: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with none of `total` units done; bytes are shown in MB."""
        self.what, self.total, self.unit = what, total, unit
        self.clock, self.said_at = clock, clock()
        self.n_done = 0
        self.bar: tuple[Bar, TaskID] | None = None
        if is_terminal(sys.stderr):
            self.bar = _start_bar(what, total)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, n: int = 1, note: str = "") -> None:
        """Take in that n more are done, and what there is to say of them."""
        self.n_done += n
        said = ", ".join(filter(None, (self._amount(), note)))
        if self.bar:
            bar, task = self.bar
            bar.update(task, completed=self.n_done, total=self.total or None, said=said)
        elif self.clock() - self.said_at >= EVERY_S and self.n_done != self.total:
            self.said_at = self.clock()
            print(f"{self.what}: {said}", file=sys.stderr, flush=True)

    def reset(self) -> None:
        """Begin anew."""
        self.n_done = 0

    def close(self) -> None:
        """Take the bar away: what it came to is for whoever began it to say."""
        if self.bar:
            self.bar[0].stop()
            self.bar = None

    def _amount(self) -> str:
        if self.unit != "B":
            return f"{self.n_done:,} of {self.total:,} {self.unit}"
        n_done = min(self.n_done, self.total or self.n_done)  # pooch counts in whole chunks
        done, total = (f"{n / 1e6:,.1f}" for n in (n_done, self.total))
        return f"{done} of {total} MB" if self.total else f"{done} MB"


def _start_bar(what: str, total: int) -> "tuple[Bar, TaskID]":
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[said]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=_console(sys.stderr),
        refresh_per_second=4,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else its lines would go where the bar is
    )
    task = bar.add_task(what, total=total or None, said="")
    bar.start()
    return bar, task
