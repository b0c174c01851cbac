"""Read months with random changes to their bytes: they must be read, or refused in one line.

`FUZZ_MINUTES=3 python -m bench fuzz_months`; 10 minutes by default. A file that caused any other
error is kept, and named with that error.
"""

import gzip
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from bench import MIB, ROOT, Result
from steps.common.months import read_month
from storage import UserError
from taxi import TripError, cleaning, scoring, simulation
from taxi.scoring import OPTIONAL_ROLES

MINUTES = float(os.environ.get("FUZZ_MINUTES", "10"))
MONTH, N_ROWS = "2021-01", 400
WORDS = (
    b"",
    b",",
    b'"',
    b"\n",
    b"\r",
    b"\x00",
    b"\xff\xfe",
    b"9999-12-31",
    b"1e400",
    b"-",
    b";",
    b"\t",
)


def measure() -> Iterator[Result]:
    """Read changed months in a separate process, which is restarted if it dies."""
    end, seed, n_files, surprises, peak = monotonic() + 60 * MINUTES, 0, 0, 0, 0.0
    with TemporaryDirectory() as folder:
        while (left := end - monotonic()) > 1:
            command = [sys.executable, "-m", "bench.fuzz_months", folder, str(seed), str(left)]
            child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            said = child.stdout.read() if child.stdout else ""
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            peak = max(peak, usage.ru_maxrss / MIB)
            n_surprises = said.count("surprise at ")
            n_read = said.count("\n") - n_surprises
            n_files, seed = n_files + n_read, seed + n_read + 1
            surprises += n_surprises + (child.returncode != 0)
            if child.returncode:
                print(f"process ended with {child.returncode} at seed {seed - 1}", file=sys.stderr)
    what = f"{n_files:,} changed months in {MINUTES:g} min"
    yield Result(f"{what}: tracebacks and crashes", str(surprises), "0")
    yield Result(f"{what}: peak memory", f"{peak:.0f} MiB", "1,024 MiB")


def originals() -> list[tuple[str, bytes]]:
    """Write good months in several formats: (suffix, bytes) of each."""
    table = pa.Table.from_batches(simulation.month_batches(MONTH, N_ROWS, 42))
    ways: list[dict[str, Any]] = [
        {},
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "row_group_size": 90, "data_page_version": "2.0"},
        {"compression": "gzip", "data_page_size": 200, "write_page_index": True},
        {"store_schema": False, "use_deprecated_int96_timestamps": True},
    ]
    files = [(".parquet", _written(table, **way)) for way in ways]
    files.append((".parquet", _written(expanding(table), store_schema=False)))
    text = io.BytesIO()
    pa_csv.write_csv(table, text)
    csv = text.getvalue()
    return [
        *files,
        (".csv", csv),
        (".csv", csv.decode().encode("utf-16")),
        (".csv.gz", gzip.compress(csv)),
    ]


def expanding(table: pa.Table) -> pa.Table:
    """Give every trip the same long text as its zone, which a file stores only once."""
    texts = pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), ["7" * (10 << 20)])
    return table.set_column(table.schema.get_field_index("PULocationID"), "PULocationID", texts)


def _written(table: pa.Table, **way: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **way)
    return sink.getvalue()


def change(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a file a little: bytes, a cut, a word or a repeat; half the time near its end."""
    body = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        near_end = rng.random() < 0.5
        low = max(len(body) - 4_000, 0) if near_end else 0
        at = int(rng.integers(low, max(len(body), low + 1)))
        match int(rng.integers(6)):
            case 0 | 1:
                body[at : at + 1] = bytes([int(rng.integers(256))])
            case 2:
                n = int(rng.integers(1, 9))
                body[at : at + n] = rng.integers(0, 256, n, np.uint8).tobytes()
            case 3:
                body[at : at + int(rng.integers(0, 3))] = WORDS[int(rng.integers(len(WORDS)))]
            case 4:
                body[at:at] = body[at : at + int(rng.integers(1, 400))]
            case _:
                if rng.random() < 0.1:
                    del body[at:]
                elif at < len(body):
                    body[at] ^= 1 << int(rng.integers(8))
    return bytes(body)


def read_all(path: Path) -> None:
    """Read a month as training and scoring do."""
    clean = partial(cleaning.clean, taxi="green", month=MONTH)
    prepare = partial(scoring.prepare_batch, taxi="green", month=MONTH)
    for _ in read_month(path, "green", clean):
        pass
    for _ in read_month(path, "green", prepare, optional_roles=OPTIONAL_ROLES):
        pass


def main(folder: str, seed: int, seconds: float) -> None:
    """Change and read months until time is up; print a line for each."""
    files, end = originals(), monotonic() + seconds
    while monotonic() < end:
        rng = np.random.default_rng(seed)
        suffix, content = files[int(rng.integers(len(files)))]
        path = Path(folder, f"month{suffix}")
        path.write_bytes(change(content, rng))
        try:
            read_all(path)
        except (UserError, TripError) as refusal:
            if "\n" in str(refusal) or len(str(refusal)) > 2_000:
                keep(path, seed, f"a refusal of {len(str(refusal))} characters or several lines")
        except Exception:  # noqa: BLE001
            keep(path, seed, traceback.format_exc())
        print(seed, flush=True)
        seed += 1


def keep(path: Path, seed: int, reason: str) -> None:
    """Keep a file that caused an unexpected error."""
    kept = Path(gettempdir(), f"surprise-{seed}{''.join(path.suffixes)}")
    kept.write_bytes(path.read_bytes())
    print(f"surprise at {seed}", flush=True)
    print(f"{kept}: {reason}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
