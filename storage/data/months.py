"""Finds months and fetches them: one file or folder each, named as the TLC names it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from storage import StorageError, UserError, one_line
from storage.data.cache import cache_dir
from storage.data.digest import sha256_of
from storage.data.downloads import reason
from storage.data.parts import digest_of, n_bytes
from storage.data.sources import SIMULATED_URI as SIMULATED_URI
from storage.data.sources import TLC_URL as TLC_URL
from storage.data.sources import (
    Folder,
    ObjectStore,
    Server,
    Simulate,
    Simulation,
    Source,
    Tlc,
    no_simulation,
)
from storage.data.sources import MonthLocation as MonthLocation
from storage.uris import expand_env_address, without_credentials

MAX_SOURCE = 2_000  # characters
FIRST_MONTH, LAST_MONTH = "1900-01", "2199-12"  # generous bounds

# a new kind of source is one line: its prefix, or its whole name -> its class
SOURCES: dict[str, type[Source]] = {
    "tlc": Tlc,
    "simulated": Simulation,
    SIMULATED_URI: Simulation,
    "file://": Folder,
    "http://": Server,
    "https://": Server,
    "s3://": ObjectStore,
    "gs://": ObjectStore,
}


class MonthFile(NamedTuple):
    """One month of trips on this machine."""

    month: str  # "2021-01"
    uri: str  # where it came from, without credentials
    path: Path  # the bytes on this machine: a file, or a folder of its parts
    sha256: str  # of those bytes; for a folder see digest_of
    n_bytes: int

    @property
    def identity(self) -> str:
        """What identifies the month, see identify."""
        return identity_of(self.uri, self.sha256)

    @property
    def is_simulated(self) -> bool:
        """Whether its trips are simulated."""
        return self.uri.startswith(SIMULATED_URI)

    def check_unchanged(self) -> None:
        """Make sure, after reading the month, that its bytes still have the sha256 from before.

        Raises:
            StorageError: it was changed or removed while it was read.
        """
        try:
            is_same = digest_of(self.path) == self.sha256
        except OSError:  # removed
            is_same = False
        if not is_same:
            raise StorageError(
                f"{self.uri} was changed while it was read. Run this again once it is whole."
            )


class SideFile(NamedTuple):
    """A file beside the months of a source, fetched to this machine."""

    name: str
    uri: str  # where it came from, without credentials
    path: Path  # the bytes on this machine
    sha256: str  # of those bytes


def identity_of(uri: str, sha256: str) -> str:
    """Return what identifies a month: the sha256 of its bytes, or the URI of its simulation."""
    return uri if uri.startswith(SIMULATED_URI) else sha256


def parse_months(text: str) -> list[str]:
    """Parse "2021-01", "2021-01,2021-03", "2021-01..2021-06" or a mix, in the order given.

    Returns:
        Every month as YYYY-MM; no months for blank text.
    Raises:
        UserError: the text is malformed, a range runs backwards, or a month is given twice.
    """
    parts = text.split(",") if text.strip() else []
    months = [month for part in parts for month in _expand(part.strip(), text)]
    repeated = [month for month, n_times in Counter(months).items() if n_times > 1]
    if repeated:
        raise UserError(f"Month {repeated[0]} is given twice in {text!r}. Name each month once.")
    return months


def next_month(month: str) -> str:
    """Return the month after this one."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def months_between(first: str, last: str) -> list[str]:
    """List the months from one to another, both included; none if the last precedes the first."""
    found = []
    while first <= last:
        found.append(first)
        first = next_month(first)
    return found


def month_step(month: str) -> int:
    """Return the step of a month's metric value: 202303."""
    return int(month.replace("-", ""))


def month_start_ms(month: str) -> int:
    """Return when a month begins, UTC, for a time axis: milliseconds since 1970."""
    return int(datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC).timestamp() * 1000)


def find(source: str, *, taxi: str, month: str, work_dir: Path, simulate: Simulate) -> MonthFile:
    """Fetch one month to this machine.

    Args:
        source: tlc, simulated[:n_trips[:seed]], a folder, or a URI with a prefix from SOURCES.
        taxi: first word of the file's name, such as green.
        month: YYYY-MM.
        work_dir: where a simulated month is written.
        simulate: makes the trips of a simulated month.
    Raises:
        StorageError: there is no such source or month, or it cannot be read or cached.
    """
    advice = (
        f"Check your access, and that the cache {cache_dir()} can be written, or set TAXI_CACHE."
    )
    with _accessible(f"Cannot read or keep {month} from", source, advice):
        uri, path = _source(source, taxi, work_dir, simulate).fetch(month)
        return MonthFile(month, uri, path, digest_of(path), n_bytes(path))


def identify(source: str, *, taxi: str, month: str) -> str:
    """Return what identifies a month: sha256 of its bytes, or the URI of its simulation.

    Fetches the month, unless it is simulated.

    Raises:
        StorageError: as for find.
    """
    if isinstance(simulation := _source(source, taxi), Simulation):
        return simulation.uri
    return find(source, taxi=taxi, month=month, work_dir=Path(), simulate=no_simulation).sha256


def find_side_files(source: str, names: Sequence[str]) -> dict[str, SideFile]:
    """Fetch files that lie beside the months: name -> file; those that do not exist are left out.

    Raises:
        StorageError: there is no such source, or an existing file cannot be read or cached.
    """
    advice = f"Check your access, and that the cache {cache_dir()} can be written."
    with _accessible(f"Cannot read or keep {', '.join(names)} from", source, advice):
        found = {name: _source(source, "").fetch_side_file(name) for name in names}
        return {
            name: SideFile(name, *place, sha256_of(place[1]))
            for name, place in found.items()
            if place
        }


def locate_side_files(source: str, names: Sequence[str]) -> list[MonthLocation]:
    """Find where the files beside the months are, without fetching or writing; skip missing ones.

    Raises:
        StorageError: there is no such source, or a local file cannot be read.
    """
    with _accessible(f"Cannot look for {', '.join(names)} in", source, "Check your access."):
        places = [_source(source, "").locate_side_file(name) for name in names]
        return [found for found in places if found]


def simulated_seed(source: str) -> int | None:
    """Return the seed of a simulation, on which its city depends; None for any other source."""
    simulation = _source(source, "")
    return simulation.seed if isinstance(simulation, Simulation) else None


def locate(source: str, *, taxi: str, month: str) -> MonthLocation:
    """Find where a month is, without fetching or writing.

    Raises:
        StorageError: there is no such source or month, or a local file cannot be read.
    """
    with _accessible(f"Cannot look for {month} in", source, "Check your access."):
        return _source(source, taxi).locate(month)


def _source(
    source: str, taxi: str, work_dir: Path = Path(), simulate: Simulate = no_simulation
) -> Source:
    source = expand_env_address(source, "source")
    if len(source) > MAX_SOURCE or re.search(r"[\x00-\x1f\x7f]", source):
        shown = repr(source if len(source) < 80 else f"{source[:80]}...")
        raise StorageError(
            f"{shown} is no folder and no address: it is too long, or holds what cannot be seen. "
            "Pass another source."
        )
    begins = re.match(r"[a-z][a-z0-9+.-]*:(//)?", source, re.IGNORECASE)
    kind = SOURCES.get(begins[0].lower() if begins else source, Folder)
    if kind in (Server, ObjectStore):
        _check_host(source)
    return kind(source, taxi, tuple(SOURCES), work_dir, simulate)


def _check_host(address: str) -> None:
    """Refuse an address without a host, or with a malformed host or port."""
    shown = without_credentials(address)
    try:
        parts = urlsplit(shown)
        _ = parts.port  # parsed only now
        lack = "" if parts.hostname else "it names no host"
    except ValueError as error:  # unclosed brackets of IPv6, a port above 65535
        lack = one_line(error)
    if lack:
        raise StorageError(
            f"{shown!r} is no address that months can come from: {lack}. Pass another source."
        )


@contextmanager
def _accessible(what: str, source: str, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{what} {without_credentials(source)}: {reason(error)}. {advice}"
        ) from error


def _expand(part: str, text: str) -> Iterator[str]:
    first, dots, last = (word.strip() for word in part.partition(".."))
    last = last if dots else first
    for month in (first, last):
        if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
            raise UserError(
                f"{month!r} in {text!r} is not a month. "
                "Type YYYY-MM, a list 2021-01,2021-03 or a range 2021-01..2021-06."
            )
        if not FIRST_MONTH <= month <= LAST_MONTH:
            raise UserError(
                f"{month!r} in {text!r} is no month of taxi trips. "
                f"Type one from {FIRST_MONTH} to {LAST_MONTH}."
            )
    if last < first:
        raise UserError(f"Range {part!r} runs backwards. Type {last}..{first}.")
    yield from months_between(first, last)
