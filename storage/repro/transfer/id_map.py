"""The ids of runs, models and versions of one store mapped to those of another, in texts too."""

import json
import re
from collections.abc import Mapping

from mlflow.entities import Experiment

from storage.repro.transfer.export_file import COMPILED

RUN_PAGE = re.compile(r"experiments/\d+/runs/([0-9a-f]{32})")
ID = re.compile(r"(?<![0-9a-zA-Z])(?:m-[0-9a-f]{32}|[0-9a-f]{32}|[0-9a-f]{64})(?![0-9a-zA-Z])")
SHORT = re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{8}(?=…)")  # as people see it
LOCATION = re.compile(r"^artifact_path: \S.*$", re.MULTILINE)  # in MLmodel


class IdMap:
    """Ids in the exporting store -> ids in this store, as far as they are known."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment.name  # where new runs go
        self.experiment_id = experiment.experiment_id
        self.ids: dict[str, str] = {}  # of runs and models, and keys of steps
        self.versions: dict[tuple[str, str], str] = {}  # name, number there -> number here

    def text(self, text: str) -> str:
        """Return a text with the ids of this store."""
        text = RUN_PAGE.sub(self._page, text)
        short = {old[:8]: new[:8] for old, new in self.ids.items()}
        text = SHORT.sub(lambda found: short.get(found[0], found[0]), text)
        return ID.sub(lambda found: self.ids.get(found[0], found[0]), text)

    def _page(self, found: re.Match[str]) -> str:
        is_here = found[1] in self.ids
        return f"experiments/{self.experiment_id}/runs/{found[1]}" if is_here else found[0]

    def tags(self, tag_values: Mapping[str, str]) -> dict[str, str]:
        """Return tags, or other values by name, with the ids of this store."""
        return {key: self.text(value) for key, value in tag_values.items()}

    def mlmodel(self, text: str, location: str) -> str:
        """Return the text of MLmodel with the ids of this store and the model's location here."""
        return LOCATION.sub(lambda _: f"artifact_path: {location}", self.text(text))

    def outputs(self, text: str, grown: Mapping[str, int]) -> str:
        """Return the outputs of a step with the ids and file sizes of this store.

        Args:
            text: content of the artifact that lists them.
            grown: file -> bytes by which it is longer here.
        """
        sizes = {
            self.text(name): size
            for name, size in json.loads(text).items()
            if COMPILED not in name.split("/")
        }
        new = {
            name: size if size is None else size + grown.get(name, 0)
            for name, size in sizes.items()
        }
        return json.dumps(new, indent=1, sort_keys=True)
