"""Finds months and brings them here: one file each, named as the TLC names it."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import requests

from storage import StorageError
from storage.data import downloads
from storage.data.downloads import (
    RefusedError,
    cache_dir,
    cache_folder,
    is_cached,
    public_uri,
    reason,
)

TLC_URL = "https://d37ci6vzurychx.cloudfront.net/trip-data"
SUFFIXES = (".parquet", ".csv", ".csv.gz")  # in the order they are tried
DEFAULT_TRIPS, DEFAULT_SEED = 30_000, 42  # of a simulated month

Simulate = Callable[[str, int, int], Iterator[pa.RecordBatch]]  # (month, n_trips, seed) -> batches


class MonthFile(NamedTuple):
    """One month of trips on this machine."""

    month: str  # "2021-01"
    uri: str  # where it came from, without credentials
    path: Path  # the bytes on this machine
    sha256: str  # of those bytes
    n_bytes: int

    @property
    def identity(self) -> str:
        """Say what the month is known by, as identify does."""
        return self.uri if self.uri.startswith("simulated:") else self.sha256


class Wanted(NamedTuple):
    """What a source is asked for."""

    source: str
    taxi: str
    month: str
    work_dir: Path
    simulate: Simulate

    @property
    def names(self) -> list[str]:
        """List the file names that this month may have, best first."""
        return [f"{self.taxi}_tripdata_{self.month}{suffix}" for suffix in SUFFIXES]


class MonthLocation(NamedTuple):
    """Where a month is, before anybody fetches it."""

    month: str
    uri: str  # without credentials
    must_come: bool  # it is not on this machine yet
    n_bytes: int | None  # None where it is not a file yet, or nobody says


def parse_months(text: str) -> list[str]:
    """Read "2021-01", "2021-01,2021-03", "2021-01..2021-06" or a mix, in the order given.

    Returns:
        Every month as YYYY-MM; no months for blank text.
    Raises:
        StorageError: not written so, a range that runs backwards, or a month given twice.
    """
    parts = text.split(",") if text.strip() else []
    months = [month for part in parts for month in _expand(part.strip(), text)]
    twice = [month for month, n_times in Counter(months).items() if n_times > 1]
    if twice:
        raise StorageError(f"Month {twice[0]} is given twice in {text!r}. Name each month once.")
    return months


def next_month(month: str) -> str:
    """Name the month after this one."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def find(source: str, *, taxi: str, month: str, work_dir: Path, simulate: Simulate) -> MonthFile:
    """Bring one month to this machine.

    Args:
        source: tlc, simulated[:n_trips[:seed]], a folder, or a URI that begins as one of SOURCES.
        taxi: first word of the file's name, such as green.
        month: YYYY-MM.
        work_dir: where a simulated month is written.
        simulate: makes the trips of a simulated month.
    Raises:
        StorageError: there is no such source or month, or it cannot be read or cached.
    """
    try:
        uri, path = _fetcher(source)(Wanted(source, taxi, month, work_dir, simulate))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return MonthFile(month, uri, path, sha256, path.stat().st_size)
    except OSError as error:
        raise StorageError(
            f"Cannot read or keep {month} from {public_uri(source)}: {reason(error)}. Check your "
            f"access, and that the cache {cache_dir()} can be written, or set TAXI_CACHE."
        ) from error


def identify(source: str, *, taxi: str, month: str) -> str:
    """Say what a month is known by: the sha256 of its bytes, or what it would be simulated from.

    Raises:
        StorageError: as of find, which brings the month here unless it is simulated.
    """
    if _fetcher(source) is _from_simulation:
        return _simulated(*_simulation(source))
    return find(source, taxi=taxi, month=month, work_dir=Path(), simulate=_no_simulation).sha256


def look(source: str, *, taxi: str, month: str) -> MonthLocation:
    """Find out where a month is; fetches and writes nothing.

    Raises:
        StorageError: there is no such source or month.
    """
    fetch, wanted = _fetcher(source), Wanted(source, taxi, month, Path(), _no_simulation)
    if fetch is _from_simulation:
        return MonthLocation(month, _simulated(*_simulation(source)), False, None)
    try:
        if fetch is _from_folder:
            uri, path = fetch(wanted)
            return MonthLocation(month, uri, False, path.stat().st_size)
        if fetch is _from_store:
            return _look_into_store(wanted)
        return _look_at_server(wanted._replace(source=TLC_URL) if fetch is _from_tlc else wanted)
    except OSError as error:
        raise StorageError(
            f"Cannot look for {month} in {public_uri(source)}: {reason(error)}. Check your access."
        ) from error


def _expand(part: str, text: str) -> Iterator[str]:
    first, dots, last = (word.strip() for word in part.partition(".."))
    last = last if dots else first
    for month in (first, last):
        if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
            raise StorageError(
                f"{month!r} in {text!r} is not a month. "
                "Type YYYY-MM, a list 2021-01,2021-03 or a range 2021-01..2021-06."
            )
    if last < first:
        raise StorageError(f"Range {part!r} runs backwards. Type {last}..{first}.")
    while first <= last:
        yield first
        first = next_month(first)


# --- sources: each gives (uri, path) of the month that is wanted


def _fetcher(source: str) -> Callable[[Wanted], tuple[str, Path]]:
    begins = re.match(r"[a-z][a-z0-9+.-]*:(//)?", source, re.IGNORECASE)
    return SOURCES.get(begins[0].lower() if begins else source, _from_folder)


def _from_folder(wanted: Wanted) -> tuple[str, Path]:
    text = wanted.source
    if text.lower().startswith("file://"):
        text = unquote(text[len("file://") :].removeprefix("localhost"))
    folder = Path(text).expanduser().resolve()
    if not text.strip() or not folder.is_dir():
        raise StorageError(
            f"{public_uri(text)!r} is no folder (seen from {Path.cwd()}) and no known source "
            f"({', '.join(SOURCES)}). Relative paths are resolved against the project checkout: "
            "pass an absolute path when running from a git URL."
        )
    for name in wanted.names:
        if (folder / name).is_file():
            return (folder / name).as_uri(), folder / name
    there = sorted(path.name for path in folder.glob("*_tripdata_*"))
    shown = ", ".join(there[:5]) + (", ..." if there[5:] else "")
    raise _no_month(wanted, str(folder), wanted.names, f"Months there: {shown or 'none'}. ")


def _simulation(source: str) -> tuple[int, int]:
    """Read how many trips to simulate, and the seed."""
    match = re.fullmatch(r"simulated(?::0*([1-9][0-9]*)(?::([0-9]+))?)?", source)
    if not match:
        raise StorageError(
            f"Cannot simulate {source!r}. Type simulated, simulated:<n_trips> or "
            "simulated:<n_trips>:<seed>, with n_trips a whole number above 0."
        )
    return int(match[1] or DEFAULT_TRIPS), int(match[2] or DEFAULT_SEED)


def _simulated(n_trips: int, seed: int) -> str:
    return f"simulated:{n_trips}:{seed}"


def _no_simulation(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
    raise StorageError(f"{month} is not simulated.")


def _from_simulation(wanted: Wanted) -> tuple[str, Path]:
    n_trips, seed = _simulation(wanted.source)
    wanted.work_dir.mkdir(parents=True, exist_ok=True)
    path = wanted.work_dir / wanted.names[0]
    batches = iter(wanted.simulate(wanted.month, n_trips, seed))
    first = next(batches)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)
    return _simulated(n_trips, seed), path


def _from_tlc(wanted: Wanted) -> tuple[str, Path]:
    return _from_server(wanted._replace(source=TLC_URL))


def _from_server(wanted: Wanted) -> tuple[str, Path]:
    folder, base = cache_folder(wanted.source), public_uri(wanted.source)
    for name in wanted.names:
        if is_cached(folder / name):
            return f"{base}/{name}", folder / name
    answers = []
    for name in wanted.names:
        try:
            return f"{base}/{name}", downloads.download(wanted.source, name)
        except RefusedError as refused:
            answers.append(f"{name} (HTTP {refused})")
    raise _no_month(wanted, base, answers, "The TLC publishes a month about two months late. ")


def _from_store(wanted: Wanted) -> tuple[str, Path]:
    base = public_uri(wanted.source)
    fs, root = downloads.open_store(wanted.source)
    for name in wanted.names:
        remote = f"{root.rstrip('/')}/{name}"
        try:
            version = fs.ukey(remote)[:16]  # changes with the object, which is then fetched again
        except FileNotFoundError:
            continue
        place = cache_folder(wanted.source) / version / name
        return f"{base}/{name}", downloads.copy(fs, remote, place)
    raise _no_month(wanted, base, wanted.names)


def _look_at_server(wanted: Wanted) -> MonthLocation:
    folder, base = cache_folder(wanted.source), public_uri(wanted.source)
    for name in wanted.names:
        if is_cached(folder / name):
            size = (folder / name).stat().st_size
            return MonthLocation(wanted.month, f"{base}/{name}", False, size)
    for name in wanted.names:
        try:
            n_bytes = downloads.ask_size(wanted.source, name)
        except RefusedError:
            continue
        except requests.RequestException:
            n_bytes, name = None, wanted.names[0]
        return MonthLocation(wanted.month, f"{base}/{name}", True, n_bytes)
    raise _no_month(wanted, base, wanted.names, "The TLC publishes a month about two months late. ")


def _look_into_store(wanted: Wanted) -> MonthLocation:
    base = public_uri(wanted.source)
    fs, root = downloads.open_store(wanted.source)
    for name in wanted.names:
        remote = f"{root.rstrip('/')}/{name}"
        try:
            version, n_bytes = fs.ukey(remote)[:16], fs.info(remote)["size"]
        except FileNotFoundError:
            continue
        is_here = (cache_folder(wanted.source) / version / name).is_file()
        return MonthLocation(wanted.month, f"{base}/{name}", not is_here, n_bytes)
    raise _no_month(wanted, base, wanted.names)


# a new source is one line: how it begins, or its whole name -> what fetches from it
SOURCES: dict[str, Callable[[Wanted], tuple[str, Path]]] = {
    "tlc": _from_tlc,
    "simulated": _from_simulation,
    "simulated:": _from_simulation,
    "file://": _from_folder,
    "http://": _from_server,
    "https://": _from_server,
    "s3://": _from_store,
    "gs://": _from_store,
}


def _no_month(wanted: Wanted, place: str, tried: list[str], hint: str = "") -> StorageError:
    return StorageError(
        f"No {wanted.taxi} trips in {place} for {wanted.month}: tried {', '.join(tried)}. {hint}"
        "Check the month, or pass -P source=<folder>."
    )
