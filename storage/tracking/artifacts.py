"""Files of runs and models, wherever the store keeps them; downloads are temporary."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.models_artifact_repo import ModelsArtifactRepository

from storage import StorageError, one_line
from storage.tracking import pages, refusals
from storage.tracking.runs import fetch_run
from storage.uris import without_user

if TYPE_CHECKING:  # slow to import, and most users of this module draw nothing
    from matplotlib.figure import Figure


class LostError(StorageError):
    """A file that a run logged is gone, or is another one by now."""


@contextmanager
def open_file(run_id: str, name: str) -> Iterator[Path]:
    """Yield an artifact of a run as a local file or folder.

    A local artifact is used in place; any other is downloaded into a temporary folder.

    Raises:
        LostError: the run has no such artifact.
        StorageError: it cannot be read, or arrives incomplete.
    """
    try:
        uri = folder_of(run_id)
    except MlflowException as error:
        if not refusals.is_missing(error):
            raise
        raise _deleted_error(run_id, name) from error
    with ExitStack() as stack:
        try:
            path = stack.enter_context(open_under(uri, name))
        except (MlflowException, OSError) as error:
            raise _unreadable_error(run_id, uri, name, error) from error
        yield path


@lru_cache(maxsize=1000)
def folder_of(run_id: str) -> str:
    """Return the URI of a run's artifact folder; cached, as it never changes.

    Raises:
        MlflowException: there is no such run, or the store refuses.
        StorageError: the response is not this run.
    """
    return str(fetch_run(run_id).info.artifact_uri)


def _unreadable_error(run_id: str, uri: str, name: str, error: Exception) -> StorageError:
    """Explain why an artifact cannot be read; only a listing can tell that it is gone."""
    try:
        is_listed = name in _sizes(get_artifact_repository(uri), name)
    except (MlflowException, OSError) as unlisted:
        reason = refusals.explain_refusal(unlisted) or f"{without_user(one_line(unlisted))}."
        return StorageError(f"{name} of run {run_id} cannot be read. {reason}")
    if not is_listed:
        return _deleted_error(run_id, name)
    reason = refusals.explain_refusal(error) or f"{without_user(_last_line(error))}."
    return StorageError(f"{name} of run {run_id} exists, but arrives incomplete. {reason}")


def _deleted_error(run_id: str, name: str) -> LostError:
    return LostError(f"Run {run_id} has no artifact {name}. Was it deleted? Run that step again.")


def _sizes(repository: ArtifactRepository, name: str) -> dict[str, int | None]:
    above = name.rpartition("/")[0]
    return {entry.path: entry.file_size for entry in repository.list_artifacts(above or None)}


def _last_line(error: Exception) -> str:
    """Return the reason at the end of MLflow's download error, after a list of files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(Exception(lines[-1] if lines else type(error).__name__))


@contextmanager
def open_under(uri: str, name: str, store: str | None = None) -> Iterator[Path]:
    """Yield a file under a URI as a local file, as open_file does.

    Args:
        uri: the folder.
        name: the file's path in it.
        store: tracking URI of the store that it belongs to; None = the configured one.
    Raises:
        MlflowException, OSError: there is no such file, it is incomplete, or nothing answers.
    """
    repository = get_artifact_repository(uri, tracking_uri=store)
    if is_local(repository):
        yield Path(repository.download_artifacts(name))
        return
    with TemporaryDirectory(prefix="artifact-") as folder:
        path = Path(repository.download_artifacts(name, folder))
        _check_size(path, _sizes(repository, name).get(name))
        yield path


def _check_size(path: Path, n_bytes: int | None) -> None:
    """Refuse a download that a proxy has truncated, or replaced by a page of its own.

    Args:
        path: the download.
        n_bytes: its size as the store lists it; None = not listed.
    Raises:
        OSError: the sizes differ.
    """
    if path.is_file() and n_bytes is not None and path.stat().st_size != n_bytes:
        n_received = path.stat().st_size
        raise OSError(f"{n_received} bytes came of {n_bytes}. Look at the proxy before the server")


def is_local(repository: ArtifactRepository) -> bool:
    """Whether the files are on this machine: they are used in place unless a copy is asked for."""
    if isinstance(repository, ModelsArtifactRepository):
        repository = repository.repo
    return isinstance(repository, LocalArtifactRepository)


def read_text(run_id: str, name: str) -> str:
    """Read a text file that a run has logged.

    Raises:
        StorageError: the run has no such artifact.
    """
    return read_bytes(run_id, name).decode()


def read_bytes(run_id: str, name: str) -> bytes:
    """Read a file that a run has logged.

    Raises:
        StorageError: the run has no such artifact.
    """
    with open_file(run_id, name) as path:
        return path.read_bytes()


def read_table(run_id: str, name: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file that a run has logged: column -> text.

    Raises:
        StorageError: the run has no such artifact.
    """
    return parse_csv(read_text(run_id, name))


def parse_csv(text: str) -> list[dict[str, str]]:
    """Parse the rows of a CSV text: column -> text."""
    return list(csv.DictReader(io.StringIO(text)))


def has_file(run_id: str, name: str) -> bool:
    """Whether a run has logged a file of this name.

    Raises:
        StorageError: the store does not answer, or refuses.
    """
    uri = folder_of(run_id)
    try:
        return name in _sizes(get_artifact_repository(uri), name)
    except (MlflowException, OSError) as error:
        raise _unreadable_error(run_id, uri, name, error) from error


def find_location(run_id: str, name: str) -> str:
    """Return where a person can open a file of a run: its path, a server's page, or its URI."""
    info = mlflow.get_run(run_id).info
    repository = get_artifact_repository(str(info.artifact_uri))
    if is_local(repository):
        return str(repository.download_artifacts(name))  # the file itself, no copy
    if mlflow.get_tracking_uri().startswith("http"):
        return pages.address(pages.artifact_link(info.experiment_id, run_id, name))
    return without_user(f"{info.artifact_uri}/{name}")


def list_files(uri: str, store: str | None = None) -> dict[str, int | None]:
    """List all files under a URI, recursively: path -> bytes, None if the size is unknown.

    Raises:
        MlflowException, OSError: the store does not answer, or refuses.
    """
    repository = get_artifact_repository(uri, tracking_uri=store)
    sizes: dict[str, int | None] = {}
    folders = [""]
    while folders:
        for entry in repository.list_artifacts(folders.pop()):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                sizes[entry.path] = entry.file_size
    return sizes


def log_table(rows: Sequence[Mapping[str, Any]], name: str) -> None:
    """Write rows as a CSV artifact of the active run, which the UI shows as a table."""
    mlflow.log_text(write_csv(rows), name)


def write_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows, at least one, as CSV text with all their columns; a row may lack some."""
    text, names = io.StringIO(), list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def log_figure(figure: "Figure", name: str) -> None:
    """Write a figure as a PNG artifact of the active run."""
    folder, _, file = name.rpartition("/")
    with TemporaryDirectory() as work_dir:
        path = Path(work_dir) / file
        path.write_bytes(to_png(figure))
        mlflow.log_artifact(str(path), folder or None)


def to_png(figure: "Figure", dpi: float | None = None) -> bytes:
    """Return a figure as PNG bytes, drawn once; `savefig` draws it twice, to the same pixels.

    Args:
        figure: what to draw.
        dpi: dots per inch; None = the figure's own.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi or figure.dpi)
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()
