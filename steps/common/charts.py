"""The CSS and scripts of a report, inlined so that it opens offline, and the link to it."""

from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from mlflow.entities import Run

from storage.tracking import pages, runs, tags

FOLDER = Path(__file__).parent
# only the parts of BokehJS that the charts need
LIBRARY = ("bokeh.min.js", "bokeh-api.min.js")
NO_LIBRARY = (
    "Charts: the package bokeh is not installed where this page was made, so it has their tables "
    "only. Run it in the locked environment: uv pip sync requirements.txt."
)


def link_report(run: Run) -> str:
    """Write the link to a run's report, for the page of that run."""
    link = pages.artifact_link(run.info.experiment_id, run.info.run_id, tags.REPORT)
    return f"[The report]({link})"


def describe_run(run: Run) -> str:
    """Say which run a report belongs to, so that a copy passed around can be traced back."""
    began = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    return (
        f"Run {run.info.run_id} of experiment {runs.experiment_name()}, begun "
        f"{began:%Y-%m-%d %H:%M} UTC by {run.data.tags[tags.DEVELOPER]}."
    )


def read_style() -> str:
    """Read the CSS of a report."""
    return (FOLDER / "report.css").read_text("utf-8")


def read_scripts() -> list[str]:
    """Read the scripts that draw the charts, library first; [] if Bokeh is not installed."""
    library = read_library()
    return [*library, (FOLDER / "report.js").read_text("utf-8")] if library else []


def read_library() -> list[str]:
    """Read BokehJS from the package bokeh, without the two seconds that importing it takes."""
    found = find_spec("bokeh")
    if not found or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0], "server", "static", "js")
    texts = ((folder / name).read_text("utf-8") for name in LIBRARY)
    return [text.partition("\n//# sourceMappingURL")[0] for text in texts]
