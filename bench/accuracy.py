"""RMSE of the default search on the real months of three years, and of the course's recipe.

Everything is measured with the metered distance unless stated otherwise. With the live level the
same models are asked, as chosen or as registered, and a trip is known in the minute it ends.
"""

from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Run

from bench import DATA, Result, search_lab
from steps.common.results import RMSES
from storage.tracking import tags
from taxi.distances import DISTANCE_KINDS

MONTHS = {
    "2021": ("--train_months=2021-01", "--valid_months=2021-02"),
    "2022": ("--train_months=2022-01", "--valid_months=2022-02"),
    "2023": ("--train_months=2023-01", "--valid_months=2023-02"),
}
WITH_2022 = ("--train_months=2022-01,2022-02,2023-01", "--valid_months=2023-02")
COURSE = ("--features=course", "--search_space=course_best")
# without a live level, and with it
MUST = {"2021": ("5.02", "4.70"), "2022": ("4.48", "4.24"), "2023": ("3.90", "3.88")}
MUST_TEST = {"metered": "3.92", "planned_20": "4.45", "missing": "5.05"}
STEP = "tags.step = '{}'"
LIVE = ("--live=feed", "--feed_delay=0")


def measure() -> Iterator[Result]:
    """Run the pipeline with 50 trials and seed 42."""
    with search_lab.store() as uri:
        course = run_step(uri, "hpo", *MONTHS["2021"], "--test_months=", *COURSE)
        rmse = course.data.metrics["rmse"]
        yield Result("2021, the course's recipe: valid RMSE", f"{rmse:.3f} min", "6.318 +- 0.02")
    for year in ("2021", "2022"):
        with search_lab.store() as uri:
            run_step(uri, "hpo", *MONTHS[year], "--test_months=")
            yield from validated(uri, year)
    with search_lab.store() as uri:
        run_step(uri, "main", *MONTHS["2023"], "--models=mean")
        yield from validated(uri, "2023")
        yield from tested(uri, "2023-03, refitted on 01 and 02", MUST_TEST, "3.85")
    with search_lab.store() as uri:
        run_step(uri, "main", *WITH_2022, "--models=mean")
        yield from tested(uri, "2023-03, with 2022's months", {"metered": "3.85"}, "3.80")


def validated(uri: str, year: str) -> Iterator[Result]:
    """Yield the validation RMSE of the search in a store, without and with the live level."""
    rmse, (must, must_live) = read_run(uri, STEP.format("hpo")).data.metrics["rmse"], MUST[year]
    yield Result(f"{year}: valid RMSE", f"{rmse:.3f} min", must)
    found = read_run(uri, f"tags.{tags.MODEL} = 'xgboost' and tags.{tags.CANDIDATE} = 'true'")
    live = follow(uri, found, f"{year}-02")
    yield Result(f"{year}: valid RMSE, live", f"{live:.3f} min", must_live)


def tested(uri: str, what: str, must: dict[str, str], must_live: str) -> Iterator[Result]:
    """Yield the test RMSE with each kind of distance, and with the live level."""
    found = read_run(uri, STEP.format("register"))
    for kind, name in RMSES.items():
        rmse = found.data.metrics[tags.TEST.of(name)]
        yield Result(
            f"{what}: test RMSE, {DISTANCE_KINDS[kind]}", f"{rmse:.3f} min", must.get(kind, "")
        )
    live = follow(uri, found, "2023-03")
    yield Result(f"{what}: test RMSE, live", f"{live:.3f} min", must_live)


def follow(uri: str, found: Run, month: str) -> float:
    """Score a month with a run's model and the live level; return the RMSE, minutes."""
    model = f"--model_uri={found.data.tags[tags.MODEL_URI]}"
    scored = run_step(uri, "score", f"--months={month}", model, *LIVE)
    return float(scored.data.metrics["rmse"])


def run_step(uri: str, step: str, *arguments: str) -> Run:
    """Run a step on a store; return the step's latest run."""
    search_lab.run(uri, f"steps.{step}", f"--source={DATA}", *arguments)
    return read_run(uri, STEP.format(step))


def read_run(uri: str, such: str) -> Run:
    """Find the latest run that fits a filter."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, such)[0]
