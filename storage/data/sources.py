"""The kinds of sources that months come from: a folder, a simulation, a server, an object store.

A source looks for a month without writing anything, and brings it to this machine when asked.
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
from storage.data.parts import check_kept, n_bytes
from storage.uris import existing_folder, file_path, without_credentials

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

TLC_URL = "https://d37ci6vzurychx.cloudfront.net/trip-data"
PUBLISHED = "2021-01"  # a month that the TLC has for sure, of this taxi:
PUBLISHED_OF = "yellow"
TLC_SIDE = "misc"  # beside the folder of the months
MONTH_NAME = re.compile(r"([a-z]+)_tripdata_(\d{4}-\d{2})")
N_SHOWN = 5  # months of a message
SIMULATED_URI = "simulated:"  # how the URI of a simulated month begins
DEFAULT_TRIPS, DEFAULT_SEED = 30_000, 42  # of a simulated month

Simulate = Callable[[str, int, int], Iterator[pa.RecordBatch]]  # (month, n_trips, seed) -> batches


class NoMonthError(StorageError):
    """The source answers, and has no such month."""


class MonthLocation(NamedTuple):
    """Where a month is, or a file beside the months, before anybody fetches it."""

    month: str  # YYYY-MM; the name of a file that is none
    uri: str  # without credentials
    must_come: bool  # it is not on this machine yet
    n_bytes: int | None  # None where it is not a file yet, or nobody says
    answers: bool = True  # False where nobody could be asked
    path: Path | None = None  # of the file, or the folder of its parts, where it is on this machine


def no_simulation(month: str, n_trips: int, seed: int) -> Iterator[pa.RecordBatch]:
    """Refuse to simulate: for those who only look."""
    raise StorageError(f"{month} is not simulated.")


@dataclass
class Source(ABC):
    """Where the months of one taxi come from; one class for each kind of source."""

    text: str  # as the user wrote it, credentials and all
    taxi: str  # first word of a file's name
    known: Sequence[str] = ()  # how sources begin, for a message
    work_dir: Path = Path()  # where a simulated month is written
    simulate: Simulate = no_simulation

    @abstractmethod
    def locate(self, month: str) -> MonthLocation:
        """Find out where a month is; fetches and writes nothing."""

    @abstractmethod
    def fetch(self, month: str) -> tuple[str, Path]:
        """Bring a month to this machine; returns its URI without credentials, and the file."""

    @abstractmethod
    def locate_beside(self, name: str) -> MonthLocation | None:
        """Find out where a file beside the months is, None where there is none; as locate."""

    @abstractmethod
    def fetch_beside(self, name: str) -> tuple[str, Path] | None:
        """Bring a file beside the months to this machine, None where there is none; as fetch."""

    def names(self, month: str) -> list[str]:
        """List the file names that a month may have, best first."""
        return [f"{self.taxi}_tripdata_{month}{suffix}" for suffix in SUFFIXES]

    @property
    def base(self) -> str:
        """The source as anybody may see it."""
        return without_credentials(self.text).rstrip("/")

    def none(self, month: str, tried: Sequence[str], hint: str = "") -> "NoMonthError":
        """Describe that there is no such month."""
        return NoMonthError(
            f"No {self.taxi} trips in {self.base} for {month}: tried {', '.join(tried)}. {hint}"
            "Check the month, or pass -P source=<folder>."
        )


class Folder(Source):
    """A folder of this machine; its files, and its folders of parts, are used where they lie."""

    def locate(self, month: str) -> MonthLocation:
        """Find the file in the folder."""
        uri, path = self.fetch(month)
        return MonthLocation(month, uri, False, n_bytes(path), path=path)

    def fetch(self, month: str) -> tuple[str, Path]:
        """Find the file in the folder, whatever the case of its name, or the folder of parts."""
        folder = self._folder()
        there = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True)}
        stem = self.names(month)[0].removesuffix(SUFFIXES[0])
        exact = [folder / name for name in self.names(month)]
        spelled = [there[name] for name in (*self.names(month), stem) if name in there]
        hive = [path for path in hive_folders(folder, month) if path.exists()]
        if hive[1:]:
            raise StorageError(
                f"{month} is there twice: {hive[0]} and {hive[1]}. Put the parts of one into the "
                "other, or away."
            )
        for path in (*exact, *spelled, *hive):
            if path.exists():
                check_kept(path)
                check_listed(path)
                return path.as_uri(), path
        here = replace(self, text=str(folder))
        hint = f"Months there: {list_months(there, self.taxi)}. "
        if of_month := [path for name, path in there.items() if name.startswith(stem)]:
            hint = f"{of_month[0].name} is there: unpack it, or put what it links to in its place. "
        raise here.none(month, self.names(month), hint)

    def locate_beside(self, name: str) -> MonthLocation | None:
        """Look for the file in the folder."""
        if (there := self.fetch_beside(name)) is None:
            return None
        uri, path = there
        return MonthLocation(name, uri, False, path.stat().st_size, path=path)

    def fetch_beside(self, name: str) -> tuple[str, Path] | None:
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
    """List the latest months among names of files; those of other taxis where none is of this."""
    found = {match.groups() for name in names if (match := MONTH_NAME.match(name))}
    own = {month for kind, month in found if kind == taxi}
    shown = own or {f"{kind} {month}" for kind, month in found}
    latest = sorted(shown, key=lambda text: text[-len("YYYY-MM") :], reverse=True)
    more = f" and {len(latest) - N_SHOWN} more" if latest[N_SHOWN:] else ""
    return ", ".join(latest[:N_SHOWN]) + more or "none"


def hive_folders(folder: Path, month: str) -> list[Path]:
    """List the folders that Hive and Spark would write a month into."""
    year, number = month.split("-")
    names = dict.fromkeys((number, str(int(number))))
    return [folder / f"year={year}" / f"month={name}" for name in names]


class Simulation(Source):
    """Made-up trips: simulated[:n_trips[:seed]]."""

    def locate(self, month: str) -> MonthLocation:
        """Read what would be simulated."""
        return MonthLocation(month, self.uri, False, None)

    def fetch(self, month: str) -> tuple[str, Path]:
        """Simulate the month into a file in work_dir."""
        uri, path = self.uri, self.work_dir / self.names(month)[0]
        self.work_dir.mkdir(parents=True, exist_ok=True)
        batches = iter(self.simulate(month, *self._size()))
        first = next(batches)
        with (
            files.whole_file(path) as unfinished,
            pq.ParquetWriter(unfinished, first.schema) as writer,
        ):
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)
        return uri, path

    def locate_beside(self, name: str) -> None:
        """Nothing lies beside made-up months."""

    def fetch_beside(self, name: str) -> None:
        """Nothing lies beside made-up months."""

    @property
    def seed(self) -> int:
        """What the simulated city depends on."""
        return self._size()[1]

    @property
    def uri(self) -> str:
        """The simulation in full, by which its months are known."""
        return "{}{}:{}".format(SIMULATED_URI, *self._size())

    def _size(self) -> tuple[int, int]:
        """Read how many trips to simulate, and the seed."""
        match = re.fullmatch(r"simulated(?::0*([1-9][0-9]{0,9})(?::([0-9]{1,9}))?)?", self.text)
        if not match:
            raise StorageError(
                f"Cannot simulate {self.text!r}. Type simulated, simulated:<n_trips> or "
                "simulated:<n_trips>:<seed>, with n_trips a whole number above 0."
            )
        return int(match[1] or DEFAULT_TRIPS), int(match[2] or DEFAULT_SEED)


class Server(Source):
    """A folder of a web server, whose files are kept in the cache."""

    late = "The TLC publishes a month about two months late. "

    def locate(self, month: str) -> MonthLocation:
        """Look into the cache, then ask the server."""
        folder = cache_folder(self.text)
        for name in self.names(month):
            path = folder / name
            if path.exists() and files.is_whole(path):
                uri, size = f"{self.base}/{name}", path.stat().st_size
                return MonthLocation(month, uri, False, size, path=path)
        for name in self.names(month):
            try:
                n_bytes = downloads.ask_size(self.text, name)
            except RefusedError:
                continue
            except (requests.RequestException, ValueError):  # as of a name too long for a host
                uri = f"{self.base}/{self.names(month)[0]}"
                return MonthLocation(month, uri, True, None, answers=False)
            return MonthLocation(month, f"{self.base}/{name}", True, n_bytes)
        self.check_answers_others()
        raise self.none(month, self.names(month), self.late)

    def fetch(self, month: str) -> tuple[str, Path]:
        """Take the file from the cache, or download it."""
        folder = cache_folder(self.text)
        for name in self.names(month):
            if downloads.discard_broken(folder / name):
                return f"{self.base}/{name}", folder / name
        answers = []
        for name in self.names(month):
            try:
                return f"{self.base}/{name}", downloads.download(self.text, name)
            except RefusedError as refused:
                answers.append(f"{name} (HTTP {refused})")
        self.check_answers_others()
        raise self.none(month, answers, self.late)

    def check_answers_others(self) -> None:
        """Make sure that a server that refuses a month does not refuse all of them."""

    @property
    def side(self) -> str:
        """The folder of the server that holds the files beside the months."""
        return self.text

    def locate_beside(self, name: str) -> MonthLocation | None:
        """Look into the cache, then ask the server; a server that is silent has nothing."""
        path, uri = cache_folder(self.side) / name, self._side_uri(name)
        if path.exists() and files.is_whole(path):
            return MonthLocation(name, uri, False, path.stat().st_size, path=path)
        try:
            return MonthLocation(name, uri, True, downloads.ask_size(self.side, name))
        except (RefusedError, requests.RequestException, ValueError):
            return None

    def fetch_beside(self, name: str) -> tuple[str, Path] | None:
        """Take the file from the cache, or download it; a server that is silent has nothing."""
        if downloads.discard_broken(path := cache_folder(self.side) / name):
            return self._side_uri(name), path
        try:
            downloads.ask_size(self.side, name)  # one question: a download is tried for longer
            return self._side_uri(name), downloads.download(self.side, name)
        except (RefusedError, requests.RequestException, ValueError):
            return None

    def _side_uri(self, name: str) -> str:
        return f"{without_credentials(self.side).rstrip('/')}/{name}"


class Tlc(Server):
    """The TLC's own server."""

    def __init__(self, _name: str, *options: Any) -> None:
        super().__init__(TLC_URL, *options)

    def check_answers_others(self) -> None:
        """Ask for a month that is there for sure: a caller who asks too much gets 403 for it too.

        Raises:
            StorageError: the server refuses it as well, however long one waits.
        """
        status = downloads.still_refused(self.text, f"{PUBLISHED_OF}_tripdata_{PUBLISHED}.parquet")
        if status:
            raise StorageError(
                f"The TLC's server refuses everything for now (HTTP {status}, even for "
                f"{PUBLISHED}): it limits how much one address may ask for, or blocks it. Try "
                "again in an hour or from another network, or pass -P source=<folder>."
            )

    @property
    def side(self) -> str:
        """The folder that the TLC keeps all but trips in."""
        return f"{self.text.rpartition('/')[0]}/{TLC_SIDE}"


class StoredObject(NamedTuple):
    """An object of a store."""

    fs: "AbstractFileSystem"
    remote: str  # its path there
    path: Path  # its place in the cache


class ObjectStore(Source):
    """A folder of an object store, whose objects are kept in the cache until they change."""

    def locate(self, month: str) -> MonthLocation:
        """Ask the store for the object, then look for it in the cache."""
        return self._locate(month, self._month(month))

    def fetch(self, month: str) -> tuple[str, Path]:
        """Take the file from the cache, or fetch the object."""
        return self._fetch(self._month(month))

    def locate_beside(self, name: str) -> MonthLocation | None:
        """Ask the store for the object, then look for it in the cache."""
        there = self._side_object(name)
        return self._locate(name, there) if there else None

    def fetch_beside(self, name: str) -> tuple[str, Path] | None:
        """Take the file from the cache, or fetch the object."""
        there = self._side_object(name)
        return self._fetch(there) if there else None

    def _locate(self, what: str, there: StoredObject) -> MonthLocation:
        n_bytes = there.fs.info(there.remote)["size"]
        is_here = there.path.exists() and files.is_whole(there.path)
        path, uri = there.path if is_here else None, f"{self.base}/{there.path.name}"
        return MonthLocation(what, uri, not is_here, n_bytes, path=path)

    def _fetch(self, there: StoredObject) -> tuple[str, Path]:
        return f"{self.base}/{there.path.name}", downloads.fetch_object(*there)

    def _month(self, month: str) -> StoredObject:
        there = self._object(self.names(month))
        if there is None:
            raise self.none(month, self.names(month))
        return there

    def _side_object(self, name: str) -> StoredObject | None:
        try:
            return self._object([name])
        except PermissionError:  # where nobody may list, what is not there is forbidden
            return None

    def _object(self, names: Sequence[str]) -> StoredObject | None:
        """Find the first object there is of these names."""
        fs, root = downloads.open_object_store(self.text)
        for name in names:
            remote = f"{root.rstrip('/')}/{name}"
            try:
                version = fs.ukey(remote)[:16]  # changes with the object, then fetched again
            except FileNotFoundError:
                continue
            return StoredObject(fs, remote, cache_folder(self.text) / version / name)
        return None
