"""A store whose driver is not installed."""

import tomllib

import pytest

from storage import StorageError, drivers
from storage.drivers import EXTRAS
from tests.conftest import ROOT


def test_each_extra_is_one_of_pyproject() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*EXTRAS.values()} <= known["optional-dependencies"].keys()


@pytest.mark.parametrize(
    ("module", "extra"),
    [*EXTRAS.items(), ("google.cloud.storage", "gs"), ("psycopg2", "postgres")],
)
def test_a_missing_driver_is_one_line_with_its_extra(module: str, extra: str) -> None:
    with pytest.raises(StorageError) as told, drivers.missing_as_error():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert str(told.value).endswith(f"make lock EXTRAS={extra}")
    assert module.partition(".")[0] in str(told.value)


def test_any_other_missing_module_is_a_surprise() -> None:
    with pytest.raises(ModuleNotFoundError, match="numpyy"), drivers.missing_as_error():
        raise ModuleNotFoundError("No module named 'numpyy'", name="numpyy")
