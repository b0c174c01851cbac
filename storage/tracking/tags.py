"""Every tag, metric and artifact of a run that code writes or reads by name: each name once.

`make contract` writes them as a table into docs/architecture.md, and finds the files that read each
name in the code.
"""

from collections.abc import Mapping
from typing import TypeVar

V = TypeVar("V")


class Name(str):
    """A name in a run, with what it stands for and the modules that write it."""

    kind: str  # tag, parameter, metric, artifact
    meaning: str
    # names of files: runs = storage/tracking/runs.py; empty if MLflow writes it
    writers: tuple[str, ...]

    def __new__(cls, kind: str, name: str, meaning: str, writers: str) -> "Name":
        """Declare a name; `writers` are separated by spaces."""
        self = super().__new__(cls, name)
        self.kind, self.meaning, self.writers = kind, meaning, tuple(writers.split())
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle as plain text, for workers."""
        return str, (str(self),)


class Family(Name):
    """A prefix of names that end in a split, a step or a score."""

    def of(self, end: str) -> str:
        """Return one name of the family: months.train."""
        return f"{self}{end}"

    def select(self, values: Mapping[str, V]) -> dict[str, V]:
        """Select the members of the family, by their endings: train -> value."""
        return {name.removeprefix(self): values[name] for name in values if name.startswith(self)}


def tag(name: str, meaning: str, writers: str = "") -> Name:
    """Declare a tag."""
    return Name("tag", name, meaning, writers)


def tags(name: str, meaning: str, writers: str = "") -> Family:
    """Declare the prefix of a family of tags."""
    return Family("tag", name, meaning, writers)


def metrics(name: str, meaning: str, writers: str = "") -> Family:
    """Declare the prefix of a family of metrics."""
    return Family("metric", name, meaning, writers)


def metric(name: str, meaning: str, writers: str = "") -> Name:
    """Declare a metric."""
    return Name("metric", name, meaning, writers)


def params(name: str, meaning: str, writers: str = "") -> Family:
    """Declare the prefix of a family of logged parameters."""
    return Family("parameter", name, meaning, writers)


def artifact(name: str, meaning: str, writers: str = "") -> Name:
    """Declare a file or folder of a run."""
    return Name("artifact", name, meaning, writers)


# --- MLflow's own

PARENT = tag("mlflow.parentRunId", "the parent run", "trials")
RUN_NAME = tag("mlflow.runName", "what the UI calls the run", "runs fork_server launching")
NOTE = tag(
    "mlflow.note.content",
    "the page of a run, or of the experiment: the first line is the verdict",
    "closing experiments importing refit results runs search",
)
VIEW = tags(
    "mlflow.sharedViewState.", "a view of the experiment's runs, JSON; by its name", "experiments"
)
PROJECT_URI = tag("mlflow.source.name", "where the project was run from", "runs")
CODE = tags("mlflow.source.", "which code ran", "")
COMMIT = tag("mlflow.source.git.commit", "commit of the code that ran", "runs")
REPOSITORY = tag("mlflow.source.git.repoURL", "its remote, without credentials", "runs")
ENTRY_POINT = tag("mlflow.project.entryPoint", "entry point that `mlflow run` was asked for", "")

# --- every run of a step

STEP = tag("step", "entry point that the run is of", "candidates runs")
DEVELOPER = tag("developer", "who started it", "register runs")
MACHINE = tag("machine", "processor and system that it ran on", "runs")
DIRTY = tag(
    "git_dirty",
    "true if uncommitted code ran, unknown if git cannot tell the state of the code",
    "register runs",
)
FAILURE = tag("failure", "why the run failed", "closing interrupted")
HOST = tag(
    "process.host",
    "where its process id is unique: machine, or container",
    "processes",
)
PID = tag("process.id", "its process id", "processes")
STARTED = tag("process.started", "when that process started, seconds since 1970", "processes")
HEARTBEAT = tag(
    "process.heartbeat", "last sign of life of that process, seconds since 1970", "heartbeat"
)
CONFIG = artifact("config.yaml", "the parameter file that was given", "step")
FROM_CONFIG = params("config.", "a parameter's value that follows from that file", "step")
KEY = tag("step_key", "sha256 of what the step's result depends on", "reuse")

# --- what came from another store

ORIGIN_RUN = tag("origin.run_id", "id of an imported run in the store where it ran", "importing")
ORIGIN_STORE = tag("origin.store", "the store that it ran in, without credentials", "importing")
IMPORTING = tags("importing.", "ticket of an import's lock; of the experiment", "registry_lock")
IMPORTED = tag(
    "origin.imported",
    "whole, or part if not all runs below it came along; no tag yet = the import is unfinished",
    "importing",
)
WHOLE, PART = "whole", "part"
ORIGIN_MODEL = tag(
    "origin.model_id",
    "id of an imported model in the store where it was made; of the model",
    "importing",
)
ORIGIN_VERSION = tag(
    "origin.version", "version and store that an imported version came from", "versions"
)
ORIGIN_PROMOTIONS = tag(
    "origin.promotions", "how it became champion there, JSON; of the version", "versions"
)

# --- what a step hands over

TAXI = tag("taxi", "kind of trips, as in the parameter", "backtest candidates results score")
DATA = tag("data", "real, or simulated if any month is", "results")
MONTHS = tags("months.", "months of a split", "candidates results")
SHA256 = tags("sha256.", "sha256 of a split's trips", "results")
CITY = tag(
    "city",
    "sha256 of the TLC's data on the city's zones; none if their map is only learned",
    "results",
)
CLEANED = tags(
    "cleaned.", "sha256 of what the cleaning of a month depends on; by the month", "preprocess"
)
ODD_MONTHS = tag(
    "odd_months",
    "what is implausible about a month, given the one before it or its split, a line each",
    "preprocess",
)
MONTHS_SOURCE = tag("source", "where the months came from, without credentials", "results")
RUN_IDS = {
    step: tag(
        f"{step}_run_id",
        f"run of {step} that this one builds on or has made",
        "candidates inputs main pipeline register",
    )
    for step in ("preprocess", "baseline", "hpo", "register")
}
CANDIDATE = tag("candidate", "true if the run logged a model that register may choose", "results")
MODEL = tag(
    "model",
    "kind of model: xgboost, or a baseline's name",
    "baseline candidates evaluate hpo refit register results",
)
FEATURES = tag("features", "feature set of a candidate", "baseline candidates hpo refit")
PARENT_MODEL = tag(
    "parent_model", "logged model that a model is the refit of; of the model", "candidates"
)
MODEL_URI = tag("model_uri", "URI of the logged model", "refit registry results")
ESTIMATOR_NAME = tag("estimator_name", "sklearn's class, as autolog names it", "baseline")
ESTIMATOR_CLASS = tag("estimator_class", "the same with its module", "baseline")
BOUNDED = tag(
    "bounded", "number of train trips that a baseline was fitted on, if not all", "baseline"
)
N_TRIPS = metrics("n_trips_", "trips kept of a split", "preprocess")
RMSE_WITH = metrics(
    "rmse_",
    "RMSE, minutes, without a distance (missing) or with one planned to 10 or 20 % (planned_10, "
    "planned_20); rmse alone is with the metered one",
    "results",
)

# --- the search

SEARCH_KEY = tag("search_key", "sha256 of what the trials of a search depend on", "search trials")
SPACE_KEY = tag("space_key", "sha256 of search space and features, for warm starts", "search")
WARM_START = tag(
    "warm_start",
    "points of earlier searches that were tried before TPE suggested any, JSON",
    "search",
)
TRIAL = tag("trial", "number of a trial", "trials")
PRUNED = tag("pruned", "true if a trial was pruned", "search")
BEST_TRIAL = tag("best_trial", "number of the best trial", "search")
BEST_POINT = tag("best_point", "its parameters, JSON", "search")
CURVE = metric("rmse_by_round", "valid RMSE of a trial after each round, minutes", "trials")
N_TRIALS = metrics(
    "n_trials_", "trials that finished, were pruned, failed, or were there already", "search"
)

# --- register, and the versions of a registered model

MODEL_NAME = tag("model_name", "registered model", "results")
VERSION = tag("version", "version that holds the candidate", "results")
CHAMPION_VERSION = tag(
    "champion_version", "version that is champion after the run; empty = none", "results"
)
OUTCOME = tag("outcome", "promoted, refused, unchanged, tested or rolled back", "register results")
REASONS = tag("reasons", "why, in one line", "register results")
MEASURED_AGAINST = tag(
    "measured_against", "champion that a version was measured against", "register"
)
ALLOWED = tag("allowed", "checks of the gate that were waived on request", "register")
JUDGED_BY = tag(
    "judged_by",
    "distance that the gate judged a version with: metered, planned_10, missing",
    "register",
)
IMPROVEMENT = tag(
    "improvement", "minutes of test RMSE below the champion's, with that distance", "register"
)
IMPROVEMENT_INTERVAL = tag("improvement_interval", "its 95 % interval", "register")
VERSION_COMMIT = tag("git_commit", "commit of the code that trained a version", "register")
PIPELINE = tag("pipeline_run_id", "pipeline that made a version", "register")
RMSE_VALID = tag(
    "rmse_valid", "a version's RMSE on its valid months with metered distance, minutes", "register"
)
RMSE_TEST = tag(
    "rmse_test", "a version's RMSE on its test months with metered distance, minutes", "register"
)
MODEL_SHA256 = tag("model_sha256", "digest of a version's files", "registry")
ROLLED_BACK = tag("rolled_back", "when a version was rolled back", "registry")
PROMOTION = tags(
    "promotion.", "one change of the champion, JSON; of the registered model", "registry"
)
PROMOTING = tags(
    "promoting.", "ticket of the lock, by run id; of the registered model", "registry_lock"
)
TEST = metrics("test_", "a score on the test months", "evaluate")
CHAMPION_TEST = metrics("champion_test_", "the champion's score on the same trips", "evaluate")

# --- main and score

REUSED = tag("reused", "steps whose result was reused, or none", "main")
REPORT = artifact(
    "report.html", "the whole pipeline, or backtest, on one page, offline", "report backtest"
)
RERUN = tag("rerun", "the command that repeats the pipeline", "main")
BEST_RUN = tag("best_run_id", "pipeline of the point that is best on valid", "sweep")
SWEEP_TABLE = artifact("sweep.csv", "the points of a sweep, best first", "sweep")
SWEEP_PICTURE = artifact("sweep.png", "the same as a picture", "sweep")
VERIFIED = tag(
    "verified",
    "result of running it again: identical, differs, or why it was not run; of the pipeline, and "
    "of the run that verified it",
    "verify",
)
VERIFIED_BY = tag("verified_by", "run that verified a pipeline, and when", "verify")
VERIFIED_RUNS = tag("verified_runs", "pipelines that a run has verified", "verify")
VERIFY_TABLE = artifact(
    "verify.csv",
    "both results of a pipeline, a row for each of its runs, with the largest difference",
    "verify",
)
SCORED_BY = tag("scored_by", "model that scored", "score")
SCORED_MONTHS = tag("months", "months that were scored", "score")
LIVE = tag(
    "live", "off, or the feed of ended trips that was followed: `feed, 15 min late`", "score"
)
DRIFT = tag(
    "drift",
    "true if a month has drifted; unknown if the model stores no profile",
    "preparation score",
)

# --- metrics that are logged by name

TEST_COVERAGE = metric(
    "test_coverage", "share of the test trips within the 80 % interval", "coverage"
)
BEST_RMSE = metric("best_rmse", "valid RMSE of the best trial so far, minutes", "search")
SEARCH_GAIN = metric("search_gain", "what the search gained over its first point, minutes", "hpo")
SEED_NOISE = metric("seed_noise", "effect of another seed on that point, minutes", "hpo")
N_SEEN = metrics("n_seen_", "trips of a split that trials saw, if they saw a sample", "sample")
SAMPLE_COST = metric(
    "sample_cost",
    "valid RMSE of the chosen points trained on the sample that trials saw, minus that of the same "
    "points trained on all train trips, minutes",
    "sample",
)
PSI = metric("psi", "largest population stability index of a scored month", "score")
RMSE_IMPROVEMENT = metrics(
    "improvement",
    "minutes of test RMSE below the champion's, as judge_by asks; its interval",
    "evaluate",
)
BEST_ROUND = metric("best_round", "best round of a trial, from 0", "search")
N_ROUNDS = metric("n_rounds", "rounds that a trial ran", "search")
TRAIN_SECONDS = metric("train_seconds", "how long a trial trained", "search")
N_ROWS = metric("n_rows", "rows of a scored month", "score")
N_PREDICTED = metric("n_predicted", "rows of it that have a prediction", "score")
N_ELIGIBLE = metric("n_eligible", "rows of it on which errors are measured", "score")
N_LIVE = metric("n_live", "rows of it whose prediction has a live level", "score")
RMSE_BASE = metric("rmse_base", "RMSE of a scored month without the live level, minutes", "score")
RMSE_ESTIMATED = metrics(
    "rmse_estimated",
    "RMSE of a scored month, estimated without its drop-offs, minutes; its 95 % interval",
    "record score",
)
COVERAGE = metric("coverage", "share of its trips within the 80 % interval", "score")
SHARE_WITHIN = metrics(
    "share_within_",
    "share of a scored month's trips that took no longer than a quantile, such as p10",
    "score",
)
ESTIMATE_ERROR = metric(
    "rmse_estimate_error",
    "share by which that estimate was too high, once the drop-offs are known",
    "record score",
)

# --- what it cost, where MLflow shows system metrics

SYSTEM = metrics("system/", "resources that a run used: they differ from run to run", "")
WALL_SECONDS = metric("system/wall_seconds", "seconds that a step or trial took", "cost search")
CPU_SECONDS = metric(
    "system/cpu_seconds", "CPU seconds of it, and of what it started on this machine", "cost search"
)
PEAK_MEMORY = metric(
    "system/peak_memory_megabytes",
    "peak memory of its process, or of one that it started, until then",
    "cost search",
)

# --- files

SPLITS = artifact("data", "folder of the clean trips, a parquet file per split", "preprocess")
PROFILES = artifact("profile.json", "what train and valid trips look like", "preprocess")
PROFILE_PICTURE = artifact("profile.png", "the same as a picture", "preprocess")
MONTHS_TABLE = artifact(
    "months.csv", "months with source, sha256, rows kept and dropped", "preprocess score"
)
CITY_FILE = artifact("city.json", "the zones: names, boroughs, centroids, outlines", "preprocess")
CITY_PICTURE = artifact("trips_by_zone.png", "trips by pickup zone, as a map", "preprocess")
TRIALS_TABLE = artifact("trials.csv", "the search's trials", "search")
CURVES_TABLE = artifact("learning_curves.csv", "valid RMSE of the trials by round", "search")
IMPORTANCE_PICTURE = artifact("importance.png", "what the model looks at", "hpo")
KEY_FILE = artifact("step_key.json", "what the step key was made of", "reuse")
OUTPUTS = artifact(
    "outputs.json", "what the step has written, so that lost files are noticed", "reuse"
)
UNCOMMITTED = artifact("uncommitted.diff", "the uncommitted changes of the code", "runs")
PREDICTIONS = artifact("predictions", "folder of scored months", "month")
GROUPS_TABLE = artifact(
    "errors_by_group.csv",
    "errors by hour, distance and zone; of register, on the test months",
    "candidates",
)
BREAKDOWN = artifact(
    "errors.json", "errors by day and by zone, residuals and calibration", "candidates"
)
ERRORS_MAP = artifact("errors_by_zone.png", "errors on valid, on the map of the city", "hpo")
EVALUATION_PICTURE = artifact(
    "evaluation.png", "residuals, calibration, errors by group", "candidates"
)
RELIABILITY_PICTURE = artifact(
    "reliability.png",
    "levels of the quantiles, and the shares of trips that were within",
    "candidates",
)
LEADERBOARD = artifact("leaderboard.csv", "the baselines, best first", "baseline")
SEARCH_PICTURE = artifact("search.png", "the trials' RMSE over time", "search")
PARALLEL_PICTURE = artifact(
    "parallel_coordinates.png", "the trials across their parameters", "search"
)
PARAMETER_PICTURE = artifact("parameter_importance.png", "which parameters mattered", "search")
BOOSTERS_TABLE = artifact("boosters.csv", "the boosters of the model", "ensemble")
RECIPE = artifact("recipe.json", "how a candidate was fitted", "baseline hpo refit")
IMPORTANCE_TABLE = artifact("importance.csv", "what the model looks at", "hpo")
PREPROCESSOR = artifact(
    "preprocessor/preprocessor.json", "the encoder by itself, as the course saves it", "hpo"
)
NATIVE_MODEL = artifact("models_mlflow", "the first booster by itself, an MLflow model", "hpo")
COVERAGE_TABLE = artifact(
    "coverage.csv", "share of test trips within the 80 % interval, by group", "coverage"
)
GATE_TABLE = artifact("gate.csv", "the checks of the gate: values found and required", "register")
CARD = artifact("model_card.html", "the model card as a page", "card")
ANSWER = tag("answer", "how often to retrain, in a sentence", "backtest")
MEAN_RMSE = metric("mean_rmse", "mean over the months of fresh models' RMSE, minutes", "backtest")
BESIDE_RMSE = metrics(
    "beside_rmse.", "RMSE by month of a model compared with the chosen one", "backtest"
)
RISE = metric("rise_by_age", "share by which RMSE is above a fresh model's; by age", "backtest")
AGAINST = metrics(
    "against.", "minutes of RMSE above another recipe's, and the 95 % interval", "other_recipe"
)
AGAINST_FILE = artifact("against.yaml", "the parameter file of that recipe", "other_recipe")
BACKTEST_TABLE = artifact(
    "backtest.csv", "errors of each fold's models by month, with intervals", "backtest"
)
AGEING_TABLE = artifact("ageing.csv", "what ageing costs, by the model's age", "backtest")
BACKTEST_PICTURE = artifact("backtest.png", "the same as a picture", "backtest")
DAYS_TABLE = artifact("by_day.csv", "RMSE of the scored months by day", "score")
WORST_TABLE = artifact(
    "worst_trips.csv",
    "the trips whose predictions are furthest off: of a candidate on valid, of register on test",
    "candidates record",
)
DRIFT_TABLE = artifact("drift.csv", "how far the scored months have drifted", "score")
DRIFT_PICTURE = artifact("drift.png", "the same as a picture", "score")
DRIFT_MAP = artifact(
    "drift_by_zone.png", "where more trips begin than of the fitted trips, as a map", "record"
)
