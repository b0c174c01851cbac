"""Months that cannot be scored: the error, and what is left behind."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from steps.common.months import find_month
from storage.data.months import MonthFile
from taxi.simulation import month_batches
from tests.entry import entry
from tests.steps.lab import Lab
from tests.steps.score.conftest import APRIL_FILE, SIMULATED, WIDE, read_scored
from tests.stores import Store


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--months="], "months is empty. Pass -P months=YYYY-MM"),
        (["--months=2021-13"], "'2021-13' in '2021-13' is not a month"),
        (["--taxi=purple"], "Unknown taxi 'purple'"),
        (["--overwrite=maybe"], "must be true or false, got 'maybe'"),
        (["--max_psi=-1"], "must be a number of at least 0"),
        (["--model_uri=models:/nobody@champion"], "Cannot load model models:/nobody@champion"),
        (["--model_uri=models:/scored/99"], "Cannot load model models:/scored/99"),
        (["--model_uri=runs:/0123/model"], "Cannot load model runs:/0123/model"),
        (["--taxi=yellow"], "needs ['lpep_pickup_datetime'], which yellow trips do not have"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused(
    store: Store, champion: str, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    with pytest.raises(SystemExit) as left:
        entry("score").main([SIMULATED, "--months=2021-04", champion, *arguments])
    assert left.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"PULocationID": None}, "Column 'PULocationID' is missing"),
        ({"PULocationID": pa.nulls(2_000, pa.int32())}, "none of its 2,000 rows has a pickup"),
        ({"trip_distance": pa.array(["2,5"] * 2_000)}, "row 1: column 'trip_distance' has '2,5'"),
    ],
    ids=["a column is missing", "no zones", "two readings"],
)
def test_a_month_that_cannot_be_scored_leaves_nothing_behind(
    lab: Lab, champion: str, tmp_path: Path, columns: dict[str, pa.Array | None], said: str
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42))
    for name, values in columns.items():
        table = table.drop_columns(name)
        table = table if values is None else table.append_column(name, values)
    refused(lab, champion, tmp_path, table, said)


def test_a_month_of_zero_rows(lab: Lab, champion: str, tmp_path: Path) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42)).slice(0, 0)
    refused(lab, champion, tmp_path, table, "none of its 0 rows")


def test_a_file_with_the_trips_of_another_month(lab: Lab, champion: str, tmp_path: Path) -> None:
    table = pa.Table.from_batches(month_batches("2021-05", 2_000, 42))
    refused(lab, champion, tmp_path, table, "none of its 2,000 rows is a trip of 2021-04 that")


def test_a_month_that_breaks_off_half_way(lab: Lab, champion: str, tmp_path: Path) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 140_000, 42))
    zones = table["PULocationID"].cast(pa.string()).to_pylist()
    zones[135_000] = "7,4"  # in the second batch
    table = table.drop_columns("PULocationID").append_column("PULocationID", pa.array(zones))
    refused(lab, champion, tmp_path, table, "row 135,001: column 'PULocationID' has '7,4'")


def test_a_month_that_is_still_being_written_leaves_nothing_behind(
    lab: Lab, champion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*given: Any) -> MonthFile:
        file = find_month(*given)
        file.path.write_bytes(file.path.read_bytes() + b"\n")
        return file

    path = tmp_path / APRIL_FILE.replace("parquet", "csv")
    pa_csv.write_csv(pa.table(next(month_batches("2021-04", 2_000, 42)).to_pydict()), path)
    monkeypatch.setattr("steps.score.month.find_month", find)
    given = (f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    _, lines = lab.run("score", *given, f"--output={tmp_path / 'out'}", code=2)
    assert lines[-1].startswith(f"score: {path.as_uri()} was changed while it was read.")
    assert not list((tmp_path / "out").iterdir())


def test_values_that_nobody_can_read_cost_their_rows_and_no_month(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 300, 42))
    odd = {"PULocationID": "Queens", "trip_distance": "far", "lpep_pickup_datetime": "soon"}
    for place, (name, text) in enumerate(odd.items()):
        values = table[name].cast(pa.string()).to_pylist()
        values[place] = text
        table = table.drop_columns(name).append_column(name, pa.array(values))
    pq.write_table(table, tmp_path / APRIL_FILE)
    run, lines = lab.run("score", f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    scored = read_scored(run, "2021-04")
    n_null = table["PULocationID"].null_count
    assert n_null == 0
    assert scored["prediction"].is_null().to_pylist() == [True, False, True] + [False] * 297
    assert scored["eligible"].to_pylist()[:3] == [False] * 3
    assert any("'Queens'" in line and "2021-04" in line for line in lines)


def refused(lab: Lab, champion: str, folder: Path, table: pa.Table, said: str) -> None:
    """Score a month that must be refused: the error names its file, and no output is left."""
    pq.write_table(table, folder / APRIL_FILE)
    out = folder / "out"
    given = (f"--source={folder}", "--months=2021-04", champion, f"--output={out}")
    _, (line,) = lab.run("score", *given, code=2)
    assert said in line
    assert APRIL_FILE in line
    assert list(out.iterdir()) == []


def test_columns_that_nobody_asked_for_are_left_alone(
    lab: Lab, champion: str, tmp_path: Path
) -> None:
    table = pa.Table.from_batches(month_batches("2021-04", 2_000, 42))
    table = table.append_column("mood", pa.array(["good"] * 2_000))
    pq.write_table(table, tmp_path / APRIL_FILE)
    run, _ = lab.run("score", f"--source={tmp_path}", "--months=2021-04", champion, *WIDE)
    assert "mood" not in read_scored(run, "2021-04").column_names


def test_an_output_that_is_a_file(lab: Lab, champion: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    given = (SIMULATED, "--months=2021-04", champion, f"--output={tmp_path / 'taken'}")
    _, (line,) = lab.run("score", *given, code=2)
    assert f"Cannot write to {tmp_path / 'taken'}" in line


@pytest.mark.parametrize("address", ["s3://bucket/out", "file:///tmp/out"])
def test_an_output_that_is_an_address_is_refused_and_leaves_no_folder_of_its_name(
    lab: Lab, champion: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = (SIMULATED, "--months=2021-04", champion, f"--output={address}")
    _, (line,) = lab.run("score", *given, code=2)
    assert line.startswith(f"score: output '{address}' is an address. Pass the path of a folder, ")
    assert list(tmp_path.iterdir()) == []
