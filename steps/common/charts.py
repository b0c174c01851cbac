"""The look of a report, what draws its charts, and the link to it: the page opens offline."""

from importlib.util import find_spec
from pathlib import Path

from mlflow.entities import Run

from storage.tracking import tags

FOLDER = Path(__file__).parent
# the parts of BokehJS that charts need, and its file for all the rest stays out
LIBRARY = ("bokeh.min.js", "bokeh-api.min.js")
NO_LIBRARY = (
    "Charts: the package bokeh is not installed where this page was made, so it has their tables "
    "only. Run it in the locked environment: uv pip sync requirements.txt."
)


def link_report(run: Run) -> str:
    """Link the report on the page of the run that has it."""
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    return f"[The report]({page}/artifacts/{tags.REPORT})"


def read_style() -> str:
    """Read the CSS of a report."""
    return (FOLDER / "report.css").read_text("utf-8")


def read_scripts() -> list[str]:
    """Read what draws the charts, the library first; nothing where that is not installed."""
    library = read_library()
    return [*library, (FOLDER / "report.js").read_text("utf-8")] if library else []


def read_library() -> list[str]:
    """Read BokehJS, which lies in the package bokeh; importing that would take two seconds."""
    found = find_spec("bokeh")
    if not found or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0], "server", "static", "js")
    texts = ((folder / name).read_text("utf-8") for name in LIBRARY)
    return [text.partition("\n//# sourceMappingURL")[0] for text in texts]
