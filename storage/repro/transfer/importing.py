"""Importing an export into this store: what is there already stays, the rest is added.

A killed import resumes when it is run again: it finds what it made by the tag of its origin.
"""

import hashlib
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    LoggedModel,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from storage import UserError
from storage.repro.transfer.export_file import (
    MLMODEL,
    ExportFile,
    InputDataset,
    ModelRecord,
    RunRecord,
)
from storage.repro.transfer.id_map import IdMap
from storage.repro.transfer.versions import add_version, refuse_other_taxis
from storage.tracking import artifacts, datasets, duplicates, experiments, processes, refusals, tags
from storage.tracking.query import equals
from storage.tracking.registry_lock import ImportLock

TEXTS = (".csv", ".html", ".json")  # artifacts that may contain ids
N_METRICS, N_TAGS = 1000, 100  # per call to the store


class Import:
    """One import of an export into this store."""

    def __init__(self, file: ExportFile) -> None:
        self.file = file
        self.manifest = file.manifest
        self.client = MlflowClient()
        self.experiment_id = experiments.use_experiment()
        self.map = IdMap(self.client.get_experiment(self.experiment_id))
        self.done: set[str] = set()  # runs that are here already, completely
        self.grown: dict[str, int] = {}  # file -> bytes by which it is longer here
        self.lines: list[str] = []  # what to print about aliases
        self.n_restored = 0  # files that were lost here and are put back

    def run(self) -> str:
        """Write all that is missing; return this store's id of the exported run.

        One import at a time: two of the same file would both find nothing and create it twice.

        Raises:
            UserError: a run is in another experiment and incomplete, or a version is of another
                taxi than the champion here.
            RegistryError: another import holds the lock for too long.
        """
        number = self.experiment_id
        with ImportLock(
            self.client,
            number,
            uuid.uuid4().hex,
            read_tags=lambda: self.client.get_experiment(number).tags,
            answers=nullcontext,
        ).hold():
            return self._run()

    def _run(self) -> str:
        refuse_other_taxis(self.manifest)
        found = {record.run_id: self._find_run(record) for record in self.manifest.runs}
        for record in self.manifest.runs:
            self.map.ids[record.run_id] = self._import_run(record, found[record.run_id])
        for model in self.manifest.models:
            self.map.ids[model.model_id] = self._import_model(model).model_id
        self._map_keys()
        self._map_champions()
        for model in self.manifest.models:
            self._fill_model(model)
        for version in self.manifest.versions:
            number, lines = add_version(self.manifest, version, self.map)
            self.map.versions[version.name, version.version] = number
            self.lines += lines
        # parents last: a run marked as whole must have all its descendants
        for record in reversed(self.manifest.runs):
            if record.run_id in self.done:
                self._restore_files(record)
            else:
                self._fill_run(record)
        return self.map.ids[self.manifest.run_id]

    # --- runs and models, found or made, so that every id is known

    def _import_run(self, record: RunRecord, found: Run | None) -> str:
        if found is None:
            return str(self._make_run(record).info.run_id)
        if is_done(record, found):
            self.done.add(record.run_id)
        return str(found.info.run_id)

    def _find_run(self, record: RunRecord) -> Run | None:
        """Find the run here, if it was imported before or has originally run here.

        Raises:
            UserError: it is in another experiment and incomplete: the rest would go to this one.
        """
        run = self._search_run(record)
        if run is None or is_done(record, run) or run.info.experiment_id == self.experiment_id:
            return run
        name = self.client.get_experiment(run.info.experiment_id).name
        raise UserError(
            f"Run {record.run_id} of this file is in experiment {name!r} as {run.info.run_id}, "
            f"and not whole. Go on there with MLFLOW_EXPERIMENT_NAME={name}, or delete that run."
        )

    def _search_run(self, record: RunRecord) -> Run | None:
        for run_id in {record.origin, record.run_id}:
            try:
                run = self.client.get_run(run_id)
            except MlflowException as error:
                if not refusals.is_missing(error):
                    raise
                continue
            if run.info.lifecycle_stage == LifecycleStage.ACTIVE:
                return run
        everywhere = [one.experiment_id for one in self.client.search_experiments()]
        found = self.client.search_runs(
            everywhere, equals(f"tags.{tags.ORIGIN_RUN}", record.origin), ViewType.ACTIVE_ONLY
        )
        genuine = (run for run in found if run.data.tags.get(tags.FAILURE) != duplicates.REASON)
        return next(genuine, None)

    def _make_run(self, record: RunRecord) -> Run:
        # names this process: if it dies, the next pipeline closes the run
        tag_values = {str(tags.ORIGIN_RUN): record.origin, str(tags.ORIGIN_STORE): record.store}
        tag_values |= processes.process_tags()
        name = record.tags.get(tags.RUN_NAME)
        run = self.client.create_run(
            self.experiment_id, start_time=record.start_time, tags=tag_values, run_name=name
        )
        duplicates.close_duplicate_runs(run)
        return run

    def _import_model(self, record: ModelRecord) -> LoggedModel:
        run = self.client.get_run(self.map.ids[record.run_id])
        of_run, names = equals("source_run_id", run.info.run_id), {record.origin, record.model_id}
        for model in self.client.search_logged_models([run.info.experiment_id], of_run):
            if names & {model.model_id, model.tags.get(tags.ORIGIN_MODEL)}:
                return model
        if record.run_id in self.done:
            raise UserError(
                f"Run {run.info.run_id} is here already, and its model {record.name} was deleted. "
                f"Delete that run too, and import again."
            )
        return self.client.create_logged_model(
            run.info.experiment_id,
            name=record.name,
            source_run_id=run.info.run_id,
            tags=record.tags | {str(tags.ORIGIN_MODEL): record.origin},
            params=record.params,
            model_type=record.kind,
        )

    def _map_keys(self) -> None:
        """Map the step keys that depend on an id, or on such a key: they differ in this store."""
        before: dict[str, str] = {}
        while before != self.map.ids:
            before = dict(self.map.ids)
            for record in self.manifest.runs:
                if tags.KEY not in record.tags or tags.KEY_FILE not in record.files:
                    continue
                text = self.file.read(record.files[tags.KEY_FILE]).decode()
                if (here := self.map.text(text)) != text:
                    sha256 = hashlib.sha256(here.encode()).hexdigest()
                    self.map.ids[record.tags[tags.KEY]] = sha256

    def _map_champions(self) -> None:
        """Map the champions of the other store to versions here, by the digest of their models."""
        for place, sha256 in self.manifest.digests.items():
            name, _, number = place.rpartition("/")
            condition = equals(f"tags.{tags.MODEL_SHA256}", sha256)
            for version in self.client.search_model_versions(condition):
                if version.name == name:
                    self.map.versions.setdefault((name, number), str(version.version))

    # --- their contents

    def _fill_model(self, record: ModelRecord) -> None:
        model = self.client.get_logged_model(self.map.ids[record.model_id])
        text = self.file.read(record.files[MLMODEL]).decode() if MLMODEL in record.files else ""
        here = self.map.mlmodel(text, model.artifact_location)
        self.grown[f"{model.model_uri}/{MLMODEL}"] = len(here.encode()) - len(text.encode())
        files = record.files
        if model.status == LoggedModelStatus.READY:
            files = self._lost(files, model.artifact_location)
        if files:
            with TemporaryDirectory(prefix="import-") as name:
                self._extract(files, Path(name))
                if MLMODEL in files:
                    Path(name, MLMODEL).write_text(here)
                self.client.log_model_artifacts(model.model_id, name)
        if model.status == LoggedModelStatus.READY:
            return
        # last, as tags may name models that were added after this one
        self.client.set_logged_model_tags(model.model_id, self.map.tags(record.tags))
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _fill_run(self, record: RunRecord) -> None:
        """Write the contents of a run and close it as it was closed; repeating it is harmless."""
        run = self.client.get_run(self.map.ids[record.run_id])
        self._log_files(record, run, record.files)
        self._log_lineage(record, run)
        self._log_values(record, run)
        self.client.set_terminated(run.info.run_id, record.status, record.end_time)

    def _restore_files(self, record: RunRecord) -> None:
        """Put back files that a run here has lost, such as with the folder of a checkout."""
        run = self.client.get_run(self.map.ids[record.run_id])
        self._log_files(record, run, self._lost(record.files, run.info.artifact_uri))

    def _lost(self, files: dict[str, str], uri: str) -> dict[str, str]:
        """Return those of the files that are no longer here, and count them."""
        present = artifacts.list_files(uri) if files else {}
        lost = {path: sha256 for path, sha256 in files.items() if path not in present}
        self.n_restored += len(lost)
        return lost

    def _log_files(self, record: RunRecord, run: Run, wanted: Collection[str]) -> None:
        """Log the wanted files of a run, with the ids of this store."""
        if not wanted:
            return
        with TemporaryDirectory(prefix="import-") as name:
            folder = Path(name)
            self._extract(record.files, folder)
            grown = dict(self.grown)
            for path in record.files:
                if path.endswith(TEXTS) and path != tags.OUTPUTS:
                    grown[path] = self._rewrite(folder / path)
            if tags.OUTPUTS in record.files:
                outputs = folder / tags.OUTPUTS
                outputs.write_text(self.map.outputs(outputs.read_text(), grown))
            for path in record.files.keys() - set(wanted):
                (folder / path).unlink()
            self.client.log_artifacts(run.info.run_id, name)

    def _rewrite(self, path: Path) -> int:
        """Rewrite a text with the ids of this store; return by how many bytes it has grown."""
        before = path.read_bytes()
        try:
            after = self.map.text(before.decode()).encode()
        except UnicodeDecodeError:
            return 0
        if after != before:
            path.write_bytes(after)
        return len(after) - len(before)

    def _extract(self, files: dict[str, str], folder: Path) -> None:
        for path, sha256 in files.items():
            self.file.extract(sha256, folder / path)

    def _log_lineage(self, record: RunRecord, run: Run) -> None:
        inputs = [self._dataset(one) for one in record.inputs]
        models = [LoggedModelInput(self.map.ids[number]) for number in record.input_models]
        if inputs or models:
            self.client.log_inputs(run.info.run_id, datasets=inputs, models=models or None)
        known = {one.model_id for one in run.outputs.model_outputs} if run.outputs else set()
        outputs = [
            LoggedModelOutput(self.map.ids[number], step=step)
            for number, step in record.outputs.items()
            if self.map.ids[number] not in known
        ]
        if outputs:
            self.client.log_outputs(run.info.run_id, outputs)

    def _dataset(self, record: InputDataset) -> DatasetInput:
        kind, source = record.source_type, self.map.text(record.source)
        if record.run_id and record.path:
            uri = datasets.artifact_source(self.map.ids[record.run_id], record.path)
            opens = datasets.source_of(uri)
            kind, source = opens._get_source_type(), opens.to_json()
        dataset = Dataset(record.name, record.digest, kind, source, record.columns, record.profile)
        return DatasetInput(dataset, [InputTag(*tag) for tag in record.tags.items()])

    def _log_values(self, record: RunRecord, run: Run) -> None:
        run_id = run.info.run_id
        points = [*self._points(record, run)]
        for part in chunks(points, N_METRICS):
            self.client.log_batch(run_id, metrics=part)
        for part in chunks([Param(*param) for param in record.params.items()], N_TAGS):
            self.client.log_batch(run_id, params=part)
        for name in (tags.FAILURE, tags.NOTE):  # left by an import that died
            if name in run.data.tags and name not in record.tags:
                self.client.delete_tag(run_id, name)
        tag_values = self.map.tags(record.tags) | self._versions(record)
        tag_values[tags.IMPORTED] = tags.WHOLE if record.is_whole else tags.PART
        for part in chunks([RunTag(*pair) for pair in tag_values.items()], N_TAGS):
            self.client.log_batch(run_id, tags=part)

    def _points(self, record: RunRecord, run: Run) -> Iterable[Metric]:
        known = self._known_points(record, run)
        for point in record.metrics:
            model_id = self.map.ids[point.model_id] if point.model_id else None
            if (model_id, point.key, point.timestamp, point.step) not in known:
                yield Metric(
                    point.key,
                    point.value,
                    point.timestamp,
                    point.step,
                    model_id,
                    point.dataset_name,
                    point.dataset_digest,
                )

    def _known_points(self, record: RunRecord, run: Run) -> set[tuple[str | None, str, int, int]]:
        """Return the metric values of models that an import wrote before it died."""
        models = {self.map.ids[point.model_id] for point in record.metrics if point.model_id}
        return {
            (model_id, point.key, point.timestamp, point.step)
            for model_id in models
            for point in self.client.get_logged_model(model_id).metrics or ()
            if point.run_id == run.info.run_id
        }

    def _versions(self, record: RunRecord) -> dict[str, str]:
        """Return the tags of a run of register that name versions, with their numbers here.

        A version that is not here must not get the number of another one: it becomes 0, a champion
        its number and store.
        """
        name = record.tags.get(tags.MODEL_NAME, "")
        here: dict[str, str] = {}
        for tag, unknown in ((tags.VERSION, "0"), (tags.CHAMPION_VERSION, "")):
            if number := record.tags.get(tag, ""):
                missing = unknown or f"{number} of {record.store}"
                here[tag] = self.map.versions.get((name, number), missing)
        return here


def is_done(record: RunRecord, run: Run) -> bool:
    """Whether a run in this store has all that the file has of it."""
    if tags.ORIGIN_RUN not in run.data.tags:  # it has run here
        return True
    enough = (tags.WHOLE,) if record.is_whole else (tags.WHOLE, tags.PART)
    return run.data.tags.get(tags.IMPORTED) in enough and run.info.status == record.status


def chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Split a list into parts of at most `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))
