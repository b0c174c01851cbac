"""Turn raw months into clean train, valid and test trips.

python -m steps.preprocess --source=simulated
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq

from steps.common import page
from steps.common.cleaned_months import CleanedMonth, find_cleaned, month_key
from steps.common.month_cleaning import MonthCount, clean_batches
from steps.common.months import find_city, find_month, find_zone_files, read_month
from steps.common.parameters import PreprocessParameters
from steps.common.pipeline import preprocess_key, zone_inputs
from steps.common.results import Dataset, write_dataset
from steps.common.step import step_run
from storage.checkout import portable_source
from storage.data.digest import sha256_of
from storage.data.months import MonthFile, SideFile, identify
from storage.data.splits import SplitMonth, split_months
from storage.repro import reuse
from storage.tracking import artifacts, datasets, tags
from storage.tracking.datasets import HashedDataset
from taxi import TripError, schema
from taxi.city import ZONE_FILES, City
from taxi.cleaning import OUTSIDE_MONTH, UNREADABLE, count_months
from taxi.maps import draw_pickups
from taxi.plausibility import (
    MonthProfile,
    describe_early_months,
    describe_implausible_months,
    describe_months_of_other_clocks,
    describe_months_without_distance,
)
from taxi.profile import Profile, draw_profile, join_profiles
from taxi.words import percent

T = TypeVar("T")

CONTEXTS = {"train": "training", "valid": "validation", "test": "test"}
COMPRESSION = "zstd"
MAX_TAG = 4_000  # characters; every store takes 5,000


class MonthReport(NamedTuple):
    """How many trips a month had, and what was kept and dropped."""

    split: str
    file: MonthFile
    counted: MonthCount

    def row(self) -> dict[str, str | int]:
        """Return the report as a row of the table months.csv."""
        n_raw, n_kept = self.counted.n_raw, self.counted.n_kept
        row = {"split": self.split, **self.file._asdict(), "n_raw": n_raw, "n_kept": n_kept}
        del row["path"]
        return row | self.counted.dropped


def main(argv: Sequence[str] | None = None) -> None:
    """Find, clean and log every month asked for."""
    with step_run(PreprocessParameters, __doc__, argv) as params, TemporaryDirectory() as name:
        work_dir, taxi, source = Path(name), params.taxi, params.source
        splits = split_months(params.train_months, params.valid_months, params.test_months)
        schema.raw_columns(taxi)
        zone_files = find_zone_files(source)
        city = find_city(source, zone_files)
        print(describe_city(city, zone_files))
        months = MonthSource(source, taxi, work_dir, params.reuse)
        reports = write_splits(splits, months, params.scheduler)
        log_reports(reports, taxi)
        log_odd_months(reports, splits, taxi)
        profiles = {
            split: join_profiles(one.counted.profile for one in reports if one.split == split)
            for split in splits
        }
        log_profiles(profiles, {report.file.month: report.counted.dropped for report in reports})
        city_sha256 = log_city(city, zone_files, profiles["train"], work_dir)
        is_simulated = any(report.file.is_simulated for report in reports)
        dataset = log_splits(splits, work_dir, taxi, portable_source(source), is_simulated)
        write_dataset(dataset._replace(city=city_sha256))
        write_preprocess_page(dataset, reports)
        contents = [SplitMonth(one.split, one.file.month, one.file.identity) for one in reports]
        mlflow.set_tags(
            {tags.CLEANED.of(m): month_key(taxi, m, identity) for _, m, identity in contents}
        )
        reuse.tag_key(preprocess_key(taxi, contents, zone_inputs(zone_files)))


class MonthSource(NamedTuple):
    """Where months come from."""

    source: str
    taxi: str
    work_dir: Path  # where simulated months are written
    reuse: bool  # whether to use months that an earlier run has cleaned

    def find(self, month: str) -> MonthFile:
        """Fetch a month's file to this machine, or simulate it."""
        return find_month(self.source, self.taxi, month, self.work_dir)


class MonthToWrite(NamedTuple):
    """A month to be written, and its clean trips if they come from elsewhere."""

    split: str
    month: str
    identity: str = ""  # empty if not needed
    known: CleanedMonth | None = None  # cleaned by an earlier run
    fetch: "Callable[[], Future[Any]] | None" = None  # starts to fetch it from a worker
    pending_data: "Future[Any] | None" = None  # the month that the worker sends


def write_splits(
    splits: Mapping[str, Sequence[str]], months: MonthSource, scheduler: str
) -> list[MonthReport]:
    """Write the trips of all months, in order, to a parquet file for each split.

    Args:
        splits: split -> its months.
        months: where they come from.
        scheduler: address of the cluster whose workers clean them; empty = clean them here.
    """
    reports = []
    with open_months(splits, months, scheduler) as coming:
        for split, names in splits.items():
            path = months.work_dir / f"{split}.parquet"
            with pq.ParquetWriter(path, schema.TRIPS, compression=COMPRESSION) as writer:
                reports += [write_month(one, months, writer) for one in islice(coming, len(names))]
    return reports


@contextmanager
def open_months(
    splits: Mapping[str, Sequence[str]], months: MonthSource, scheduler: str
) -> Iterator[Iterator[MonthToWrite]]:
    """Yield an iterator of the months; workers, if any, clean the following ones meanwhile."""
    named = (MonthToWrite(split, month) for split, names in splits.items() for month in names)
    found = (find_earlier_cleaning(one, months, required=bool(scheduler)) for one in named)
    if not scheduler:
        yield found
        return
    from steps.common.cluster_cleaning import open_cleaner  # Dask takes half a second to import

    with open_cleaner(scheduler, months.source, months.taxi) as cleaner:

        def submit(one: MonthToWrite) -> MonthToWrite:
            if one.known:
                return one
            return one._replace(fetch=cleaner.submit(one.month, one.identity))

        cleaned = look_ahead(map(submit, found), cleaner.n_ahead)
        yield look_ahead(map(start_fetch, cleaned), 1)


def find_earlier_cleaning(
    one: MonthToWrite, months: MonthSource, *, required: bool
) -> MonthToWrite:
    """Find a month's identity, if reuse or workers (`required`) need it, and its last cleaning."""
    if not (required or months.reuse):
        return one
    identity = identify(months.source, taxi=months.taxi, month=one.month)
    known = find_cleaned(months.taxi, one.month, identity) if months.reuse else None
    return one._replace(identity=identity, known=known)


def start_fetch(one: MonthToWrite) -> MonthToWrite:
    """Start to fetch a month's trips if a worker cleans it."""
    return one._replace(pending_data=one.fetch(), fetch=None) if one.fetch else one


def look_ahead(items: Iterable[T], n_ahead: int) -> Iterator[T]:
    """Yield items in order, each only after the n_ahead items that follow it were produced."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > n_ahead:
            yield waiting.popleft()
    yield from waiting


def write_month(one: MonthToWrite, months: MonthSource, writer: pq.ParquetWriter) -> MonthReport:
    """Write the trips of a month to the parquet file of its split, wherever they are cleaned.

    Args:
        one: the month.
        months: where it comes from.
        writer: for the columns of schema.TRIPS.
    """
    remote = one.pending_data.result() if one.pending_data else None
    clean = one.known or remote
    # a simulated month that is clean need not be simulated again
    file = clean.file if clean and clean.file.is_simulated else months.find(one.month)
    if one.known:
        return copy_month(one.split, file, one.known, writer)
    if not remote or remote.file.identity != file.identity:  # it failed, or had another file
        return clean_month(one.split, file, writer, taxi=months.taxi)
    for batch in remote.batches():
        writer.write_batch(batch)
    return report_month(one.split, file, remote.counted)


def copy_month(
    split: str, file: MonthFile, cleaned: CleanedMonth, writer: pq.ParquetWriter
) -> MonthReport:
    """Write the trips of a month that an earlier run cleaned."""
    profile = Profile()
    for table in cleaned.tables():
        writer.write_table(table)
        for batch in table.to_batches():
            profile.add(batch)
    kept = f"kept {profile.n_trips:,} of {cleaned.n_raw:,} trips"
    print(f"{split} {file.month}: {kept}, clean already in run {cleaned.run_id[:8]}…")
    return MonthReport(split, file, MonthCount(cleaned.n_raw, cleaned.dropped, profile, ""))


def clean_month(split: str, file: MonthFile, writer: pq.ParquetWriter, *, taxi: str) -> MonthReport:
    """Clean a month, and write its trips.

    Raises:
        TripError: its columns or values cannot be used, or none of its trips is kept.
    """
    count = clean_batches(file, taxi, writer.write_batch)
    if not count.n_kept:
        raise no_trips(file, count, taxi=taxi)
    return report_month(split, file, count)


def report_month(split: str, file: MonthFile, count: MonthCount) -> MonthReport:
    """Print what was kept and dropped of a month; return its report."""
    print(f"{split} {file.month}: kept {count.n_kept:,} of {count.n_raw:,} trips")
    if count.unreadable:
        n_dropped = count.dropped[UNREADABLE]
        print(f"{split} {file.month}: dropped {n_dropped:,} rows: {count.unreadable}")
    return MonthReport(split, file, count)


def no_trips(file: MonthFile, count: MonthCount, *, taxi: str) -> TripError:
    """Make the error for a month of which no trip is kept; it says what the file holds instead."""
    n_raw, dropped, unreadable = count.n_raw, count.dropped, count.unreadable
    reasons = ", ".join(f"{n:,} {why}" for why, n in dropped.items() if n) or "it has no rows"
    held = ""
    if dropped.get(OUTSIDE_MONTH):
        counts: Counter[str] = Counter()
        for part in read_month(file.path, taxi, partial(count_months, taxi=taxi)):
            counts.update(part)
        held = ", ".join(f"{month} ({n:,})" for month, n in counts.most_common(3))
        held = f" Its trips are of {held}."
    found = f" {unreadable[0].upper()}{unreadable[1:]}." if unreadable else ""
    if file.month < (since := schema.select_taxi(taxi).first_month):
        found += f" The TLC's files have {taxi} trips that count since {since}."
    return TripError(
        f"{file.uri}: none of {n_raw:,} trips is left after cleaning ({reasons}).{held}{found} "
        f"Check that the file holds trips of {file.month}."
    )


def log_reports(reports: Sequence[MonthReport], taxi: str) -> None:
    """Log the months' files as inputs, and what was kept and dropped of each month."""
    inputs: list[tuple[HashedDataset, str]] = []
    for report in reports:
        month = HashedDataset(
            name=f"{report.split} {report.file.month}",
            uri=report.file.uri,
            sha256=report.file.sha256,
            columns=pa.schema([(column.name, column.type) for column in schema.raw_columns(taxi)]),
            n_rows=report.counted.n_raw,
        )
        inputs.append((month, CONTEXTS[report.split]))
    datasets.log_datasets(inputs)
    artifacts.log_table([report.row() for report in reports], tags.MONTHS_TABLE)


def log_odd_months(
    reports: Sequence[MonthReport], splits: Mapping[str, Sequence[str]], taxi: str
) -> None:
    """Print and tag what is implausible about a month by itself, after another, or in its split."""
    months = [
        MonthProfile(one.file.month, one.counted.dropped, one.counted.profile) for one in reports
    ]
    without = describe_months_without_distance(months) if schema.has_distance_column(taxi) else []
    by_itself = without + describe_months_of_other_clocks(months)
    if odd := by_itself + describe_implausible_months(months) + describe_early_months(splits):
        print("\n".join(f"odd: {line}" for line in odd))
        mlflow.set_tag(tags.ODD_MONTHS, "\n".join(odd)[:MAX_TAG])


def log_profiles(profiles: Mapping[str, Profile], dropped: Mapping[str, Mapping[str, int]]) -> None:
    """Log the profiles of the trips; test trips are only counted, because register opens them."""
    for split, profile in profiles.items():
        mlflow.log_metric(tags.N_TRIPS.of(split), profile.n_trips)
    shown = {split: profile for split, profile in profiles.items() if split != "test"}
    mlflow.log_dict({split: profile.state() for split, profile in shown.items()}, tags.PROFILES)
    artifacts.log_figure(draw_profile(shown, dropped), tags.PROFILE_PICTURE)


def describe_city(city: City | None, zone_files: Mapping[str, SideFile]) -> str:
    """Say in one line what is known of the city."""
    if city is not None:
        return f"city: {city.has_place.sum()} zones with location and borough"
    missing = ", ".join(name for name in ZONE_FILES if name not in zone_files)
    return f"city: no {missing} next to the months, so the map is learned from the trips only"


def log_city(
    city: City | None, zone_files: Mapping[str, SideFile], train: Profile, folder: Path
) -> str:
    """Log the city's zones, and a map of the train trips.

    Returns:
        sha256 of the artifact; empty if there is no city.
    """
    if city is None:
        return ""
    described = [
        HashedDataset(name=file.name, uri=file.uri, sha256=file.sha256, columns=None, n_rows=None)
        for file in zone_files.values()
    ]
    datasets.log_datasets([(file, "zones") for file in described])
    path = folder / tags.CITY_FILE
    path.write_text(city.to_json(), encoding="utf-8")
    mlflow.log_artifact(str(path))
    artifacts.log_figure(draw_pickups(city, train.counts["pickup_zone"]), tags.CITY_PICTURE)
    return sha256_of(path)


def log_splits(
    months: dict[str, list[str]], folder: Path, taxi: str, source: str, is_simulated: bool
) -> Dataset:
    """Log the parquet file of each split; return the data set that they form."""
    paths = {split: folder / f"{split}.parquet" for split in months}
    for path in paths.values():
        mlflow.log_artifact(str(path), tags.SPLITS)
    sha256 = {split: sha256_of(path) for split, path in paths.items()}
    return Dataset(taxi, is_simulated, source, months, sha256)


def write_preprocess_page(dataset: Dataset, reports: Sequence[MonthReport]) -> None:
    """Write the run's page: how many trips were kept, and why the others were dropped."""
    dropped, kept = Counter[str](), Counter[str]()
    for report in reports:
        dropped.update(report.counted.dropped)
        kept[report.split] += report.counted.n_kept
    n_raw, n_dropped = sum(report.counted.n_raw for report in reports), dropped.total()
    shares = (
        f"{n:,} {split} ({page.format_months(dataset.months[split])})" for split, n in kept.items()
    )
    verdict = f"**Kept {percent(1 - n_dropped / n_raw)} of {n_raw:,} trips**: {', '.join(shares)}"
    rows = [(why, f"{n:,}") for why, n in dropped.most_common() if n]
    table = page.to_table(["dropped for", "trips"], rows)
    page.write_verdict(verdict, table if rows else "", dataset=dataset)


if __name__ == "__main__":
    main()
