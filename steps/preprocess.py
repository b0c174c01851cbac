"""Turn raw months into clean train, valid and test trips.

python -m steps.preprocess --source=simulated
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import mlflow
import pyarrow.parquet as pq

from steps.common.artifacts import PROFILES
from steps.common.inputs import find
from steps.common.pipeline import preprocess_key
from steps.common.step import entry_parser, step_run
from storage.data.files import read_batches, read_schema
from storage.data.months import MonthFile
from storage.data.splits import Content, split_months
from storage.repro import reuse
from storage.tracking import runs
from taxi import TripError, schema
from taxi.cleaning import Cleaned, clean
from taxi.profile import Profile, draw_profile

CONTEXTS = {"train": "training", "valid": "validation", "test": "test"}
COMPRESSION = "zstd"
SIMULATED = "simulated:"  # how the URI of a simulated month begins


class MonthReport(NamedTuple):
    """What one month brought and what was left of it."""

    split: str
    file: MonthFile
    n_raw: int
    dropped: dict[str, int]  # reason -> rows

    def row(self) -> dict[str, str | int]:
        """Lay the report out as one row of the table months.csv."""
        n_kept = self.n_raw - sum(self.dropped.values())
        about = {"split": self.split, **self.file._asdict(), "n_raw": self.n_raw, "n_kept": n_kept}
        del about["path"]
        return about | self.dropped


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("preprocess", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Find, clean and log every month asked for."""
    with step_run(build_parser(), argv) as args, TemporaryDirectory() as work_dir:
        splits = split_months(args.train_months, args.valid_months, args.test_months)
        schema.raw_columns(args.taxi)
        profiles, reports = {}, []
        for split, names in splits.items():
            profiles[split] = Profile()
            files = (find(args, month, Path(work_dir)) for month in names)
            path = Path(work_dir, f"{split}.parquet")
            reports += write_split(split, files, path, taxi=args.taxi, profile=profiles[split])
        log(args.taxi, profiles, reports, Path(work_dir))
        contents = [Content(split, file.month, file.identity) for split, file, *_ in reports]
        reuse.tag(preprocess_key(vars(args), contents))


def write_split(
    split: str, files: Iterator[MonthFile], path: Path, *, taxi: str, profile: Profile
) -> list[MonthReport]:
    """Clean the months of a split one after the other into one parquet file.

    Raises:
        TripError: a month's columns or values cannot be used, or none of its trips is kept.
    """
    reports = []
    with pq.ParquetWriter(path, schema.TRIPS, compression=COMPRESSION) as writer:
        for file in files:
            dropped: dict[str, int] = {}
            n_raw = n_kept = 0
            for cleaned in clean_file(file, taxi=taxi):
                writer.write_batch(cleaned.trips)
                profile.add(cleaned.trips)
                dropped = {why: dropped.get(why, 0) + n for why, n in cleaned.dropped.items()}
                n_kept += cleaned.trips.num_rows
                n_raw += cleaned.trips.num_rows + sum(cleaned.dropped.values())
            require_kept_trips(file, n_raw, n_kept, dropped)
            print(f"{split} {file.month}: kept {n_kept:,} of {n_raw:,} trips")
            reports.append(MonthReport(split, file, n_raw, dropped))
    return reports


def clean_file(file: MonthFile, *, taxi: str) -> Iterator[Cleaned]:
    """Stream a month's cleaned batches; an error names the file."""
    try:
        columns = list(schema.match_columns(read_schema(file.path), taxi))
        for batch in read_batches(file.path, columns):
            yield clean(batch, taxi=taxi, month=file.month)
    except TripError as error:
        raise TripError(f"{file.uri}: {error}") from error


def require_kept_trips(file: MonthFile, n_raw: int, n_kept: int, dropped: dict[str, int]) -> None:
    """Stop at a month that leaves nothing to learn from."""
    if n_kept:
        return
    reasons = ", ".join(f"{n:,} {why}" for why, n in dropped.items() if n) or "it has no rows"
    raise TripError(
        f"{file.uri}: none of {n_raw:,} trips is left after cleaning ({reasons}). "
        f"Check that the file holds trips of {file.month}."
    )


def log(taxi: str, profiles: dict[str, Profile], reports: list[MonthReport], folder: Path) -> None:
    """Write the splits, where they came from and what they look like to the run."""
    made_up = any(report.file.uri.startswith(SIMULATED) for report in reports)
    mlflow.set_tags({"taxi": taxi, "data": "simulated" if made_up else "real"})
    for report in reports:
        runs.log_dataset(
            name=f"{report.split} {report.file.month}",
            uri=report.file.uri,
            sha256=report.file.sha256,
            context=CONTEXTS[report.split],
        )
    for split, profile in profiles.items():
        path = folder / f"{split}.parquet"
        names = ",".join(report.file.month for report in reports if report.split == split)
        mlflow.set_tags({f"sha256.{split}": runs.sha256_of(path), f"months.{split}": names})
        mlflow.log_metric(f"n_trips_{split}", profile.n_trips)
        mlflow.log_artifact(str(path), "data")
    runs.log_table([report.row() for report in reports], "months.csv")
    dropped = {report.file.month: report.dropped for report in reports}
    # test trips are counted, not looked at: register opens them
    seen = {split: profile for split, profile in profiles.items() if split != "test"}
    mlflow.log_dict({split: profile.state() for split, profile in seen.items()}, PROFILES)
    mlflow.log_figure(draw_profile(seen, dropped), "profile.png")


if __name__ == "__main__":
    main()
