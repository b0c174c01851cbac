"""The kinds of sources that months come from: a folder, a simulation, a server, an object store.

A source locates a month without writing anything, and fetches it to this machine when asked.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import requests

from storage import StorageError
from storage.data import downloads, files
from storage.data.cache import cache_folder
from storage.data.downloads import RefusedError
from storage.data.manifest import check_listed
from storage.data.parts import SUFFIXES as SUFFIXES
from storage.data.parts import check_file_or_folder, n_bytes
from storage.uris import existing_folder, file_path, without_credentials

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

TLC_URL = "https://d37ci6vzurychx.cloudfront.net/trip-data"
PUBLISHED_MONTH = "2021-01"  # a month that the TLC certainly has, of this taxi:
PUBLISHED_TAXI = "yellow"
TLC_SIDE_FOLDER = "misc"  # folder beside that of the months
MONTH_NAME = re.compile(r"([a-z]+)_tripdata_(\d{4}-\d{2})")
N_SHOWN = 5  # months in a message
SIMULATED_URI = "simulated:"  # prefix of the URI of a simulated month
DEFAULT_TRIPS, DEFAULT_SEED = 30_000, 42  # of a simulated month

Simulate = Callable[[str, int, int], Iterator[pa.RecordBatch]]  # (month, n_trips, seed) -> batches


class NoMonthError(StorageError):
    """The source answers, but has no such month."""


class MonthLocation(NamedTuple):
    """Where a month, or a file beside the months, is before it is fetched."""

    month: str  # YYYY-MM; or the name of a file beside the months
    uri: str  # without credentials
    needs_download: bool  # it is not on this machine yet, and must be fetched
    n_bytes: int | None  # None if it is not a file yet, or the size is unknown
    server_answers: bool = True  # False if the source did not answer
    path: Path | None = None  # of the file, or the folder of its parts, on this machine


def no_simulation(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
    """Refuse to simulate: for callers that only locate."""
    raise StorageError(f"{month} is not simulated.")


@dataclass
class Source(ABC):
    """Where the months of one taxi come from; a subclass for each kind of source."""

    text: str  # as the user wrote it, including credentials
    taxi: str  # first word of a file's name
    known: Sequence[str] = ()  # prefixes of sources, for a message
    work_dir: Path = Path()  # where a simulated month is written
    simulate: Simulate = no_simulation

    @abstractmethod
    def locate(self, month: str) -> MonthLocation:
        """Find where a month is, without fetching or writing."""

    @abstractmethod
    def fetch(self, month: str) -> tuple[str, Path]:
        """Fetch a month to this machine; return its URI without credentials, and its path."""

    @abstractmethod
    def locate_side_file(self, name: str) -> MonthLocation | None:
        """Find where a file beside the months is, like locate; None if there is none."""

    @abstractmethod
    def fetch_side_file(self, name: str) -> tuple[str, Path] | None:
        """Fetch a file beside the months, like fetch; None if there is none."""

    def names(self, month: str) -> list[str]:
        """List the file names that a month may have, best first."""
        return [f"{self.taxi}_tripdata_{month}{suffix}" for suffix in SUFFIXES]

    @property
    def base(self) -> str:
        """The source without credentials."""
        return without_credentials(self.text).rstrip("/")

    def no_month_error(self, month: str, tried: Sequence[str], hint: str = "") -> "NoMonthError":
        """Return the error that there is no such month."""
        return NoMonthError(
            f"No {self.taxi} trips in {self.base} for {month}: tried {', '.join(tried)}. {hint}"
            "Check the month, or pass -P source=<folder>."
        )


class Folder(Source):
    """A local folder; its files, and its folders of parts, are used in place."""

    def locate(self, month: str) -> MonthLocation:
        """Find the file, or the folder of parts, in the folder."""
        uri, path = self.fetch(month)
        return MonthLocation(month, uri, False, n_bytes(path), path=path)

    def fetch(self, month: str) -> tuple[str, Path]:
        """Find the file, whatever the case of its name, or the folder of parts, in the folder."""
        folder = self._folder()
        existing = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True)}
        stem = self.names(month)[0].removesuffix(SUFFIXES[0])
        exact = [folder / name for name in self.names(month)]
        spelled = [existing[name] for name in (*self.names(month), stem) if name in existing]
        hive = [path for path in hive_folders(folder, month) if path.exists()]
        if hive[1:]:
            raise StorageError(
                f"{month} is there twice: {hive[0]} and {hive[1]}. Put the parts of one into the "
                "other, or away."
            )
        for path in (*exact, *spelled, *hive):
            if path.exists():
                check_file_or_folder(path)
                check_listed(path)
                return path.as_uri(), path
        here = replace(self, text=str(folder))
        hint = f"Months there: {list_months(existing, self.taxi)}. "
        if of_month := [path for name, path in existing.items() if name.startswith(stem)]:
            hint = f"{of_month[0].name} is there: unpack it, or put what it links to in its place. "
        raise here.no_month_error(month, self.names(month), hint)

    def locate_side_file(self, name: str) -> MonthLocation | None:
        """Look for the file in the folder."""
        if (existing := self.fetch_side_file(name)) is None:
            return None
        uri, path = existing
        return MonthLocation(name, uri, False, path.stat().st_size, path=path)

    def fetch_side_file(self, name: str) -> tuple[str, Path] | None:
        """Look for the file in the folder."""
        path = self._folder() / name
        if not path.is_file():
            return None
        check_listed(path)
        return path.as_uri(), path

    def _folder(self) -> Path:
        text = file_path(self.text)
        folder = existing_folder(text)
        if folder is None:
            raise StorageError(
                f"{without_credentials(text)!r} is no folder (seen from {Path.cwd()}) and no known "
                f"source ({', '.join(self.known)}). Relative paths are resolved against the "
                "project checkout: pass an absolute path when running from a git URL."
            )
        return folder


def list_months(names: Iterable[str], taxi: str) -> str:
    """List the latest months among file names; those of other taxis if this one has none."""
    found = {match.groups() for name in names if (match := MONTH_NAME.match(name))}
    own = {month for kind, month in found if kind == taxi}
    shown = own or {f"{kind} {month}" for kind, month in found}
    latest = sorted(shown, key=lambda text: text[-len("YYYY-MM") :], reverse=True)
    more = f" and {len(latest) - N_SHOWN} more" if latest[N_SHOWN:] else ""
    return ", ".join(latest[:N_SHOWN]) + more or "none"


def hive_folders(folder: Path, month: str) -> list[Path]:
    """Return the folders into which Hive and Spark would write a month."""
    year, number = month.split("-")
    names = dict.fromkeys((number, str(int(number))))
    return [folder / f"year={year}" / f"month={name}" for name in names]


class Simulation(Source):
    """Simulated trips: simulated[:n_trips[:seed]]."""

    def locate(self, month: str) -> MonthLocation:
        """Return the simulation's URI: there is no file yet."""
        return MonthLocation(month, self.uri, False, None)

    def fetch(self, month: str) -> tuple[str, Path]:
        """Simulate the month into a file in work_dir."""
        uri, path = self.uri, self.work_dir / self.names(month)[0]
        self.work_dir.mkdir(parents=True, exist_ok=True)
        batches = iter(self.simulate(month, *self._size()))
        first = next(batches)
        with (
            files.atomic_file(path) as unfinished,
            pq.ParquetWriter(unfinished, first.schema) as writer,
        ):
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        return uri, path

    def locate_side_file(self, name: str) -> None:
        """Nothing lies beside made-up months."""

    def fetch_side_file(self, name: str) -> None:
        """Nothing lies beside made-up months."""

    @property
    def seed(self) -> int:
        """The seed, on which the simulated city depends."""
        return self._size()[1]

    @property
    def uri(self) -> str:
        """The complete simulation, which identifies its months."""
        return "{}{}:{}".format(SIMULATED_URI, *self._size())

    def _size(self) -> tuple[int, int]:
        """Parse how many trips to simulate, and the seed."""
        match = re.fullmatch(r"simulated(?::0*([1-9][0-9]{0,9})(?::([0-9]{1,9}))?)?", self.text)
        if not match:
            raise StorageError(
                f"Cannot simulate {self.text!r}. Type simulated, simulated:<n_trips> or "
                "simulated:<n_trips>:<seed>, with n_trips a whole number above 0."
            )
        return int(match[1] or DEFAULT_TRIPS), int(match[2] or DEFAULT_SEED)


class Server(Source):
    """A folder on a web server, whose files are cached."""

    late = "The TLC publishes a month about two months late. "

    def locate(self, month: str) -> MonthLocation:
        """Look in the cache, then ask the server."""
        folder = cache_folder(self.text)
        for name in self.names(month):
            path = folder / name
            if path.exists() and files.is_complete(path):
                uri, size = f"{self.base}/{name}", path.stat().st_size
                return MonthLocation(month, uri, False, size, path=path)
        for name in self.names(month):
            try:
                n_bytes = downloads.ask_size(self.text, name)
            except RefusedError:
                continue
            except (requests.RequestException, ValueError):  # as for a host name that is too long
                uri = f"{self.base}/{self.names(month)[0]}"
                return MonthLocation(month, uri, True, None, server_answers=False)
            return MonthLocation(month, f"{self.base}/{name}", True, n_bytes)
        self.check_answers_others()
        raise self.no_month_error(month, self.names(month), self.late)

    def fetch(self, month: str) -> tuple[str, Path]:
        """Take the file from the cache, or download it."""
        folder = cache_folder(self.text)
        for name in self.names(month):
            if downloads.discard_broken(folder / name):
                return f"{self.base}/{name}", folder / name
        refused_names = []
        for name in self.names(month):
            try:
                return f"{self.base}/{name}", downloads.download(self.text, name)
            except RefusedError as refused:
                refused_names.append(f"{name} (HTTP {refused})")
        self.check_answers_others()
        raise self.no_month_error(month, refused_names, self.late)

    def check_answers_others(self) -> None:
        """Make sure that a server which refuses a month does not refuse everything."""

    @property
    def side_url(self) -> str:
        """The URL of the folder with the files beside the months."""
        return self.text

    def locate_side_file(self, name: str) -> MonthLocation | None:
        """Look in the cache, then ask the server; None if it does not answer."""
        path, uri = cache_folder(self.side_url) / name, self._side_uri(name)
        if path.exists() and files.is_complete(path):
            return MonthLocation(name, uri, False, path.stat().st_size, path=path)
        try:
            return MonthLocation(name, uri, True, downloads.ask_size(self.side_url, name))
        except (RefusedError, requests.RequestException, ValueError):
            return None

    def fetch_side_file(self, name: str) -> tuple[str, Path] | None:
        """Take the file from the cache, or download it; None if the server does not answer."""
        if downloads.discard_broken(path := cache_folder(self.side_url) / name):
            return self._side_uri(name), path
        try:
            downloads.ask_size(self.side_url, name)  # one request: a download is retried longer
            return self._side_uri(name), downloads.download(self.side_url, name)
        except (RefusedError, requests.RequestException, ValueError):
            return None

    def _side_uri(self, name: str) -> str:
        return f"{without_credentials(self.side_url).rstrip('/')}/{name}"


class Tlc(Server):
    """The TLC's own server."""

    def __init__(self, _name: str, *options: Any) -> None:
        super().__init__(TLC_URL, *options)

    def check_answers_others(self) -> None:
        """Ask for a month that certainly exists: a throttled caller gets 403 for it, too.

        Raises:
            StorageError: the server refuses it as well, each time it is asked.
        """
        status = downloads.ask_again_if_refused(
            self.text, f"{PUBLISHED_TAXI}_tripdata_{PUBLISHED_MONTH}.parquet"
        )
        if status:
            raise StorageError(
                f"The TLC's server refuses everything for now (HTTP {status}, even for "
                f"{PUBLISHED_MONTH}): it limits how much one address may ask for, or blocks it. "
                "Try again in an hour or from another network, or pass -P source=<folder>."
            )

    @property
    def side_url(self) -> str:
        """The URL of the TLC's folder for everything but trips."""
        return f"{self.text.rpartition('/')[0]}/{TLC_SIDE_FOLDER}"


class StoredObject(NamedTuple):
    """An object of a store."""

    fs: "AbstractFileSystem"
    remote: str  # its path in the store
    path: Path  # its path in the cache


class ObjectStore(Source):
    """A folder in an object store, whose objects are cached until they change."""

    def locate(self, month: str) -> MonthLocation:
        """Ask the store for the object, then look for it in the cache."""
        return self._locate(month, self._month(month))

    def fetch(self, month: str) -> tuple[str, Path]:
        """Take the file from the cache, or fetch the object."""
        return self._fetch(self._month(month))

    def locate_side_file(self, name: str) -> MonthLocation | None:
        """Ask the store for the object, then look for it in the cache."""
        stored = self._side_object(name)
        return self._locate(name, stored) if stored else None

    def fetch_side_file(self, name: str) -> tuple[str, Path] | None:
        """Take the file from the cache, or fetch the object."""
        stored = self._side_object(name)
        return self._fetch(stored) if stored else None

    def _locate(self, what: str, stored: StoredObject) -> MonthLocation:
        n_bytes = stored.fs.info(stored.remote)["size"]
        is_here = stored.path.exists() and files.is_complete(stored.path)
        path, uri = stored.path if is_here else None, f"{self.base}/{stored.path.name}"
        return MonthLocation(what, uri, not is_here, n_bytes, path=path)

    def _fetch(self, stored: StoredObject) -> tuple[str, Path]:
        return f"{self.base}/{stored.path.name}", downloads.fetch_object(*stored)

    def _month(self, month: str) -> StoredObject:
        stored = self._object(self.names(month))
        if stored is None:
            raise self.no_month_error(month, self.names(month))
        return stored

    def _side_object(self, name: str) -> StoredObject | None:
        try:
            return self._object([name])
        except PermissionError:  # what is missing, if listing is forbidden
            return None

    def _object(self, names: Sequence[str]) -> StoredObject | None:
        """Find the first object with one of these names; None if there is none."""
        fs, root = downloads.open_object_store(self.text)
        for name in names:
            remote = f"{root.rstrip('/')}/{name}"
            try:
                version = fs.ukey(remote)[:16]  # changes with the object: fetched again
            except FileNotFoundError:
                continue
            return StoredObject(fs, remote, cache_folder(self.text) / version / name)
        return None
