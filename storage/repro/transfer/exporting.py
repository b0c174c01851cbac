"""Gathering all that belongs to a pipeline, and writing it to a file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, LifecycleStage, LoggedModel, Metric, Run, RunStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from storage import UserError
from storage.repro.reuse import LOADED_NOTE, N_CHILDREN
from storage.repro.transfer.export_file import (
    COMPILED,
    FORMAT,
    MLMODEL,
    ExportWriter,
    InputDataset,
    Manifest,
    MetricPoint,
    ModelRecord,
    RunRecord,
    VersionRecord,
    writing,
)
from storage.tracking import artifacts, datasets, refusals, registry, tags
from storage.tracking.model_references import logged_model
from storage.tracking.query import equals
from storage.tracking.registry import Registry
from storage.uris import without_credentials

ORIGINS = (tags.ORIGIN_VERSION, tags.ORIGIN_PROMOTIONS)  # of an import into the exporting store


def export(run_id: str, path: Path) -> Manifest:
    """Write a run and all that belongs to it to a file; return its manifest.

    Raises:
        UserError: there is no such run, it still runs, or there is a file of this name.
        StorageError: the file cannot be written, or the store has lost a file.
    """
    gathered = RunCollection(MlflowClient(), run_id)
    with writing(path) as writer:
        manifest = gathered.write(writer)
        writer.finish(manifest)
    return manifest


class RunCollection:
    """A run with its descendants, the runs that it builds on, and the ancestors of those."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        """Find all that belongs to a run.

        Raises:
            UserError: there is no such run, or one that belongs to it still runs.
        """
        self.client = client
        self.run_id = run_id
        self.runs: dict[str, Run] = {}
        self.whole: set[str] = set()  # runs with all their descendants
        self.store = without_credentials(mlflow.get_tracking_uri())
        self._add_whole(self._find(run_id))
        self.models = self._find_models()
        self.versions = self._find_versions()

    # --- finding

    def _find(self, run_id: str) -> Run:
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if not refusals.is_no_such_id(error):
                raise
            raise UserError(f"No run {run_id!r} in the store {self.store}. Check RUN.") from error
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise UserError(
                f"Run {run_id} is deleted. Run `mlflow runs restore --run-id {run_id}`."
            )
        if tags.STEP not in run.data.tags:
            raise UserError(f"Run {run_id} is of no step of this project. Pass a run of main.")
        return run

    def _add_whole(self, run: Run) -> None:
        """Add a run with its descendants, and the steps and trials that it builds on."""
        self._add(run)
        if run.info.run_id in self.whole:
            return
        self.whole.add(run.info.run_id)
        below = self.client.search_runs(
            [run.info.experiment_id],
            equals(f"tags.{tags.PARENT}", run.info.run_id),
            max_results=N_CHILDREN,
        )
        for child in below:
            self._add_whole(child)
        for name in tags.RUN_IDS.values():
            if step := self._find_or_none(run.data.tags.get(name, "")):
                self._add_whole(step)
        for trial_id in self._trials_of(run):
            if trial := self._find_or_none(trial_id):
                self._add_whole(trial)

    def _add(self, run: Run) -> None:
        """Add a run and its ancestors, without their other descendants."""
        if run.info.run_id in self.runs:
            return
        if not RunStatus.is_terminated(RunStatus.from_string(run.info.status)):
            raise UserError(
                f"Run {run.info.run_id} of {run.data.tags.get(tags.STEP, 'no step')} is still "
                f"{run.info.status}. Wait for it; the next pipeline closes what has died."
            )
        if above := self._find_or_none(run.data.tags.get(tags.PARENT, "")):
            self._add(above)
        self.runs[run.info.run_id] = run  # after its ancestors

    def _find_or_none(self, run_id: str) -> Run | None:
        try:
            run = self.client.get_run(run_id) if run_id else None
        except MlflowException as error:
            if not refusals.is_missing(error):
                raise
            return None
        return run if run and run.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def _trials_of(self, run: Run) -> list[str]:
        """Return the ids of a search's trials; some are below an earlier search that it resumed."""
        if tags.SEARCH_KEY not in run.data.tags or tags.STEP not in run.data.tags:
            return []
        if not artifacts.has_file(run.info.run_id, tags.TRIALS_TABLE):
            return []
        rows = artifacts.read_table(run.info.run_id, tags.TRIALS_TABLE)
        return [row["run_id"] for row in rows if row["run_id"]]

    def _find_models(self) -> dict[str, LoggedModel]:
        """Find the models that the runs have logged."""
        numbers = {
            output.model_id: run.info.run_id
            for run in self.runs.values()
            for output in (run.outputs.model_outputs if run.outputs else ())
        }
        found = (logged_model(self.client, *each) for each in sorted(numbers.items()))
        return {model.model_id: model for model in found if model.source_run_id in self.runs}

    def _find_versions(self) -> list[VersionRecord]:
        """Find the versions that the runs have registered, or found to be registered already."""
        named = {
            (run.data.tags[tags.MODEL_NAME], run.data.tags[tags.VERSION])
            for run in self.runs.values()
            if {tags.MODEL_NAME, tags.VERSION} <= set(run.data.tags)
        }
        found = [self._version(name, number) for name, number in sorted(named)]
        return [
            self._version_record(version, self._model_of(version))
            for version in found
            if version and tags.MODEL_SHA256 in version.tags and self._model_of(version)
        ]

    def _version(self, name: str, number: str) -> ModelVersion | None:
        try:
            return self.client.get_model_version(name, number)
        except MlflowException as error:
            if not refusals.is_missing(error):
                raise
            return None

    def _model_of(self, version: ModelVersion) -> str:
        """Return the id of the gathered model that a version holds; empty if it is none of them.

        A version that an earlier pipeline registered has the same bytes as the run's own model.
        """
        uris = [version.tags.get(tags.MODEL_URI, "")]
        uris += [
            run.data.tags.get(tags.MODEL_URI, "")
            for run in self.runs.values()
            if tags.CANDIDATE in run.data.tags and self._has_registered(run, version)
        ]
        numbers = [uri.removeprefix("models:/") for uri in uris]
        return next((number for number in numbers if number in self.models), "")

    def _has_registered(self, run: Run, version: ModelVersion) -> bool:
        above = self.runs.get(run.data.tags.get(tags.PARENT, ""))
        tag_values = above.data.tags if above else {}
        registered = (version.name, str(version.version))
        return (tag_values.get(tags.MODEL_NAME), tag_values.get(tags.VERSION)) == registered

    def _version_record(self, version: ModelVersion, model_id: str) -> VersionRecord:
        model = self.client.get_registered_model(version.name)
        number = str(version.version)
        history = Registry(version.name).history()
        return VersionRecord(
            name=version.name,
            version=number,
            model_id=model_id,
            sha256=version.tags[tags.MODEL_SHA256],
            tags=without_tags(version.tags, *ORIGINS),
            description=version.description or "",
            aliases=sorted(a for a, held in model.aliases.items() if str(held) == number),
            promotions=[json.dumps(one._asdict()) for one in history if one.version == number],
            about=registry.page_without_history(model.description or ""),
        )

    # --- writing

    def write(self, writer: ExportWriter) -> Manifest:
        """Write the files, and return the manifest."""
        runs = [self._run_record(run, writer) for run in self.runs.values()]
        models = [self._model_record(model, writer) for model in self.models.values()]
        return Manifest(
            format=FORMAT,
            store=self.store,
            run_id=self.run_id,
            runs=runs,
            models=models,
            versions=self.versions,
            digests=self._digests(),
            sizes=writer.sizes,
        )

    def _run_record(self, run: Run, writer: ExportWriter) -> RunRecord:
        run_id, tag_values = run.info.run_id, dict(run.data.tags)
        parent = tag_values.get(tags.PARENT, "")
        outputs = run.outputs.model_outputs if run.outputs else ()
        read = run.inputs.model_inputs if run.inputs else ()
        datasets_read = run.inputs.dataset_inputs if run.inputs else ()
        return RunRecord(
            run_id=run_id,
            origin=tag_values.pop(tags.ORIGIN_RUN, run_id),
            store=tag_values.pop(tags.ORIGIN_STORE, self.store),
            is_whole=run_id in self.whole and tag_values.pop(tags.IMPORTED, "") != tags.PART,
            parent=parent if parent in self.runs else None,
            status=run.info.status,
            start_time=run.info.start_time,
            end_time=run.info.end_time,
            tags=without_tags(tag_values, tags.IMPORTED),
            params=run.data.params,
            metrics=[*self._points(run)],
            inputs=[self._input(entry) for entry in datasets_read],
            input_models=[one.model_id for one in read if one.model_id in self.models],
            outputs={one.model_id: one.step for one in outputs if one.model_id in self.models},
            files=add_files(str(run.info.artifact_uri), writer),
        )

    def _points(self, run: Run) -> Iterable[MetricPoint]:
        """Yield every value of every metric, once for each model that has it as well."""
        of_models: dict[tuple[str, int, int], list[Metric]] = {}
        for model in self.models.values():
            for point in model.metrics or ():
                if point.run_id == run.info.run_id:
                    place = (point.key, point.timestamp, point.step)
                    of_models.setdefault(place, []).append(point)
        for name in run.data.metrics:
            for point in self.client.get_metric_history(run.info.run_id, name):
                points = of_models.get((point.key, point.timestamp, point.step), [point])
                yield from (MetricPoint.model_validate(one, from_attributes=True) for one in points)

    def _input(self, entry: DatasetInput) -> InputDataset:
        dataset = entry.dataset
        run_id, path = self._artifact_of(json.loads(dataset.source))
        return InputDataset(
            name=dataset.name,
            digest=dataset.digest,
            source_type=dataset.source_type,
            source=dataset.source,
            columns=dataset.schema,
            profile=dataset.profile,
            tags={tag.key: tag.value for tag in entry.tags},
            run_id=run_id,
            path=path,
        )

    def _artifact_of(self, source: Mapping[str, object]) -> tuple[str | None, str | None]:
        """Return id and path of the gathered run whose artifact a data set is; else None, None."""
        uri = str(source.get("uri") or source.get("url") or "")
        for run_id in self.runs:
            prefix = datasets.artifact_source(run_id, "")
            if run_id in uri and uri.startswith(prefix):
                return run_id, uri.removeprefix(prefix)
        return None, None

    def _model_record(self, model: LoggedModel, writer: ExportWriter) -> ModelRecord:
        files = add_files(str(model.artifact_location), writer)
        lost = [one for one in self.versions if one.model_id == model.model_id]
        if lost and MLMODEL not in files:
            raise UserError(
                f"{lost[0].name} version {lost[0].version} has lost its files here, so nobody "
                "could load it there. Import an export from before, or train it again."
            )
        return ModelRecord(
            model_id=model.model_id,
            origin=model.tags.get(tags.ORIGIN_MODEL, model.model_id),
            run_id=str(model.source_run_id),
            name=model.name,
            kind=model.model_type or None,
            tags=without_tags(model.tags, tags.ORIGIN_MODEL),
            params=model.params,
            files=files,
        )

    def _digests(self) -> dict[str, str]:
        """Return the digests of champions that these ended with, or were measured against."""
        tag_values = [run.data.tags for run in self.runs.values()]
        named = {(one.get(tags.MODEL_NAME), one.get(tags.CHAMPION_VERSION)) for one in tag_values}
        named |= {(one.name, one.tags.get(tags.MEASURED_AGAINST)) for one in self.versions}
        digests: dict[str, str] = {}
        for name, number in named:
            version = self._version(name, number) if name and number else None
            if version and (sha256 := version.tags.get(tags.MODEL_SHA256)):
                digests[f"{name}/{number}"] = sha256
        return digests


def without_tags(tag_values: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return tags without some, such as those that an import adds."""
    return {key: value for key, value in tag_values.items() if key not in names}


def add_files(uri: str, writer: ExportWriter) -> dict[str, str]:
    """Add all files under a URI, except what loading a model leaves there: path -> sha256."""
    files: dict[str, str] = {}
    for name in sorted(artifacts.list_files(uri)):
        if COMPILED not in name.split("/") and name != LOADED_NOTE:
            with artifacts.open_under(uri, name) as path:
                files[name] = writer.add(path)
    return files
