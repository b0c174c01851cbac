"""Functions that make the city's two zone files; a test states only what matters."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import shapefile

from taxi.city import ZONE_SHAPES, ZONE_TABLE

FEET_PER_MILE = 5280
# the projection of the TLC's file, shortened
FEET = (
    'PROJCS["NAD_1983_StatePlane_New_York_Long_Island_FIPS_3104_Feet",GEOGCS["GCS_North_American_'
    '1983",UNIT["Degree",0.0174532925199433]],PROJECTION["Lambert_Conformal_Conic"],'
    'UNIT["Foot_US",0.3048006096012192]]'
)
DEGREES = 'GEOGCS["GCS_WGS_1984",UNIT["Degree",0.0174532925199433]]'
HEADER = "LocationID,Borough,Zone,service_zone"
ROWS = (
    "1,EWR,Newark Airport,EWR",
    "2,Queens,Jamaica Bay,Boro Zone",
    "3,Bronx,Allerton/Pelham Gardens,Boro Zone",
    "4,Manhattan,Alphabet City,Yellow Zone",
    "264,Unknown,N/A,N/A",
    "265,N/A,Outside of NYC,N/A",
)
Square = tuple[int, float, float, float]  # LocationID, west, south, width, in miles
SQUARES: tuple[Square, ...] = ((1, 0, 0, 2), (2, 10, 0, 2), (3, 10, 10, 2), (4, 0, 10, 2))


def make_zone_table(*rows: str, header: str = HEADER) -> bytes:
    """Return a table of zones, by default of ROWS."""
    return ("\ufeff" + "\r\n".join([header, *(rows or ROWS)]) + "\r\n").encode()


def make_zone_shapes(
    *squares: Square,
    projection: str | None = FEET,
    unit: float = FEET_PER_MILE,
    folder: str = "",
    boroughs: Sequence[str] | None = None,
    column: str = "LocationID",
) -> bytes:
    """Return a zip with a shapefile of square zones, by default of SQUARES.

    Args:
        squares: the zones; an id may occur more than once.
        projection: content of the .prj; None = there is no .prj.
        unit: how many units make a mile.
        folder: folder within the zip that holds the files.
        boroughs: one for each square; None = the shapes do not name them.
        column: name of the column with the ids.
    """
    parts = {kind: io.BytesIO() for kind in ("shp", "shx", "dbf")}
    with shapefile.Writer(**parts, shapeType=shapefile.POLYGON) as writer:
        writer.field(column, "N", 8)
        writer.field("borough", "C", 40)
        for number, (zone, west, south, width) in enumerate(squares or SQUARES):
            left, right = west * unit, (west + width) * unit
            low, high = south * unit, (south + width) * unit
            corners = [[left, low], [left, high], [right, high], [right, low], [left, low]]
            writer.poly([corners])
            writer.record(zone, boroughs[number] if boroughs else "")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as files:
        for kind, part in parts.items():
            files.writestr(zipfile.ZipInfo(f"{folder}taxi_zones.{kind}"), part.getvalue())
        if projection is not None:
            files.writestr(zipfile.ZipInfo(f"{folder}taxi_zones.prj"), projection)
    return content.getvalue()


def write_zone_files(
    folder: Path, *, table: bytes | None = None, shapes: bytes | None = None
) -> None:
    """Write both files to a folder; by default they are ordinary ones."""
    (folder / ZONE_TABLE).write_bytes(make_zone_table() if table is None else table)
    (folder / ZONE_SHAPES).write_bytes(make_zone_shapes() if shapes is None else shapes)
