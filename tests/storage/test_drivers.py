"""A store whose driver is not installed."""

import pytest

from storage import StorageError, drivers


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        *(("boto3", "s3"), ("s3fs", "s3"), ("google.cloud.storage", "gs"), ("gcsfs", "gs")),
        *(("psycopg", "postgres"), ("psycopg2", "postgres")),
    ],
)
def test_a_missing_driver_is_one_line_with_its_extra(module: str, extra: str) -> None:
    with pytest.raises(StorageError) as told, drivers.told():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert str(told.value).endswith(f"make lock EXTRAS={extra}")
    assert module.partition(".")[0] in str(told.value)


def test_any_other_missing_module_is_a_surprise() -> None:
    with pytest.raises(ModuleNotFoundError, match="numpyy"), drivers.told():
        raise ModuleNotFoundError("No module named 'numpyy'", name="numpyy")
