"""What people see while something runs: lines, bars and tables, plain if not on a terminal.

Colours and bars are for a terminal; a pipe or a file gets whole lines without escape codes.
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

# rich is imported where something is drawn: most processes print only lines

LEVEL, QUIET = "MLFLOW_LOGGING_LEVEL", "WARNING"
# what MLflow prints besides its log -> the value that turns it off
OUTPUT_SETTINGS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines a run, only with a server
}
# loggers of errors that are also raised, and then reported in one line or, psycopg's, handled:
# MLflow writes the metrics of a run again with each model
LOGGED_AND_RAISED = ("mlflow.store.db.utils", "mlflow.exceptions", "psycopg")
RETRY_LOGGER = "urllib3.connectionpool"  # logger of its retries, which prints nothing
RETRY_NOTICE = "The MLflow server does not answer: retrying, for some minutes."
EVERY_S = 30.0  # between two lines of progress, where there is no bar
UNLIMITED_WIDTH = 10_000  # columns, where there is no terminal
COMMAND = " " * 4  # begins a line that is to be pasted


def quieten() -> None:
    """Silence all but the steps' own output, unless MLFLOW_LOGGING_LEVEL asks for more.

    Steps that this process starts inherit this through their environment.
    """
    for name, value in OUTPUT_SETTINGS.items():
        os.environ.setdefault(name, value)
    retry_logger = logging.getLogger(RETRY_LOGGER)
    if not any(isinstance(handler, OutageHandler) for handler in retry_logger.handlers):
        retry_logger.addHandler(OutageHandler())
    level = os.environ.setdefault(LEVEL, QUIET).upper()
    logging.getLogger("mlflow").setLevel(level)
    if logging.getLogger("mlflow").isEnabledFor(logging.INFO):
        return
    for name in LOGGED_AND_RAISED:
        logging.getLogger(name).setLevel(logging.CRITICAL)


class OutageHandler(logging.Handler):
    """Prints that a server does not answer: MLflow retries for minutes without a word."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Create the handler, with a clock in seconds."""
        super().__init__(logging.WARNING)
        self.clock, self.quiet_until = clock, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Print it, once per process and outage."""
        is_retry = record.getMessage().startswith("Retrying") and "/mlflow" in record.getMessage()
        if is_retry and self.clock() >= self.quiet_until:
            print(RETRY_NOTICE, file=sys.stderr)
        if is_retry:
            self.quiet_until = self.clock() + 10 * EVERY_S


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours and bars."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def print_line(line: str, *, style: str, to: TextIO | None = None) -> None:
    """Print a line, on a terminal in a style of rich; it is never wrapped."""
    stream = to or sys.stdout
    if is_terminal(stream):
        _console(stream).print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, file=stream)


def print_page(lines: Iterable[str]) -> None:
    """Print lines of a run's page without Markdown's marks.

    On a terminal they are wrapped between words, except commands, which are to be pasted.
    """
    console = _console(sys.stdout) if is_terminal(sys.stdout) else None
    for line in lines:
        is_command = line.startswith(COMMAND)
        text = line if is_command else without_markdown(line)
        if console:
            console.print(text, markup=False, highlight=False, soft_wrap=is_command)
        else:
            print(text)


def without_markdown(line: str) -> str:
    """Remove Markdown's marks from a line: those of strong words, code and links."""
    return re.sub(r"\*\*|`", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line))


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, n_texts: int, strong: int
) -> None:
    """Print a table, without its last columns if the terminal is too narrow.

    Args:
        headers: titles of the columns.
        rows: a text for each column.
        n_texts: how many columns, from the left, are words; the others are numbers, right-aligned.
        strong: number of the row that a terminal shows in bold.
    """
    console = _console(sys.stdout)
    options = console.options.update(max_width=UNLIMITED_WIDTH)
    for n_columns in range(len(headers), n_texts, -1):
        table = _table(headers[:n_columns], rows, n_texts, strong)
        if console.measure(table, options=options).maximum <= console.width:
            break
    console.print(table, highlight=False)
    if left_out := ", ".join(headers[n_columns:]):
        console.print(f"(left out for lack of space: {left_out})", highlight=False, markup=False)


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], n_texts: int, strong: int
) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=False)
    for number, header in enumerate(headers):
        justify = "left" if number < n_texts else "right"
        table.add_column(Text(header), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for number, row in enumerate(rows):
        texts = map(Text, row[: len(headers)])  # no markup: a name may hold brackets
        table.add_row(*texts, style="bold" if number == strong else "")
    return table


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    interactive = is_terminal(stream)
    return Console(
        file=stream, force_terminal=interactive, width=None if interactive else UNLIMITED_WIDTH
    )


class Progress:
    """The progress of some work: a bar on a terminal, elsewhere a line now and then.

    It also serves as a progress bar for pooch, which sets `total` and calls the methods.
    """

    def __init__(
        self, what: str, total: int, unit: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start at 0 of `total` units; unit B is shown in MB."""
        self.what, self.total, self.unit = what, total, unit
        self.clock, self.printed_at = clock, clock()
        self.n_done = 0
        self.bar: tuple[Bar, TaskID] | None = None
        if is_terminal(sys.stderr):
            self.bar = _start_bar(what, total)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, n: int = 1, note: str = "") -> None:
        """Count n more units as done, and show them with a note."""
        self.n_done += n
        status = ", ".join(filter(None, (self._amount(), note)))
        if self.bar:
            bar, task = self.bar
            bar.update(task, completed=self.n_done, total=self.total or None, status=status)
        elif self.clock() - self.printed_at >= EVERY_S and self.n_done != self.total:
            self.printed_at = self.clock()
            print(f"{self.what}: {status}", file=sys.stderr, flush=True)

    def reset(self) -> None:
        """Start again at 0."""
        self.n_done = 0

    def close(self) -> None:
        """Remove the bar; the caller reports the result."""
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
        TextColumn("{task.fields[status]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=_console(sys.stderr),
        refresh_per_second=4,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else a file's lines would go to stderr
    )
    task = bar.add_task(what, total=total or None, status="")
    bar.start()
    return bar, task
