"""The file of an export: a zip of a manifest, and of each distinct file, named by its sha256.

Nothing in it is used before all of it is verified, and no name in the zip becomes a path.
"""

import hashlib
import re
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

from mlflow.utils.validation import path_not_unique
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from storage import StorageError, UserError, one_line, zips

FORMAT = 1  # version of this format; older ones must stay readable
MANIFEST, FILES = "manifest.json", "files/"
DIGEST_COMMENT = "manifest sha256 "  # comment of the zip
MAX_RATIO, EXTRA_BYTES = 100, 100_000_000  # bytes unpacked per byte of the file, and in addition
CHUNK = 1 << 20
MLMODEL = "MLmodel"  # every model's folder has one
COMPILED = "__pycache__"  # of a machine that has loaded the model; not verified by anything


def check_path(path: str) -> str:
    """Return an artifact's path; refuse one that leaves its folder, or is compiled code."""
    parts = PurePosixPath(path).parts
    is_odd = not path or "\\" in path or not path.isprintable() or "/".join(parts) != path
    if is_odd or {"..", "/", COMPILED} & set(parts) or path_not_unique(path):
        raise ValueError(f"{path!r} is no artifact's name")
    return path


def check_folder(files: dict[str, str]) -> dict[str, str]:
    """Return paths of files; refuse them if one is both a file and a folder."""
    folders = {str(above) for path in files for above in PurePosixPath(path).parents}
    if both := sorted(folders & set(files)):
        raise ValueError(f"{both[0]!r} is a file and a folder")
    return files


RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
ModelId = Annotated[str, Field(pattern=r"^m-[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ArtifactPath = Annotated[str, AfterValidator(check_path)]
Artifacts = Annotated[dict[ArtifactPath, Sha256], AfterValidator(check_folder)]


class Record(BaseModel):
    """A part of the manifest; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class MetricPoint(Record):
    """A value of a metric, and the model and data set that it belongs to, if any."""

    key: str
    value: float
    timestamp: int
    step: int
    model_id: ModelId | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


class InputDataset(Record):
    """A data set that a run has read."""

    name: str
    digest: str
    source_type: str
    source: str
    columns: str | None
    profile: str | None
    tags: dict[str, str]
    run_id: RunId | None = None  # run whose artifact it is
    path: ArtifactPath | None = None


class RunRecord(Record):
    """A run; `run_id` is its id in the exporting store, `origin` the one where it ran."""

    run_id: RunId
    origin: RunId
    store: str  # the store where it ran
    is_whole: bool  # with all its descendants
    parent: RunId | None
    status: Annotated[str, Field(pattern="^(FINISHED|FAILED|KILLED)$")]
    start_time: int
    end_time: int | None
    tags: dict[str, str]
    params: dict[str, str]
    metrics: list[MetricPoint]
    inputs: list[InputDataset]
    input_models: list[ModelId]
    outputs: dict[ModelId, int]  # model -> step
    files: Artifacts  # path -> sha256


class ModelRecord(Record):
    """A logged model."""

    model_id: ModelId
    origin: ModelId  # its id where it was made
    run_id: RunId
    name: str
    kind: str | None
    tags: dict[str, str]
    params: dict[str, str]
    files: Artifacts


class VersionRecord(Record):
    """A version of a registered model."""

    name: str
    version: str
    model_id: ModelId
    sha256: Sha256  # of its files
    tags: dict[str, str]
    description: str
    aliases: list[str]
    promotions: list[str]  # changes that made it champion, JSON
    about: str  # page of the registered model, without its history


class Manifest(Record):
    """The contents of an export; a parent run comes before its children."""

    format: int
    store: str
    run_id: RunId  # the run that was asked for
    runs: list[RunRecord]
    models: list[ModelRecord]
    versions: list[VersionRecord]
    digests: dict[str, Sha256]  # name/version that a run mentions -> digest of its model
    sizes: dict[Sha256, Annotated[int, Field(ge=0)]]  # of each file, bytes

    def folders(self) -> list[dict[str, str]]:
        """List the files of each run and each model: path -> sha256."""
        return [run.files for run in self.runs] + [model.files for model in self.models]


class ExportWriter:
    """Adds files and the manifest to an export."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        self.sizes: dict[str, int] = {}

    def add(self, file: Path) -> str:
        """Add a file, unless its bytes are there already; return their sha256."""
        with file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        if sha256 not in self.sizes:
            self.archive.write(file, f"{FILES}{sha256}")
            self.sizes[sha256] = file.stat().st_size
        return sha256

    def finish(self, manifest: Manifest) -> None:
        """Add the manifest, and its digest as the comment of the zip."""
        text = manifest.model_dump_json(indent=1).encode()
        self.archive.writestr(MANIFEST, text)
        self.archive.comment = f"{DIGEST_COMMENT}{hashlib.sha256(text).hexdigest()}".encode()


@contextmanager
def writing(path: Path) -> Iterator[ExportWriter]:
    """Write an export atomically; a failure leaves nothing behind.

    Raises:
        UserError: there is a file of this name.
        StorageError: it cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} is there already. Pass another FILE, or remove it.")
    half = path.with_name(f".{path.name}.half")
    try:
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            yield ExportWriter(path, archive)
        half.replace(path)
    except OSError as error:
        # a server's error is an OSError without errno
        if error.errno is None or error.filename not in (None, str(half)):
            raise
        reason = f"{error.strerror}. Pass a FILE where there is room and this user may write"
        raise StorageError(f"{path} cannot be written: {reason}.") from error
    finally:
        half.unlink(missing_ok=True)


class ExportFile:
    """A verified export: every byte is as it was exported."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self.archive = archive
        self.manifest = manifest

    def extract(self, sha256: str, path: Path) -> None:
        """Write one of its files to a path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.archive.open(f"{FILES}{sha256}") as content, path.open("wb") as file:
            shutil.copyfileobj(content, file)

    def read(self, sha256: str) -> bytes:
        """Read one of its files."""
        return self.archive.read(f"{FILES}{sha256}")


@contextmanager
def opened(path: Path) -> Iterator[ExportFile]:
    """Open an export, and verify all of it first.

    Raises:
        UserError: it is no export, is truncated or changed, or is of a newer format.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check FILE.") from error
    with file:
        archive = _open_zip(path, file)
        try:
            manifest = _read_manifest(path, archive)
            _verify_files(path, archive, manifest)
        except zips.DAMAGED_ERRORS as error:
            raise changed_error(path, one_line(error)) from error
        yield ExportFile(archive, manifest)


def changed_error(path: Path, what: str) -> UserError:
    """Return the error that a file is not as it was exported."""
    return UserError(
        f"{path} is not as it was exported: {what}. Nothing was imported. Copy or export it again."
    )


def _open_zip(path: Path, file: IO[bytes]) -> zipfile.ZipFile:
    begins = file.read(4)
    try:
        archive = zipfile.ZipFile(file)
    except zips.DAMAGED_ERRORS as error:
        if begins == b"PK\x03\x04":
            raise changed_error(
                path, f"its end is cut off or damaged ({one_line(error)})"
            ) from error
        raise UserError(f"{path} is no export of a pipeline. Make one with make export.") from error
    if MANIFEST not in archive.namelist():
        raise UserError(f"{path} is no export of a pipeline: it has no {MANIFEST}. Check FILE.")
    return archive


def _read_manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    _check_members(path, archive)
    text = archive.read(MANIFEST)
    comment = archive.comment.decode("ascii", "replace")
    if comment != f"{DIGEST_COMMENT}{hashlib.sha256(text).hexdigest()}":
        raise changed_error(path, f"{MANIFEST} was edited")
    found = re.match(rb'\s*\{\s*"format":\s*(\d{1,9})', text)
    if found and int(found[1]) > FORMAT:
        raise UserError(
            f"{path} is of format {int(found[1])}, and this version of the project reads up to "
            f"{FORMAT}. Update the checkout: git pull."
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise changed_error(path, f"{MANIFEST}, {where}: {first['msg']}") from error


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a zip with members that no export has, or that unpacks to too many bytes."""
    zips.check_methods(archive)
    members = archive.infolist()
    names = Counter(member.filename for member in members)
    for member in members:
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        is_ours = re.fullmatch(rf"{FILES}[0-9a-f]{{64}}|{re.escape(MANIFEST)}", member.filename)
        if is_link or not is_ours or names[member.filename] > 1:
            raise changed_error(path, f"it holds {member.filename!r}, which no export does")
    n_bytes, most = sum(m.file_size for m in members), path.stat().st_size * MAX_RATIO + EXTRA_BYTES
    if n_bytes > most:
        raise changed_error(path, f"it would unpack to {n_bytes:,} bytes, more than {most:,}")


def _verify_files(path: Path, archive: zipfile.ZipFile, manifest: Manifest) -> None:
    listed = {sha256 for files in manifest.folders() for sha256 in files.values()}
    held = {name.removeprefix(FILES) for name in archive.namelist()} - {MANIFEST}
    if listed != held or listed != set(manifest.sizes):
        raise changed_error(path, f"{MANIFEST} names other files than it holds")
    for sha256, n_bytes in manifest.sizes.items():
        if archive.getinfo(f"{FILES}{sha256}").file_size != n_bytes:
            raise changed_error(path, f"a file has not the {n_bytes:,} bytes that it had")
        digest = hashlib.sha256()
        with archive.open(f"{FILES}{sha256}") as content:
            while chunk := content.read(CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise changed_error(path, f"{_name_of(sha256, manifest)} has other bytes")


def _name_of(sha256: str, manifest: Manifest) -> str:
    return next(path for files in manifest.folders() for path in files if files[path] == sha256)
