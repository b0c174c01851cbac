"""The city as the TLC describes it: its zones' names, boroughs, service zones and shapes."""

import csv
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from . import TripError
from .schema import N_ZONES

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

# pyshp and shapely are imported where they are used: only preprocess reads shapes

ZONE_TABLE, ZONE_SHAPES = "taxi_zone_lookup.csv", "taxi_zones.zip"
ZONE_FILES = (ZONE_TABLE, ZONE_SHAPES)
TABLE_COLUMNS = ("LocationID", "Borough", "Zone", "service_zone")
MISSING_TEXTS = {"", "n/a", "na", "unknown"}  # what the TLC writes for a missing value
# what zipfile, pyshp and shapely raise on damaged files
DAMAGED_FILE_ERRORS = (
    struct.error,
    ValueError,
    LookupError,
    OSError,
    TypeError,
    ArithmeticError,
    SystemError,
)
METRES_PER_MILE = 1609.344
CITY_EXTENT_MILES = (1.0, 200.0)  # least and greatest extent of a city; degrees come to less
ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others raise errors of their own
MAX_SHAPES = 64 << 20  # bytes, unpacked; the TLC's take 1.5 million
OUTLINE_MILES = 0.04  # outlines are simplified to about this precision
DECIMALS = 4  # of a coordinate in miles: half a foot


@dataclass(frozen=True)
class City:
    """What is known of each zone, arrays indexed by its id, 0..N_ZONES - 1."""

    name: np.ndarray  # str [N_ZONES]; "" where unknown
    borough: np.ndarray  # str [N_ZONES]; "" where unknown
    service_zone: np.ndarray  # str [N_ZONES]; "" where unknown
    centroid: np.ndarray  # float64 [N_ZONES, 2], miles east and north of one point; NaN: no shape
    outline: tuple[tuple[np.ndarray, ...], ...]  # per zone its polygons' outer rings, [v, 2] miles

    def to_json(self) -> str:
        """Write the city as compact JSON; equal cities give equal text."""
        zones = {
            str(zone): {
                "name": str(self.name[zone]),
                "borough": str(self.borough[zone]),
                "service_zone": str(self.service_zone[zone]),
                "centroid": _rounded(self.centroid[zone]) if self.has_place[zone] else None,
                "outline": [_rounded(ring) for ring in self.outline[zone]],
            }
            for zone in np.flatnonzero((self.name != "") | self.has_place)
        }
        return json.dumps({"zones": zones}, separators=(",", ":"))

    def name_zone(self, zone: int) -> str:
        """Return the name of a zone; `zone <id>` if it is unknown, and `no zone` for 0."""
        return str(self.name[zone]) or (f"zone {zone}" if zone else "no zone")

    @property
    def has_place(self) -> np.ndarray:
        """Whether each zone has a shape, bool [N_ZONES]."""
        return ~np.isnan(self.centroid[:, 0])

    @classmethod
    def from_json(cls, text: str) -> "City":
        """Read what `to_json` wrote."""
        zones = {int(zone): description for zone, description in json.loads(text)["zones"].items()}
        places = {
            zone: description["centroid"]
            for zone, description in zones.items()
            if description["centroid"]
        }
        outlines = {zone: description["outline"] for zone, description in zones.items()}
        return make_city(zones, places, outlines)


def make_city(
    rows: Mapping[int, Mapping[str, str]], places: Mapping[int, Any], outlines: Mapping[int, Any]
) -> City:
    """Build a City from what is known of some zones.

    Args:
        rows: zone -> name, borough and service_zone.
        places: zone -> its centroid in miles, a pair.
        outlines: zone -> rings of points in miles, [v, 2] each.
    """
    columns = {
        name: np.array([rows.get(zone, {}).get(name, "") for zone in range(N_ZONES)], np.str_)
        for name in ("name", "borough", "service_zone")
    }
    centroid = np.full((N_ZONES, 2), np.nan)
    for zone, place in places.items():
        centroid[zone] = place
    outline = tuple(
        tuple(np.array(ring, float) for ring in outlines.get(zone, ())) for zone in range(N_ZONES)
    )
    return City(**columns, centroid=centroid.round(DECIMALS), outline=outline)


def parse_city(table: bytes, shapes: bytes) -> City:
    """Read the TLC's zone table and zone shapes.

    Args:
        table: content of ZONE_TABLE.
        shapes: content of ZONE_SHAPES, a zip with a shapefile.
    Raises:
        TripError: one of them is damaged or of another kind, or they contradict each other.
    """
    rows = read_zone_table(table)
    polygons = read_zone_shapes(shapes)
    for zone, (_, borough) in polygons.items():
        if zone not in rows:
            raise TripError(
                f"{ZONE_SHAPES} has a shape of LocationID {zone}, which {ZONE_TABLE} lacks. "
                f"Take both files from the same place."
            )
        if borough not in (None, rows[zone]["borough"]):
            raise TripError(
                f"{ZONE_SHAPES} puts LocationID {zone} in {borough!r}, {ZONE_TABLE} in "
                f"{rows[zone]['borough']!r}. Take both files from the same place."
            )
    areas = {zone: area for zone, (area, _) in polygons.items()}
    places = {zone: (area.centroid.x, area.centroid.y) for zone, area in areas.items()}
    return make_city(rows, places, simplified_outlines(areas))


# --- the table


def read_zone_table(content: bytes) -> dict[int, dict[str, str]]:
    """Read the zone table: id -> name, borough and service_zone, "" where not given.

    Raises:
        TripError: it is not a csv, lacks a column or has no rows, has an id outside the TLC's
            range, or describes a zone in two ways.
    """
    try:
        lines = [*csv.reader(content.decode("utf-8-sig", "replace").splitlines())]
    except csv.Error as error:
        raise TripError(f"{ZONE_TABLE} is no csv ({error}). Replace the file.") from error
    header = [name.strip() for name in lines[0]] if lines else []
    if missing := [name for name in TABLE_COLUMNS if name not in header]:
        raise TripError(
            f"{ZONE_TABLE} lacks {missing}; it has {str(header)[:80]}. Replace the file."
        )
    rows: dict[int, dict[str, str]] = {}
    for line in filter(None, lines[1:]):
        cells = dict(zip(header, line, strict=False))
        zone, borough, name, service_zone = (
            _clean_text(cells.get(column)) for column in TABLE_COLUMNS
        )
        row = {"name": name, "borough": borough, "service_zone": service_zone}
        if rows.setdefault(_zone_id(zone, ZONE_TABLE), row) != row:
            raise TripError(f"{ZONE_TABLE} describes LocationID {zone} twice. Mend the file.")
    if not rows:
        raise TripError(f"{ZONE_TABLE} has no zones. Replace the file.")
    return rows


def _clean_text(text: str | None) -> str:
    text = (text or "").strip()
    return "" if text.lower() in MISSING_TEXTS else text


def _zone_id(text: Any, file: str) -> int:
    digits = str(text).strip()
    if not re.fullmatch(r"[0-9]{1,4}", digits) or not 1 <= int(digits) < N_ZONES:
        raise TripError(
            f"{file} has LocationID {digits[:40]!r}; the TLC's are 1..{N_ZONES - 1}. "
            f"Replace the file."
        )
    return int(digits)


# --- the shapes


def read_zone_shapes(content: bytes) -> dict[int, tuple["BaseGeometry", str | None]]:
    """Read the zone shapes: id -> the union of its polygons, in miles, and its borough.

    The borough is None if the shapes do not name it.

    Raises:
        TripError: the zip or its shapefile is damaged or incomplete, its coordinates are not in a
            unit of length, or a zone has no area.
    """
    import shapefile

    files = _unzip(content)
    miles = miles_per_unit(files[".prj"].decode("utf-8", "replace"))
    try:
        parts = {kind[1:]: pa.BufferReader(files[kind]) for kind in (".shp", ".dbf")}
        with shapefile.Reader(**parts) as reader:
            areas = list(_areas(reader, miles))
    except TripError:
        raise
    except (shapefile.ShapefileException, *DAMAGED_FILE_ERRORS) as error:
        raise TripError(f"{ZONE_SHAPES} holds no whole shapefile ({error}). Replace it.") from error
    return _merge_by_zone(areas)


def miles_per_unit(projection: str) -> float:
    """Return the length in miles of a projection's unit.

    Args:
        projection: content of a .prj, well-known text.
    Raises:
        TripError: its unit is degrees, or it is a Mercator projection, which stretches lengths.
    """
    units = re.findall(r'UNIT\s*\[\s*"([^"]*)"\s*,\s*([0-9]+[.]?[0-9]*)', projection)
    if not projection.lstrip().upper().startswith("PROJC") or not units:
        raise TripError(
            f"{ZONE_SHAPES} is not in a plane but in degrees: {projection.strip()[:40]!r}. "
            f"Use the TLC's own file, in feet (EPSG:2263)."
        )
    if "mercator" in projection.lower() and "transverse" not in projection.lower():
        raise TripError(
            f"{ZONE_SHAPES} is in a Mercator projection, in which miles are stretched. "
            f"Use the TLC's own file, in feet (EPSG:2263)."
        )
    return float(units[-1][1]) / METRES_PER_MILE


def simplified_outlines(areas: Mapping[int, "BaseGeometry"]) -> dict[int, list[np.ndarray]]:
    """Simplify the outer rings of each zone's polygons, leaving no gaps between neighbours."""
    import shapely

    zones = list(areas)
    simple = shapely.coverage_simplify([areas[zone] for zone in zones], OUTLINE_MILES)
    return {
        zone: [
            np.asarray(part.exterior.coords)
            for part in shapely.get_parts(area)
            if part.geom_type == "Polygon" and not part.is_empty
        ]
        for zone, area in zip(zones, simple, strict=True)
    }


def _unzip(content: bytes) -> dict[str, bytes]:
    """Read the parts of the shapefile, from any folder of the zip: suffix (.shp) -> bytes."""
    try:
        with zipfile.ZipFile(pa.BufferReader(content)) as folder:
            if sum(part.file_size for part in folder.infolist()) > MAX_SHAPES:
                raise ValueError(f"it unpacks to more than {MAX_SHAPES:,} bytes")
            if unknown_methods := {part.compress_type for part in folder.infolist()} - ZIP_METHODS:
                raise ValueError(f"it is packed by method {min(unknown_methods)}")
            names = {name[-4:].lower(): name for name in folder.namelist()}
            parts: dict[str, bytes] = {
                kind: folder.read(names[kind]) for kind in (".shp", ".dbf", ".prj") if kind in names
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, *DAMAGED_FILE_ERRORS) as error:
        raise TripError(f"{ZONE_SHAPES} is no whole zip ({error}). Replace the file.") from error
    if missing := [kind for kind in (".shp", ".dbf", ".prj") if kind not in parts]:
        raise TripError(
            f"{ZONE_SHAPES} lacks the {missing[0]} of a shapefile, which says "
            f"{'how it is projected' if missing[0] == '.prj' else 'what is where'}. "
            f"Use the TLC's own file, in feet (EPSG:2263)."
        )
    return parts


def _areas(reader: Any, miles: float) -> Iterator[tuple[int, "BaseGeometry", str | None]]:
    import shapely
    from shapely import affinity

    west, south, east, north = reader.bbox
    if not CITY_EXTENT_MILES[0] < max(east - west, north - south) * miles < CITY_EXTENT_MILES[1]:
        raise TripError(
            f"{ZONE_SHAPES} reaches from {west:g} to {east:g}, which is no city in the unit of its "
            f".prj but looks like degrees. Use the TLC's own file, in feet (EPSG:2263)."
        )
    names = {field.name.lower(): field.name for field in reader.fields}
    if "locationid" not in names:
        raise TripError(f"{ZONE_SHAPES} lacks LocationID; it has {list(names)}. Replace the file.")
    for shape, record in zip(reader.iterShapes(), reader.iterRecords(), strict=True):
        zone = _zone_id(record[names["locationid"]], ZONE_SHAPES)
        parts = shapely.get_parts(
            shapely.make_valid(shapely.geometry.shape(shape.__geo_interface__))
        )
        area = shapely.union_all(parts[shapely.get_dimensions(parts) == 2])  # no stray lines
        if not area.area > 0:
            raise TripError(f"{ZONE_SHAPES} has no area for LocationID {zone}. Replace the file.")
        borough = _clean_text(record[names["borough"]]) or None if "borough" in names else None
        yield zone, affinity.scale(area, miles, miles, origin=(0, 0)), borough


def _merge_by_zone(
    parts: list[tuple[int, "BaseGeometry", str | None]],
) -> dict[int, tuple["BaseGeometry", str | None]]:
    """Merge the shapes that share an id: the TLC gives some zones several."""
    import shapely

    shapes: dict[int, list[BaseGeometry]] = {}
    boroughs: dict[int, str | None] = {}
    for zone, area, borough in parts:
        shapes.setdefault(zone, []).append(area)
        boroughs[zone] = borough
    if not shapes:
        raise TripError(f"{ZONE_SHAPES} has no shapes. Replace the file.")
    return {zone: (shapely.union_all(shapes[zone]), boroughs[zone]) for zone in sorted(shapes)}


def _rounded(points: np.ndarray) -> list[Any]:
    rounded: list[Any] = points.round(DECIMALS if points.ndim == 1 else 3).tolist()
    return rounded
