"""How a month, or the city, is brought here or made up."""

from functools import partial
from pathlib import Path

from storage.data import months
from storage.data.months import MonthFile, SideFile
from taxi import city, simulation
from taxi.city import ZONE_FILES, City


def find_month(source: str, taxi: str, month: str, work_dir: Path) -> MonthFile:
    """Bring one month's file to this machine, or make it up."""
    simulate = partial(simulation.month_batches, taxi=taxi)
    return months.find(source, taxi=taxi, month=month, work_dir=work_dir, simulate=simulate)


def find_zone_files(source: str) -> dict[str, SideFile]:
    """Bring the zones' table and shapes to this machine: name -> file, of those there are."""
    return months.find_beside(source, ZONE_FILES)


def find_city(source: str, files: dict[str, SideFile]) -> City | None:
    """Read the city that trips are made in, or make it up; None where a file is missing.

    Args:
        source: of the months.
        files: of find_zone_files.
    Raises:
        TripError: a file is there and is wrong.
    """
    seed = months.simulated_seed(source)
    if seed is not None:
        return simulation.simulated_zones(seed)
    if len(files) < len(ZONE_FILES):
        return None
    return city.parse_city(*(files[name].path.read_bytes() for name in ZONE_FILES))
