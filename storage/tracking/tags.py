"""Every tag, metric and artifact of a run that code writes or reads by name: each name once.

docs/architecture.md shows them as a table, which `make contract` writes from here.
"""

from collections.abc import Mapping


class Name(str):
    """A name in a run, with what it stands for and the modules that write and read it."""

    kind: str  # tag, metric, artifact
    meaning: str
    written_by: tuple[str, ...]  # modules
    read_by: tuple[str, ...]  # modules; nothing where it is there for people

    def __new__(cls, kind: str, name: str, meaning: str, written_by: str, read_by: str) -> "Name":
        """Declare a name; modules are separated by blanks."""
        self = super().__new__(cls, name)
        self.kind, self.meaning = kind, meaning
        self.written_by, self.read_by = tuple(written_by.split()), tuple(read_by.split())
        return self


class Family(Name):
    """The beginning of names that end in a split, a step or a score."""

    def of(self, end: str) -> str:
        """Name one of them: months.train."""
        return f"{self}{end}"

    def select(self, values: Mapping[str, str]) -> dict[str, str]:
        """Read the members of the family: train -> value."""
        return {name.removeprefix(self): values[name] for name in values if name.startswith(self)}


def tag(name: str, meaning: str, *, written_by: str = "", read_by: str = "") -> Name:
    """Declare a tag."""
    return Name("tag", name, meaning, written_by, read_by)


def tags(name: str, meaning: str, *, written_by: str = "", read_by: str = "") -> Family:
    """Declare tags that begin so."""
    return Family("tag", name, meaning, written_by, read_by)


def metrics(name: str, meaning: str, *, written_by: str = "", read_by: str = "") -> Family:
    """Declare metrics that begin so."""
    return Family("metric", name, meaning, written_by, read_by)


def metric(name: str, meaning: str, *, written_by: str = "", read_by: str = "") -> Name:
    """Declare a metric."""
    return Name("metric", name, meaning, written_by, read_by)


def artifact(name: str, meaning: str, *, written_by: str = "", read_by: str = "") -> Name:
    """Declare a file or folder of a run."""
    return Name("artifact", name, meaning, written_by, read_by)


# --- MLflow's own

PARENT = tag("mlflow.parentRunId", "the run above")
RUN_NAME = tag("mlflow.runName", "what the UI calls the run")
NOTE = tag("mlflow.note.content", "the run's page")
SOURCE = tag("mlflow.source.name", "where the project was run from")
SOURCES = tags("mlflow.source.", "which code ran")
COMMIT = tag("mlflow.source.git.commit", "commit of the code that ran")
REPOSITORY = tag("mlflow.source.git.repoURL", "its remote, without credentials")
ENTRY_POINT = tag("mlflow.project.entryPoint", "entry point that `mlflow run` was asked for")

# --- every run of a step

STEP = tag("step", "entry point that the run is of")
DEVELOPER = tag("developer", "who started it")
DIRTY = tag("git_dirty", "true where code ran that is in no commit")
FAILURE = tag("failure", "why the run came to nothing")
HOST = tag("process.host", "machine or container of the run's process")
PID = tag("process.id", "its process id")
STARTED = tag("process.started", "when that process started, seconds since 1970")
KEY = tag("step_key", "sha256 of what the step's result depends on")

# --- what a step hands over

TAXI = tag("taxi", "green or yellow")
DATA = tag("data", "real, or simulated where any month is")
MONTHS = tags("months.", "months of a split")
SHA256 = tags("sha256.", "sha256 of a split's trips")
ORIGIN = tag("source", "where the months came from, without credentials")
RUN_IDS = {
    step: tag(f"{step}_run_id", f"run of {step} that this one builds on or has made")
    for step in ("preprocess", "baseline", "hpo", "register")
}
CANDIDATE = tag("candidate", "true where the run logged a model that register may choose")
MODEL = tag("model", "kind of model: xgboost, or a baseline's name")
FEATURES = tag("features", "feature set of a candidate")
MODEL_URI = tag("model_uri", "URI of the logged model")
N_TRIPS = metrics("n_trips_", "trips kept of a split")

# --- the search

SEARCH_KEY = tag("search_key", "sha256 of what the trials of a search depend on")
SPACE_KEY = tag("space_key", "sha256 of search space and features, for warm starts")
WARM_START = tag("warm_start", "points of earlier searches that were tried first, JSON")
TRIAL = tag("trial", "number of a trial")
PRUNED = tag("pruned", "true where a trial was given up")
BEST_TRIAL = tag("best_trial", "number of the best trial")
BEST_POINT = tag("best_point", "its parameters, JSON")
CURVE = metric("rmse_by_round", "valid RMSE of a trial after each round, minutes")
N_TRIALS = metrics("n_trials_", "trials that finished, were pruned, failed, or were there already")

# --- register, and the versions of a registered model

MODEL_NAME = tag("model_name", "registered model")
VERSION = tag("version", "version that holds the candidate")
CHAMPION_VERSION = tag("champion_version", "version that is champion after the run; empty = none")
OUTCOME = tag("outcome", "promoted, refused, unchanged or rolled back")
REASONS = tag("reasons", "why, in one line")
MEASURED_AGAINST = tag("measured_against", "champion that a version was measured against")
ALLOWED = tag("allowed", "exceptions of the gate that somebody asked for")
IMPROVEMENT = tag("improvement", "minutes of test RMSE below the champion's")
IMPROVEMENT_INTERVAL = tag("improvement_interval", "its 95 % interval")
VERSION_COMMIT = tag("git_commit", "commit that a version's months were cleaned by")
PIPELINE = tag("pipeline_run_id", "pipeline that made a version")
RMSE_VALID = tag("rmse_valid", "a version's RMSE on its valid months, minutes")
RMSE_TEST = tag("rmse_test", "a version's RMSE on its test months, minutes")
MODEL_SHA256 = tag("model_sha256", "digest of a version's files")
ROLLED_BACK = tag("rolled_back", "when a version was taken out of use")
PROMOTION = tags("promotion.", "one change of the champion, JSON; of the registered model")
PROMOTING = tags("promoting.", "ticket of the lock, by run id; of the registered model")
TEST = metrics("test_", "a score on the test months")
CHAMPION_TEST = metrics("champion_test_", "the champion's score on the very same trips")

# --- main and score

REUSED = tag("reused", "steps whose result was there already")
RERUN = tag("rerun", "the command that repeats the pipeline")
SCORED_BY = tag("scored_by", "model that scored")
SCORED_MONTHS = tag("months", "months that were scored")
DRIFT = tag("drift", "true where a month has drifted; unknown where the model stores no profile")

# --- files

SPLITS = artifact("data", "folder of the clean trips, a parquet file per split")
PROFILES = artifact("profile.json", "what train and valid trips look like")
PROFILE_PICTURE = artifact("profile.png", "the same as a picture")
MONTHS_TABLE = artifact("months.csv", "months with source, sha256, rows kept and dropped")
TRIALS_TABLE = artifact("trials.csv", "the search's trials")
IMPORTANCE_PICTURE = artifact("importance.png", "what the model looks at")
KEY_FILE = artifact("step_key.json", "what the step key was made of")
OUTPUTS = artifact("outputs.json", "what the step has written, so that a loss is noticed")
UNCOMMITTED = artifact("uncommitted.diff", "the code that is in no commit")
PREDICTIONS = artifact("predictions", "folder of scored months")
