"""The result of preprocess: the city, read from files or simulated, and the clean months."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from steps.common import cluster_cleaning
from steps.common.cleaned_months import find_row_groups
from steps.common.inputs import load_city
from steps.common.month_cleaning import MonthCount, clean_batches
from steps.common.months import find_month
from steps.common.results import PreprocessResult, read_preprocess
from steps.preprocess import MonthToWrite, no_trips, start_fetch
from storage import StorageError
from storage.data import months
from storage.data.digest import sha256_of
from storage.data.manifest import SHA256SUMS
from storage.data.months import MonthFile
from storage.tracking import artifacts, runs, tags
from storage.tracking.artifacts import LostError
from taxi import simulation
from taxi.city import ZONE_FILES, ZONE_SHAPES, ZONE_TABLE
from taxi.profile import Profile
from tests.clusters import dask_cluster
from tests.entry import entry
from tests.servers import free_port
from tests.stores import Store
from tests.zone_files import make_zone_shapes, make_zone_table, write_zone_files

MONTHS = ("--train_months=2021-01", "--valid_months=2021-02", "--test_months=")
N_TRIPS = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with two small months, the second of them implausible, and no zone files."""
    for month, n_trips in (("2021-01", N_TRIPS), ("2021-02", 3 * N_TRIPS)):
        find_month(f"simulated:{n_trips}", "green", month, tmp_path)
    return tmp_path


def preprocess(source: object) -> PreprocessResult:
    entry("preprocess").main([f"--source={source}", *MONTHS])
    run = mlflow.last_active_run()
    assert run is not None
    return read_preprocess(MlflowClient().get_run(run.info.run_id))


def artifact_names(result: PreprocessResult) -> set[str]:
    uri = MlflowClient().get_run(result.run_id).info.artifact_uri
    return set(artifacts.list_files(uri))


@pytest.mark.pictures
def test_the_city_is_read_once_and_handed_on(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_zone_files(folder)
    result = preprocess(folder)
    said = capsys.readouterr().out
    assert "city: 4 zones with location and borough\n" in said
    (odd,) = result.odd_months
    assert f"\nodd: {odd}\n" in said
    assert odd.startswith("2021-02 has 8")
    city = load_city(result)
    assert city is not None
    assert city.name[4] == "Alphabet City"
    run = MlflowClient().get_run(result.run_id)
    assert run.data.tags[tags.CITY] == result.dataset.city == result.dataset.learned_from["city"]
    assert {tags.CITY_FILE, tags.CITY_PICTURE} <= artifact_names(result)
    assert set(ZONE_FILES) <= {read.dataset.name for read in run.inputs.dataset_inputs}


@pytest.mark.parametrize(("taxi", "n_lines"), [("fhvhv", 1), ("fhv", 0)])
def test_months_that_should_have_distances_and_have_none_are_named(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], taxi: str, n_lines: int
) -> None:
    for month in ("2021-01", "2021-02"):
        path = find_month(f"simulated:{N_TRIPS}", taxi, month, tmp_path).path
        rows = pq.read_table(path)
        pq.write_table(rows.drop_columns([c for c in rows.column_names if c == "trip_miles"]), path)
    entry("preprocess").main([f"--source={tmp_path}", f"--taxi={taxi}", *MONTHS])
    said = capsys.readouterr().out
    assert said.count("odd: No trip of 2021-01, 2021-02 has a distance: ") == n_lines


def test_new_yorks_times_that_a_file_calls_utc_are_told_by_the_hours_they_become(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for month in ("2021-01", "2021-02"):
        path = find_month("simulated:1500", "green", month, tmp_path).path
        rows = pq.read_table(path)
        if month == "2021-02":
            for name in ("lpep_pickup_datetime", "lpep_dropoff_datetime"):
                times = rows[name].cast(pa.timestamp("us", "UTC"))
                rows = rows.set_column(rows.schema.get_field_index(name), name, times)
        pq.write_table(rows, path)
    result = preprocess(tmp_path)
    assert [line for line in result.odd_months if "not at night" in line] == result.odd_months
    assert "odd: 2021-02 has the fewest trips from " in capsys.readouterr().out


@pytest.mark.parametrize("there", [(), (ZONE_TABLE,), (ZONE_SHAPES,)])
def test_without_both_files_the_learned_map_alone_serves_and_the_run_says_so(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str], there: tuple[str, ...]
) -> None:
    write_zone_files(folder)
    missing = [name for name in ZONE_FILES if name not in there]
    for name in missing:
        (folder / name).unlink()
    result = preprocess(folder)
    said = f"city: no {', '.join(missing)} next to the months, so the map is learned from the trips"
    assert said in capsys.readouterr().out
    assert load_city(result) is None
    assert MlflowClient().get_run(result.run_id).data.tags[tags.CITY] == "none"
    assert not {tags.CITY_FILE, tags.CITY_PICTURE} & artifact_names(result)


@pytest.mark.parametrize(
    "wrong",
    [
        {"table": make_zone_table(header="id,name,a,b")},
        {"shapes": make_zone_shapes(projection=None)},
        {"shapes": make_zone_shapes()[:-50]},
        {"shapes": make_zone_shapes((77, 0, 0, 5))},
    ],
)
def test_a_wrong_file_is_refused_before_any_month_is_read(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, bytes]
) -> None:
    write_zone_files(folder, **wrong)
    with pytest.raises(SystemExit) as left:
        preprocess(folder)
    said = capsys.readouterr()
    assert left.value.code == 2
    assert said.err.startswith("preprocess: taxi_zone")
    assert said.err.count("\n") == 1
    assert "kept" not in said.out


def test_a_month_that_is_not_what_the_manifest_says_is_refused(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    month = folder / "green_tripdata_2021-02.parquet"
    (folder / SHA256SUMS).write_text(f"{sha256_of(month)}  {month.name}\n")
    month.write_bytes(month.read_bytes()[:-5000])
    with pytest.raises(SystemExit) as left:
        preprocess(folder)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{month} is not the file that SHA256SUMS beside it lists" in line


def test_simulated_months_have_the_city_that_they_were_made_in(store: Store) -> None:
    city = load_city(preprocess(f"simulated:{N_TRIPS}:7"))
    assert city is not None
    assert city.to_json() == simulation.simulated_zones(7).to_json()
    assert city.to_json() != simulation.simulated_zones(8).to_json()
    assert np.isnan(city.centroid[[0, 264, 265]]).all()


def test_a_city_that_is_not_what_the_run_wrote_is_refused(store: Store) -> None:
    result = preprocess(f"simulated:{N_TRIPS}")
    with artifacts.open_file(result.run_id, tags.CITY_FILE) as path:
        path.write_text(path.read_text().replace("Bronx", "Bronks"))
    with pytest.raises(LostError, match=r"city\.json of run .* is not what that run wrote"):
        load_city(result)


def test_a_run_from_before_cities_were_read_has_none(store: Store) -> None:
    result = preprocess(f"simulated:{N_TRIPS}")
    MlflowClient().delete_tag(result.run_id, tags.CITY)
    assert load_city(read_preprocess(runs.finished(result.run_id, "preprocess"))) is None


# --- months that an earlier run has cleaned


def tables_of(result: PreprocessResult) -> dict[str, bytes]:
    names = ("months.csv", "profile.json", *(f"data/{s}.parquet" for s in result.dataset.months))
    return {name: artifacts.read_bytes(result.run_id, name) for name in names}


def test_a_month_is_cleaned_once_and_comes_out_to_the_byte_as_if_cleaned_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"--source=simulated:{N_TRIPS}:77"
    months = ("--train_months=2021-02..2021-04", "--valid_months=2021-05", "--test_months=2021-06")
    step = entry("preprocess").main
    step([source, "--train_months=2021-01..2021-03", "--valid_months=2021-04", "--test_months="])
    capsys.readouterr()
    found = []
    for more in ([], ["--reuse=false"]):
        step([source, *months, *more])
        run = mlflow.last_active_run()
        assert run is not None
        found.append(tables_of(read_preprocess(MlflowClient().get_run(run.info.run_id))))
    assert found[0] == found[1]
    said = [line for line in capsys.readouterr().out.splitlines() if ": kept " in line]
    taken = [line.split(":")[0] for line in said if ", clean already in run " in line]
    assert taken == ["train 2021-02", "train 2021-03", "train 2021-04"]


def test_other_bytes_of_a_month_and_lost_trips_are_cleaned(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for month in ("2021-01", "2021-02"):
        find_month(f"simulated:{N_TRIPS}:78", "green", month, tmp_path)
    first = preprocess(tmp_path)
    with artifacts.open_file(first.run_id, "data/train.parquet") as path:
        path.write_bytes(path.read_bytes()[:-9])
    find_month(f"simulated:{N_TRIPS + 1}:78", "green", "2021-02", tmp_path)
    preprocess(tmp_path)
    said = capsys.readouterr().out
    assert said.count(": kept ") == 4
    assert "clean already" not in said


@pytest.mark.parametrize(("month", "is_early"), [("2016-12", True), ("2017-01", False)])
def test_a_month_from_before_there_were_drop_offs_is_told_since_when_there_are(
    month: str, is_early: bool
) -> None:
    file = MonthFile(month, "file", Path(), "", 0)
    said = str(no_trips(file, MonthCount(5, {"time missing": 5}, Profile(), ""), taxi="fhv"))
    assert said.startswith("file: none of 5 trips is left after cleaning (5 time missing).")
    assert ("The TLC's files have fhv trips that count since 2017-01." in said) is is_early


@pytest.mark.parametrize("is_there", [True, False])
def test_a_month_that_is_still_being_written_is_refused(is_there: bool, folder: Path) -> None:
    file = find_month(str(folder), "green", "2021-01", Path())
    written: list[pa.RecordBatch] = []

    def change(batch: pa.RecordBatch) -> None:
        written.append(batch)
        file.path.write_bytes(file.path.read_bytes() + b"more") if is_there else file.path.unlink()

    with pytest.raises(StorageError, match=r"2021-01\.parquet was changed while it was read\. Run"):
        clean_batches(file, "green", change)
    assert written


def test_where_a_month_begins_is_not_guessed() -> None:
    sizes = [5, 5, 3, 5, 2]
    n_kept = {"2021-01": 13, "2021-02": 5, "2021-03": 2}
    assert [find_row_groups(month, n_kept, sizes) for month in n_kept] == [[0, 1, 2], [3], [4]]
    assert find_row_groups("2021-02", n_kept, [5, 5, 3, 0, 5, 2]) is None
    assert find_row_groups("2021-02", {"2021-02": 5}, [5, 0]) == [0, 1]


# --- months that workers clean


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a scheduler with two workers; yield its address."""
    with dask_cluster(tmp_path_factory.mktemp("dask")) as dask:
        yield dask.address


def cleaned_anew(source: object, *more: str) -> dict[str, bytes]:
    entry("preprocess").main([f"--source={source}", "--reuse=false", *MONTHS, *more])
    run = mlflow.last_active_run()
    assert run is not None
    return tables_of(read_preprocess(MlflowClient().get_run(run.info.run_id)))


def nobody(*_: object) -> None:
    pytest.fail("it was cleaned here")


def test_workers_clean_months_to_the_very_bytes_of_this_machine(
    store: Store,
    folder: Path,
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_month("simulated:150000", "green", "2021-01", folder)  # two batches
    here, said_here = cleaned_anew(folder), capsys.readouterr().out.splitlines()
    monkeypatch.setattr("steps.preprocess.clean_batches", nobody)
    there = cleaned_anew(folder, f"--scheduler={cluster}")
    assert pq.read_metadata(BytesIO(there["data/train.parquet"])).num_row_groups == 2
    assert there == here
    own = vars(cluster_cleaning)
    assert cluster_cleaning.RemoteMonth.batches.__globals__ is own  # even after workers sent some
    *said, run_line = capsys.readouterr().out.splitlines()
    assert "View this run" in run_line
    assert said == said_here[:-1]


def test_workers_make_up_months_themselves(
    store: Store, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cleaned_anew(f"simulated:{N_TRIPS}")
    monkeypatch.setattr("steps.preprocess.find_month", nobody)
    assert cleaned_anew(f"simulated:{N_TRIPS}", f"--scheduler={cluster}") == here


@pytest.mark.parametrize("lost", ["workers", "scheduler"])
def test_months_that_went_with_their_workers_are_cleaned_again_and_with_the_scheduler_refused(
    lost: str,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = cleaned_anew(f"simulated:{N_TRIPS}")
    with dask_cluster(tmp_path) as dask:

        def lose_first(one: MonthToWrite) -> MonthToWrite:
            """Kill the workers, or the scheduler, before the first clean month is sent."""
            for process in dask.workers if lost == "workers" else [dask.scheduler]:
                process.kill()
                process.wait()
            dask.workers = [*dask.workers, dask.start_worker()]
            monkeypatch.setattr("steps.preprocess.start_fetch", start_fetch)
            return start_fetch(one)

        monkeypatch.setattr("steps.preprocess.start_fetch", lose_first)
        given = (f"simulated:{N_TRIPS}", f"--scheduler={dask.address}")
        if lost == "workers":
            assert cleaned_anew(*given) == here
            return
        with pytest.raises(SystemExit):
            cleaned_anew(*given)
    said = capsys.readouterr().err
    assert f"{dask.address} went away; leave out scheduler to clean the months here" in said


def test_months_that_workers_cannot_reach_are_cleaned_here(
    store: Store, folder: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cleaned_anew(folder)
    monkeypatch.setenv("NOT_THERE", str(folder))  # the workers were started without it
    cleaned_here = []
    monkeypatch.setattr(
        "steps.preprocess.clean_batches",
        lambda file, *given: cleaned_here.append(file.month) or clean_batches(file, *given),
    )
    assert cleaned_anew("env:NOT_THERE", f"--scheduler={cluster}") == here
    assert cleaned_here == ["2021-01", "2021-02"]


def test_a_worker_without_room_for_files_leaves_a_month_to_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_folder() -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(cluster_cleaning, "TemporaryDirectory", no_folder)
    source = f"simulated:{N_TRIPS}"
    identity = months.identify(source, taxi="green", month="2021-01")
    assert cluster_cleaning.clean_on_worker(source, "green", "2021-01", identity) is None


def test_a_month_that_nobody_can_use_is_refused_in_the_line_of_this_machine(
    store: Store, folder: Path, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of_another = folder / "green_tripdata_2021-01.parquet"
    of_another.write_bytes((folder / "green_tripdata_2021-02.parquet").read_bytes())
    said = []
    for more in ((), (f"--scheduler={cluster}",)):
        with pytest.raises(SystemExit):
            cleaned_anew(folder, *more)
        said.append(capsys.readouterr().err)
    assert "none of 900 trips is left after cleaning" in said[0]
    assert said[0] == said[1]


def test_no_month_is_cleaned_where_no_scheduler_answers(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cleaned_anew(folder, f"--scheduler=tcp://127.0.0.1:{free_port()}")
    said = capsys.readouterr()
    assert left.value.code == 2
    assert "No Dask scheduler answers at" in said.err
    assert "kept" not in said.out
