"""Files of trips, intact and damaged."""

import gc
import gzip
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import StorageError
from storage.checkout import ROOT
from storage.data import files, streams
from tests.storage.samples import CSV, NAME, make_parquet, one_line, read


@pytest.mark.parametrize("zones", [pa.array([7, 9], pa.int64()), pa.array(["7", "9"])])
def test_parquet_is_read_with_the_types_it_has(tmp_path: Path, zones: pa.Array) -> None:
    path = tmp_path / NAME
    path.write_bytes(make_parquet(zones))
    assert files.read_schema(path).field("zone").type == zones.type
    assert read(path, "miles", "zone") == {"miles": [1.5, None], "zone": zones.to_pylist()}
    assert next(files.read_batches(path, ["miles", "zone"])).schema.names == ["miles", "zone"]


def make_csv(folder: Path, content: bytes, suffix: str = ".csv") -> Path:
    path = folder / f"green_tripdata_2021-01{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: content.replace(b"miles\n", b"miles\r\n\r\n"),
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.rstrip(b"\n"),
    ],
    ids=["plain", "crlf", "blank second line", "byte order mark", "no last newline"],
)
def test_csv_is_read_as_text(tmp_path: Path, suffix: str, change: Callable[[bytes], bytes]) -> None:
    path = make_csv(tmp_path, change(CSV), suffix)
    assert files.read_schema(path) == pa.schema(
        [("pickup", pa.string()), ("zone", pa.string()), ("miles", pa.string())]
    )
    assert read(path, "miles", "zone") == {"miles": ["1.5", None], "zone": ["7", "9"]}


def test_csv_headers_keep_their_stray_spaces(tmp_path: Path) -> None:
    path = make_csv(tmp_path, b'pickup, zone,"miles"\n1, 2,3\n')
    assert files.read_schema(path).names == ["pickup", " zone", "miles"]
    assert read(path, " zone") == {" zone": [" 2"]}


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize(
    ("head", "line"), [(b"", 3004), (b"\r\n", 3005)], ids=["plain", "blank second line"]
)
def test_a_broken_csv_line_is_named(
    tmp_path: Path, suffix: str, head: bytes, line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "CSV_BLOCK_BYTES", 1000)  # so that it is not in the first block
    first, rows = CSV[: CSV.index(b"\n") + 1], CSV[CSV.index(b"\n") + 1 :]
    path = make_csv(tmp_path, first + head + rows * 1501 + b"oops,3\n" + rows, suffix)
    with pytest.raises(StorageError) as caught:
        read(path, "zone")
    assert f"{path}: line {line}: Expected 3 columns, got 2: oops,3." in one_line(caught)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (NAME, b""),
        (NAME, b"hello, world\n"),
        (NAME, make_parquet()[:-9]),
        ("trips.csv", b""),
        ("trips.csv", b"\n\n"),
        ("trips.csv", b"2,2021-01-01 00:15:56,N\n"),
        ("trips.csv", b"\x00\x01\x02\n"),
        ("trips.csv", b"<html>oops</html>\n"),
        ("trips.csv.gz", CSV),
        ("trips.csv.gz", b""),
        ("trips.csv.gz", gzip.compress(CSV, mtime=0)[:12]),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        files.read_schema(path)
    kind = "csv" if ".csv" in name else "parquet"
    assert f"{path} is not a whole {kind} file: " in one_line(caught)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        files.read_schema(tmp_path / NAME)


@pytest.mark.parametrize("name", [NAME, "trips.csv"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CSV if name == "trips.csv" else make_parquet())
    with pytest.raises(StorageError, match=r"lacks \['tip'\]; it has \[.*'zone', 'miles'\]"):
        read(path, "zone", "tip")


def test_a_damaged_page_of_parquet_is_one_line(tmp_path: Path) -> None:
    body = bytearray(make_parquet(pa.array(["7", "9"])))
    body[4:60] = b"\xff" * 56
    path = tmp_path / NAME
    path.write_bytes(body)
    assert files.read_schema(path).names == ["zone", "miles"]
    with pytest.raises(StorageError) as caught:
        read(path, "zone")
    assert f"Cannot read {path}: " in one_line(caught)


def test_a_truncated_gzip_is_noticed_while_reading_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    rows = b"".join(b"2021,%d,%d\n" % (n, n * n) for n in range(100_000))
    path = make_csv(tmp_path, b"pickup,zone,miles\n" + rows, ".csv.gz")
    path.write_bytes(path.read_bytes()[:-1000])
    tracemalloc.start()
    for _ in range(3):  # the first leaves what is kept once and for all; the last is measured
        before, _ = tracemalloc.get_traced_memory()
        with pytest.raises(StorageError, match="Truncated compressed stream"):
            read(path, "zone")
        gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert left < 100_000  # bytes; a chunk takes several times as much


def test_a_packed_csv_is_unpacked_in_the_thread_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, unpack = set[int](), streams.BoundedStream.read
    monkeypatch.setattr(files, "CSV_BLOCK_BYTES", 1000)
    monkeypatch.setattr(
        streams.BoundedStream,
        "read",
        lambda *given: threads.add(threading.get_ident()) or unpack(*given),
    )
    path = make_csv(tmp_path, b"pickup,zone,miles\n" + b"2021,7,1\n" * 1000, ".csv.gz")
    assert len(read(path, "zone")["zone"]) == 1000
    assert threads == {threading.get_ident()}  # pyarrow's threads might call after the end


@pytest.mark.parametrize("name", [NAME, "trips.csv"])
def test_no_batch_is_longer_than_asked(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CSV if name == "trips.csv" else make_parquet())
    assert [len(batch) for batch in files.read_batches(path, ["zone"], batch_rows=1)] == [1, 1]


def test_reading_holds_a_small_part_of_a_large_file(tmp_path: Path) -> None:
    n_rows, n_groups = 100_000, 20
    numbers = pa.array(range(n_rows), pa.int64())
    with pq.ParquetWriter(
        tmp_path / NAME, pa.schema([("n", pa.int64())]), compression="none", use_dictionary=False
    ) as writer:
        for _ in range(n_groups):
            writer.write_batch(pa.record_batch({"n": numbers}))
    before, peak, seen = pa.total_allocated_bytes(), 0, 0
    for batch in files.read_batches(tmp_path / NAME, ["n"]):
        seen += len(batch)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert seen == n_rows * n_groups
    assert peak < numbers.nbytes * n_groups / 2


# --- writing

NO_SPACE = """
import resource, signal, sys
from pathlib import Path
from storage import StorageError
from storage.data.files import atomic_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic_file(Path(sys.argv[1])) as unfinished:
        unfinished.write_bytes(bytes(5000))
except StorageError as error:
    print(error)
"""


def test_a_file_for_which_there_is_no_space_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("whole")
    command = [sys.executable, "-c", NO_SPACE, str(tmp_path / "kept")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Cannot write {tmp_path / 'kept'}: ")
    assert "space on its disk" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "whole"


def test_a_file_gets_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), files.atomic_file(tmp_path / "a") as unfinished:
        unfinished.write_text("half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    with files.atomic_file(tmp_path / "a") as unfinished:
        unfinished.write_text("all")
        assert not (tmp_path / "a").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
