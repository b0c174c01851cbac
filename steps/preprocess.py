"""Turn raw months into clean train, valid and test trips.

python -m steps.preprocess --source=simulated
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from steps.common import page
from steps.common.cleaned_months import CleanedMonth, find_cleaned, month_key
from steps.common.months import find_city, find_month, find_zone_files, read_month
from steps.common.parameters import PreprocessParameters
from steps.common.pipeline import preprocess_key, zone_inputs
from steps.common.results import Dataset, write_dataset
from steps.common.step import step_run
from storage.checkout import portable
from storage.data.digest import sha256_of
from storage.data.months import MonthFile, SideFile, identify
from storage.data.splits import Content, split_months
from storage.repro import reuse
from storage.tracking import artifacts, datasets, tags
from storage.tracking.datasets import HashedDataset
from taxi import TripError, schema
from taxi.city import ZONE_FILES, City
from taxi.cleaning import OUTSIDE, UNREADABLE, Cleaned, clean, count_months, first_unreadable
from taxi.maps import draw_zone_map
from taxi.plausibility import Month, odd_months
from taxi.profile import Profile, draw_profile, join_profiles

CONTEXTS = {"train": "training", "valid": "validation", "test": "test"}
COMPRESSION = "zstd"
MAX_TAG = 4_000  # characters, of the 5,000 that every store takes
SIMULATED_URI = "simulated:"  # how the URI of a simulated month begins


class MonthReport(NamedTuple):
    """What one month brought and what was left of it."""

    split: str
    file: MonthFile
    n_raw: int
    dropped: dict[str, int]  # reason -> rows
    profile: Profile  # of the trips that were kept

    def row(self) -> dict[str, str | int]:
        """Lay the report out as one row of the table months.csv."""
        n_kept = self.n_raw - sum(self.dropped.values())
        about = {"split": self.split, **self.file._asdict(), "n_raw": self.n_raw, "n_kept": n_kept}
        del about["path"]
        return about | self.dropped


def main(argv: Sequence[str] | None = None) -> None:
    """Find, clean and log every month asked for."""
    with step_run(PreprocessParameters, __doc__, argv) as params, TemporaryDirectory() as name:
        work_dir, taxi, source = Path(name), params.taxi, params.source
        splits = split_months(params.train_months, params.valid_months, params.test_months)
        schema.raw_columns(taxi)
        zone_files = find_zone_files(source)
        city = find_city(source, zone_files)
        print(describe_city(city, zone_files))
        reports: list[MonthReport] = []
        for split, months in splits.items():
            path = work_dir / f"{split}.parquet"
            with pq.ParquetWriter(path, schema.TRIPS, compression=COMPRESSION) as writer:
                for month in months:
                    known = find_clean(source, taxi, month) if params.reuse else None
                    if known and known.file.uri.startswith(SIMULATED_URI):
                        file = known.file  # which nobody has to make up again
                    else:
                        file = find_month(source, taxi, month, work_dir)
                    reports.append(write_month(split, file, known, writer, taxi=taxi))
        log_reports(reports, taxi)
        log_odd_months(reports)
        profiles = {
            split: join_profiles(report.profile for report in reports if report.split == split)
            for split in splits
        }
        log_profiles(profiles, {report.file.month: report.dropped for report in reports})
        city_sha256 = log_city(city, zone_files, profiles["train"], work_dir)
        dataset = log_splits(splits, work_dir, taxi, portable(source), is_simulated(reports))
        write_dataset(dataset._replace(city=city_sha256))
        write_kept(dataset, reports)
        contents = [Content(split, file.month, file.identity) for split, file, *_ in reports]
        mlflow.set_tags(
            {tags.CLEANED.of(m): month_key(taxi, m, identity) for _, m, identity in contents}
        )
        reuse.tag_key(preprocess_key(taxi, contents, zone_inputs(zone_files)))


def find_clean(source: str, taxi: str, month: str) -> CleanedMonth | None:
    """Look whether an earlier run has cleaned the very bytes that a source has of a month."""
    identity = identify(source, taxi=taxi, month=month)
    return find_cleaned(taxi, month, identity)


def write_month(
    split: str, file: MonthFile, known: CleanedMonth | None, writer: pq.ParquetWriter, *, taxi: str
) -> MonthReport:
    """Write the trips of a month to the parquet file of its split, cleaned now or before.

    Args:
        split: train, valid or test.
        file: of the month.
        known: the same bytes as an earlier run has cleaned them, if one has.
        writer: of columns of schema.TRIPS.
        taxi: key of schema.TAXIS.
    """
    if known:
        return copy_month(split, file, known, writer)
    return clean_month(split, file, writer, taxi=taxi)


def copy_month(
    split: str, file: MonthFile, cleaned: CleanedMonth, writer: pq.ParquetWriter
) -> MonthReport:
    """Write the trips of a month that is clean already."""
    profile = Profile()
    for table in cleaned.tables():
        writer.write_table(table)
        for batch in table.to_batches():
            profile.add(batch)
    kept = f"kept {profile.n_trips:,} of {cleaned.n_raw:,} trips"
    print(f"{split} {file.month}: {kept}, clean already in run {cleaned.run_id[:8]}…")
    return MonthReport(split, file, cleaned.n_raw, cleaned.dropped, profile)


def clean_month(split: str, file: MonthFile, writer: pq.ParquetWriter, *, taxi: str) -> MonthReport:
    """Clean a month.

    Raises:
        TripError: its columns or values cannot be used, or none of its trips is kept.
    """
    dropped: dict[str, int] = {}
    profile, n_raw, n_kept, unreadable = Profile(), 0, 0, ""
    for cleaned, example in clean_file(file, taxi=taxi):
        writer.write_batch(cleaned.trips)
        profile.add(cleaned.trips)
        dropped = {why: dropped.get(why, 0) + n for why, n in cleaned.dropped.items()}
        n_kept += cleaned.trips.num_rows
        n_raw += cleaned.trips.num_rows + sum(cleaned.dropped.values())
        unreadable = unreadable or example
    if not n_kept:
        raise no_trips(file, n_raw, dropped, unreadable, taxi=taxi)
    print(f"{split} {file.month}: kept {n_kept:,} of {n_raw:,} trips")
    if unreadable:
        print(f"{split} {file.month}: dropped {dropped[UNREADABLE]:,} rows: {unreadable}")
    return MonthReport(split, file, n_raw, dropped, profile)


def clean_file(file: MonthFile, *, taxi: str) -> Iterator[tuple[Cleaned, str]]:
    """Stream a month's cleaned batches, each with a value that nobody can read, if there is one.

    Raises:
        TripError: its columns or values cannot be used.
    """

    def understand(batch: pa.RecordBatch) -> tuple[Cleaned, str]:
        cleaned = clean(batch, taxi=taxi, month=file.month)
        return cleaned, first_unreadable(batch, taxi) if cleaned.dropped[UNREADABLE] else ""

    try:
        yield from read_month(file.path, taxi, understand)
    except TripError as error:
        raise TripError(f"{file.uri}: {error}") from error


def no_trips(
    file: MonthFile, n_raw: int, dropped: dict[str, int], unreadable: str, *, taxi: str
) -> TripError:
    """Describe a month that leaves nothing to learn from, and what its file holds instead."""
    reasons = ", ".join(f"{n:,} {why}" for why, n in dropped.items() if n) or "it has no rows"
    held = ""
    if dropped.get(OUTSIDE):
        counts: Counter[str] = Counter()
        for part in read_month(file.path, taxi, partial(count_months, taxi=taxi)):
            counts.update(part)
        held = ", ".join(f"{month} ({n:,})" for month, n in counts.most_common(3))
        held = f" Its trips are of {held}."
    found = f" {unreadable[0].upper()}{unreadable[1:]}." if unreadable else ""
    return TripError(
        f"{file.uri}: none of {n_raw:,} trips is left after cleaning ({reasons}).{held}{found} "
        f"Check that the file holds trips of {file.month}."
    )


def is_simulated(reports: Iterable[MonthReport]) -> bool:
    """Whether any month is made up."""
    return any(report.file.uri.startswith(SIMULATED_URI) for report in reports)


def log_reports(reports: Sequence[MonthReport], taxi: str) -> None:
    """Log which bytes went in, and what was kept and dropped of each month."""
    inputs: list[tuple[HashedDataset, str]] = []
    for report in reports:
        month = HashedDataset(
            name=f"{report.split} {report.file.month}",
            uri=report.file.uri,
            sha256=report.file.sha256,
            columns=pa.schema([(column.name, column.type) for column in schema.raw_columns(taxi)]),
            n_rows=report.n_raw,
        )
        inputs.append((month, CONTEXTS[report.split]))
    datasets.log_datasets(inputs)
    artifacts.log_table([report.row() for report in reports], tags.MONTHS_TABLE)


def log_odd_months(reports: Sequence[MonthReport]) -> None:
    """Say, and tag, what about a month is not plausible after the one before."""
    months = [Month(report.file.month, report.dropped, report.profile) for report in reports]
    if odd := odd_months(months):
        print("\n".join(f"odd: {line}" for line in odd))
        mlflow.set_tag(tags.ODD_MONTHS, "\n".join(odd)[:MAX_TAG])


def log_profiles(profiles: Mapping[str, Profile], dropped: Mapping[str, Mapping[str, int]]) -> None:
    """Log what the trips look like; those of test are counted only: register opens them."""
    for split, profile in profiles.items():
        mlflow.log_metric(tags.N_TRIPS.of(split), profile.n_trips)
    shown = {split: profile for split, profile in profiles.items() if split != "test"}
    mlflow.log_dict({split: profile.state() for split, profile in shown.items()}, tags.PROFILES)
    artifacts.log_figure(draw_profile(shown, dropped), tags.PROFILE_PICTURE)


def describe_city(city: City | None, zone_files: Mapping[str, SideFile]) -> str:
    """Say in one line what is known of the city."""
    if city is not None:
        return f"city: {city.has_place.sum()} zones with their place and borough"
    missing = ", ".join(name for name in ZONE_FILES if name not in zone_files)
    return f"city: no {missing} beside the months, so its map is learned from the trips alone"


def log_city(
    city: City | None, zone_files: Mapping[str, SideFile], train: Profile, folder: Path
) -> str:
    """Log what is known of the city, and the train trips on its map.

    Returns:
        sha256 of the artifact; empty where nothing is known.
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
    figure = draw_zone_map(
        city,
        np.where(city.has_place, train.counts["pickup_zone"], np.nan),
        title=f"Where the {train.n_trips:,} train trips start",
        label="trips by pickup zone",
        is_log=True,
    )
    artifacts.log_figure(figure, tags.CITY_PICTURE)
    return sha256_of(path)


def log_splits(
    months: dict[str, list[str]], folder: Path, taxi: str, source: str, is_simulated: bool
) -> Dataset:
    """Log the parquet file of each split; returns the record of them all."""
    paths = {split: folder / f"{split}.parquet" for split in months}
    for path in paths.values():
        mlflow.log_artifact(str(path), tags.SPLITS)
    sha256 = {split: sha256_of(path) for split, path in paths.items()}
    return Dataset(taxi, is_simulated, source, months, sha256)


def write_kept(dataset: Dataset, reports: Sequence[MonthReport]) -> None:
    """Write the run's page: how many trips count, and why the others do not."""
    dropped: Counter[str] = Counter()
    for report in reports:
        dropped.update(report.dropped)
    n_raw, n_dropped = sum(report.n_raw for report in reports), dropped.total()
    kept = {split: 0 for split in dataset.months}
    for report in reports:
        kept[report.split] += report.n_raw - sum(report.dropped.values())
    shares = (f"{n:,} {split} ({page.span(dataset.months[split])})" for split, n in kept.items())
    verdict = f"**Kept {1 - n_dropped / n_raw:.1%} of {n_raw:,} trips**: {', '.join(shares)}"
    rows = [(why, f"{n:,}") for why, n in dropped.most_common() if n]
    table = page.to_table(["dropped for", "trips"], rows)
    page.write_verdict(verdict, table if rows else "", dataset=dataset)


if __name__ == "__main__":
    main()
