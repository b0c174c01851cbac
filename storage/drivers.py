"""Drivers that a store needs besides the lock: missing module -> extra of pyproject.toml."""

from collections.abc import Iterator
from contextlib import contextmanager

from storage import StorageError

EXTRAS = {
    "boto3": "s3",
    "s3fs": "s3",
    "google": "gs",
    "gcsfs": "gs",
    "psycopg": "postgres",
}


@contextmanager
def missing_as_error() -> Iterator[None]:
    """Turn a missing driver into a one-line error that names its extra; pass other errors on.

    Raises:
        StorageError: a store's driver is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module == "psycopg2":
            raise StorageError(
                "This store's URI asks for psycopg2, which is not installed. Write postgresql://, "
                "whose driver psycopg comes with: make lock EXTRAS=postgres"
            ) from error
        if module not in EXTRAS:
            raise
        raise StorageError(
            f"This store needs the package {module}, which is not installed. "
            f"Add it to the lock with: make lock EXTRAS={EXTRAS[module]}"
        ) from error
