"""How the TLC's zone files are read, and wrong ones refused."""

import io
import os
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from taxi import TripError, city
from taxi.city import City, parse_city
from taxi.schema import N_ZONES
from tests.conftest import ROOT
from tests.zone_files import DEGREES, FEET, HEADER, ROWS, SQUARES, make_zone_shapes, make_zone_table

MILE = pytest.approx
MERCATOR = 'PROJCS["WGS_1984_Web_Mercator_Auxiliary_Sphere",UNIT["Meter",1.0]]'


def test_a_zone_has_the_tables_words_and_the_centre_of_its_shape_in_miles() -> None:
    read = parse_city(make_zone_table(), make_zone_shapes())
    assert (read.name[4], read.borough[4], read.service_zone[4]) == (
        "Alphabet City",
        "Manhattan",
        "Yellow Zone",
    )
    assert read.centroid[[1, 2, 3, 4]].tolist() == [
        MILE([1, 1], abs=1e-3),
        MILE([11, 1], abs=1e-3),
        MILE([11, 11], abs=1e-3),
        MILE([1, 11], abs=1e-3),
    ]
    assert read.has_place.sum() == 4


def test_what_the_tlc_does_not_say_is_empty() -> None:
    read = parse_city(make_zone_table(), make_zone_shapes())
    assert read.borough[[0, 264, 265]].tolist() == ["", "", ""]
    assert read.service_zone[[264, 265]].tolist() == ["", ""]
    assert read.name[[264, 265]].tolist() == ["", "Outside of NYC"]
    assert np.isnan(read.centroid[[0, 264, 265]]).all()


def test_a_zone_of_several_polygons_has_one_centre_by_their_areas() -> None:
    # an id that occurs twice, like the TLC's 56 and 103: squares of 4 square miles and of 1
    read = parse_city(make_zone_table(), make_zone_shapes(*SQUARES, (2, 20, 0, 1)))
    assert read.centroid[2] == MILE([(4 * 11 + 1 * 20.5) / 5, (4 * 1 + 1 * 0.5) / 5], abs=1e-3)
    assert len(read.outline[2]) == 2


def test_metres_and_folders_within_the_zip_are_read_too() -> None:
    metres = FEET.replace('"Foot_US",0.3048006096012192', '"Meter",1.0')
    shapes = make_zone_shapes(projection=metres, unit=1609.344, folder="taxi_zones/")
    assert parse_city(make_zone_table(), shapes).centroid[3] == MILE([11, 11], abs=1e-3)


def test_a_row_that_comes_twice_alike_is_one_zone() -> None:
    assert parse_city(make_zone_table(*ROWS, ROWS[3]), make_zone_shapes()).borough[4] == "Manhattan"


def test_a_city_written_and_read_again_is_the_same() -> None:
    read = parse_city(make_zone_table(), make_zone_shapes())
    again = City.from_json(read.to_json())
    assert again.to_json() == read.to_json()
    for name in ("name", "borough", "service_zone", "centroid"):
        np.testing.assert_array_equal(getattr(again, name), getattr(read, name))
    before, after = ([r for rings in one.outline for r in rings] for one in (read, again))
    assert len(after) == len(before) > 1
    assert all(np.abs(a - b).max() < 0.01 for a, b in zip(after, before, strict=True))  # rounded
    assert {ring.shape for ring in after} == {(5, 2)}


# --- refused, each in one line


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (make_zone_table("266,Queens,Moon,Boro Zone"), "LocationID '266'"),
        (make_zone_table("0,Queens,Moon,Boro Zone"), "LocationID '0'"),
        (make_zone_table("x,Queens,Moon,Boro Zone"), "LocationID 'x'"),
        (make_zone_table(*ROWS, "4,Queens,Alphabet City,Boro Zone"), "LocationID 4 twice"),
        (make_zone_table(header="LocationID,Borough,Zone,service"), r"lacks \['service_zone'\]"),
        (b"<html>404</html>", "lacks"),
        (b"", "lacks"),
        (f"{HEADER}\n".encode(), "no zones"),
        (bytes(range(256)), "lacks"),
        (b"x" * 200_000, "is no csv"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(table: bytes, words: str) -> None:
    with pytest.raises(TripError, match=f"taxi_zone_lookup.csv .*{words}") as caught:
        parse_city(table, make_zone_shapes())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (make_zone_shapes(projection=None), r"lacks the \.prj"),
        (make_zone_shapes(projection=DEGREES, unit=0.0145), "not in a plane but in degrees"),
        (make_zone_shapes(unit=0.0145), "looks like degrees"),
        (make_zone_shapes(projection=MERCATOR, unit=1609), "Mercator"),
        (make_zone_shapes()[:-40], "no whole zip"),
        (make_zone_shapes()[: len(make_zone_shapes()) // 2], "no whole zip"),
        (b"", "no whole zip"),
        (make_zone_shapes(column="id"), "lacks LocationID"),
        (make_zone_shapes((300, 0, 0, 2)), "LocationID '300'"),
        (make_zone_shapes(*SQUARES, (77, 5, 5, 2)), "LocationID 77, which .*lookup.csv lacks"),
        (make_zone_shapes((1, 0, 0, 2), boroughs=["Queens"]), "LocationID 1 in 'Queens'"),
        (make_zone_shapes(*SQUARES, (4, 3, 3, 0)), "no area for LocationID 4"),
    ],
)
def test_wrong_shapes_are_refused_in_one_line(shapes: bytes, words: str) -> None:
    with pytest.raises(TripError, match=f"taxi_zones.zip .*{words}") as caught:
        parse_city(make_zone_table(), shapes)
    assert "\n" not in str(caught.value)


def test_shapes_that_unpack_to_too_much_are_refused_before_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(city, "MAX_SHAPES", 500)
    with pytest.raises(TripError, match=r"unpacks to more than 500 bytes"):
        parse_city(make_zone_table(), make_zone_shapes())


def test_shapes_are_refused_in_one_line_whichever_of_the_zips_bytes_is_damaged() -> None:
    whole = deflated(make_zone_shapes())
    messages = set[str]()
    zstandard = 93  # a compression method that Python supports from 3.14 on
    for place, change in product(range(len(whole)), (0x5A, zipfile.ZIP_DEFLATED ^ zstandard)):
        damaged = bytearray(whole)
        damaged[place] ^= change
        try:
            parse_city(make_zone_table(), bytes(damaged))
        except TripError as error:
            messages.add(str(error))
    assert any("while decompressing" in message for message in messages)
    assert any(f"packed by method {zstandard}" in message for message in messages)
    assert not any("\n" in message for message in messages)


def deflated(content: bytes) -> bytes:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as files,
    ):
        for name in plain.namelist():
            files.writestr(name, plain.read(name))
    return packed.getvalue()


def test_a_damaged_shapefile_in_a_whole_zip_is_refused() -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as files:
        for kind in ("shp", "dbf"):
            files.writestr(f"taxi_zones.{kind}", b"nothing of the kind")
        files.writestr("taxi_zones.prj", FEET)
    with pytest.raises(TripError, match="no whole shapefile"):
        parse_city(make_zone_table(), content.getvalue())


# --- the TLC's own files


def test_the_tlcs_own_files_are_read() -> None:
    folder = Path(os.environ.get("TAXI_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / city.ZONE_SHAPES).is_file():
        pytest.skip(f"no {city.ZONE_SHAPES} in {folder}: set TAXI_DATA to a folder that has it")
    read = parse_city(*((folder / name).read_bytes() for name in city.ZONE_FILES))
    assert len(read.name) == N_ZONES
    assert sorted(set(read.borough) - {""}) == [
        "Bronx",
        "Brooklyn",
        "EWR",
        "Manhattan",
        "Queens",
        "Staten Island",
    ]
    # 263 rows for 260 zones: 56 occurs twice and 103 three times, 57, 104 and 105 never
    assert read.has_place.sum() == 260
    assert not read.has_place[[0, 57, 104, 105, 264, 265]].any()
    # East Harlem South to JFK Airport, by their latitudes and longitudes
    assert np.hypot(*(read.centroid[75] - read.centroid[132])) == pytest.approx(13.0, abs=0.2)
    assert len(read.to_json()) < 300_000
