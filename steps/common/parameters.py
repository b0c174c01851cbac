"""Every parameter of every entry point, declared once.

There is a class per entry point; parameters of several are in a class that those share. Parsers and
their help, MLproject's blocks (`make contract`), the table in docs/parameters.md, step keys and
rerun commands are all derived from here.
"""

from pydantic import computed_field, field_validator

from steps.common.declaration import Parameters, param, run_id
from storage.uris import refuse_query
from taxi.spaces import SEARCH_ROWS, lag_of

MAX_SEED = 2**31 - 1_000  # numpy and xgboost take no larger one; boosters count up from the seed
ALL_STEPS = "all"


class MonthsParameters(Parameters):
    """Which kind of trips, and where their months are."""

    group = "months"
    taxi: str = param(
        "green",
        "kind of trips: `green` or `yellow` taxis, `fhvhv` (app rides: Uber, Lyft) or `fhv` (other "
        "cars for hire, without distances)",
    )
    source: str = param(
        "tlc",
        "`tlc` (the public files, downloaded once to a cache that all checkouts share), "
        "`simulated`, `simulated:<trips>:<seed>`, or a folder or URI (file, http, s3, gs) with "
        "files named as the TLC names them: parquet, csv, csv.gz; a folder may also have a "
        "subfolder of part files for a month, or `year=2021/month=01`; the TLC's two files of the "
        "zones may lie beside them; `env:<NAME>` reads the value from the environment",
        in_key=False,
    )

    @field_validator("source")
    @classmethod
    def _refuse_secret(cls, value: str) -> str:
        refuse_query(value, "The source", "the whole address in a variable: source=env:<NAME>")
        return value


class ReuseParameters(Parameters):
    """Whether existing results are reused."""

    group = Parameters.group
    reuse: bool = param(
        True,
        "reuse the results of finished steps, and months that are already cleaned; false runs "
        "everything again, and the search from its start",
        in_key=False,
    )


class ClusterParameters(Parameters):
    """Where work that can be distributed is done."""

    group = Parameters.group
    scheduler: str = param(
        "",
        "address of a Dask scheduler whose workers clean months, run trials, refit the model's "
        "boosters or score months; empty = this machine",
        in_key=False,
    )


class PreprocessParameters(ClusterParameters, ReuseParameters, MonthsParameters):
    """Parameters of preprocess."""

    entry_point = "preprocess"
    train_months: str = param(
        "2021-01",
        "months to fit on: `2021-01`, a list `2021-01,2021-03`, a range `2021-01..2021-06`",
        in_key=False,
    )
    valid_months: str = param("2021-02", "months to choose the model by (validation)", in_key=False)
    test_months: str = param(
        "next",
        "months that only register opens; `next` = the month after valid_months, empty = none",
        in_key=False,
    )


class SeedParameters(Parameters):
    """The seed of all randomness."""

    group = Parameters.group
    seed: int = param(42, "seed of every random choice", minimum=0, maximum=MAX_SEED)


class TrainingParameters(SeedParameters, PreprocessParameters):
    """Parameters of the steps that train on clean trips."""

    group = Parameters.group
    preprocess_run_id: str = run_id("preprocess", "to build on")


class ModelsParameters(Parameters):
    """Which baselines are fitted."""

    group = "baselines"
    models: str = param("all", "baselines to fit: `all`, or a list of names of taxi/baselines.py")

    @field_validator("models")
    @classmethod
    def _listed_once(cls, value: str) -> str:
        """Drop blanks and repeats, so that each spelling of a list makes the same key."""
        names = dict.fromkeys(name.strip() for name in value.split(","))
        return ",".join(name for name in names if name)


class BaselineParameters(ModelsParameters, TrainingParameters):
    """Parameters of baseline."""

    entry_point = "baseline"


class SearchParameters(ClusterParameters):
    """How a search goes."""

    group = "search"
    features: str = param("full", "feature set of the search: `course`, `compact` or `full`")
    search_space: str = param(
        "lossguide",
        "`lossguide`, `seed` (the course's own) or `course_best` (its best point, no search)",
    )
    max_evals: int = param(
        50,
        "trials in total, including those that an earlier run of the same search finished",
        minimum=1,
    )
    max_minutes: float = param(
        0.0, "start no trial after this many minutes; 0 = no limit", minimum=0
    )
    warm_start: bool = param(
        False,
        "also try the best points of the five latest searches with this space and these features, "
        "after the points that every search begins with",
    )
    half_life: float = param(
        8.0,
        "age of a train trip, in months before the latest train month, at which it weighs half; "
        "0 = all weigh the same",
        minimum=0,
    )
    search_rows: int = param(
        SEARCH_ROWS,
        "largest number of trips of train, and of valid, that the trials of the search see: a "
        "sample drawn with the seed; the model is trained on all trips. 0 = the trials see all",
        minimum=0,
        in_key=False,
    )
    parallelism: int = param(
        0,
        "trials at once; 0 = one per core (or thread of a worker), at most 8. Up to 8 the result "
        "does not depend on it",
        minimum=0,
        in_key=False,
    )
    device: str = param("cpu", "cpu or cuda")

    @computed_field(json_schema_extra={"in_key": True})  # type: ignore[prop-decorator]
    @property
    def lag(self) -> int:
        """How many trials back a suggestion looks: all that the result owes to parallelism."""
        return lag_of(self.parallelism)


class HpoParameters(SearchParameters, TrainingParameters):
    """Parameters of hpo."""

    entry_point = "hpo"


class ChoiceParameters(Parameters):
    """How a candidate is chosen and refitted."""

    group = "registration"
    refit: str = param(
        "train_valid",
        "what the chosen model is fitted to before it is tested: `train_valid`, which adds the "
        "latest months, or `train`, which leaves it as it was chosen",
    )
    refit_workers: int = param(
        0,
        "number of workers of `scheduler` that train each booster of the refit together, for trips "
        "that do not fit on one worker; the boosters depend on this number, and differ from those "
        "of one machine. 0 = one worker trains each booster",
        minimum=0,
    )
    judge_by: str = param(
        "metered",
        "kind of distance with which RMSE and R2 are measured to choose a candidate and judge it: "
        "`metered`, `planned` (off by 10 %) or `missing`",
    )


class CoverageParameters(Parameters):
    """How far off the intervals of a model may be."""

    group = Parameters.group
    max_coverage_gap: float = param(
        0.08,
        "largest difference between the share of trips that the 80 % interval covers and 80 %: on "
        "the test months, or in a scored month",
        minimum=0,
        maximum=1,
    )


class PipelineParameters(CoverageParameters, ChoiceParameters, HpoParameters, BaselineParameters):
    """Parameters of the entry points that lead to a registered model."""

    group = "registration"
    baseline_run_id: str = run_id("baseline", "whose models are candidates")
    hpo_run_id: str = run_id("hpo", "whose model is a candidate")
    model_name: str = param("nyc-taxi-duration", "registered model")
    test_only: bool = param(
        False, "true refits and tests the best candidate, but does not change the registry"
    )
    max_rmse: float = param(
        7.0, "largest RMSE on test, in minutes, that a champion may have", minimum=0
    )
    min_r2: float = param(0.5, "smallest R2 on test that a champion may have", minimum=-1)
    min_improvement: float = param(
        0.01, "minutes of test RMSE by which the champion must be beaten", minimum=0
    )
    max_slice_loss: float = param(
        0.05,
        "share by which RMSE may be significantly above the champion's on a slice of the test "
        "trips (hours, distances, airports, parts of town), or on the champion's own test months",
        minimum=0,
    )
    allow_simulated: bool = param(
        False, "true lets a model of simulated months replace a champion of real ones"
    )
    allow_dirty: bool = param(
        False, "true lets a model of uncommitted code replace a champion of committed code"
    )
    allow_slice_loss: bool = param(
        False, "true lets a model replace a champion that is significantly better on some slice"
    )


class RegisterParameters(PipelineParameters):
    """Parameters of register."""

    entry_point = "register"
    shared_in_key = frozenset({"seed"})  # register's bootstrap uses it too
    rollback: bool = param(False, "true only restores the previous champion", in_key=False)
    restore: str = param(
        "",
        "former champion version: only makes it champion again, even if it was rolled back",
        in_key=False,
    )


class StepsParameters(Parameters):
    """Which steps of a pipeline are run."""

    group = Parameters.group
    steps: str = param(
        ALL_STEPS,
        "part of the pipeline to run: `all`, or a list such as `preprocess,hpo`",
        in_key=False,
    )


class PlanParameters(Parameters):
    """Whether it is a dry run."""

    group = Parameters.group
    plan: bool = param(
        False, "true only says what would run, and why (dry run)", in_key=False, in_rerun=False
    )


class MainParameters(StepsParameters, PlanParameters, PipelineParameters):
    """Parameters of main."""

    entry_point = "main"


class SweepParameters(StepsParameters, PlanParameters, PipelineParameters):
    """Parameters of sweep."""

    entry_point, package = "sweep", "steps.pipelines"
    takes_lists = True


class JudgedMonthsParameters(MonthsParameters):
    """Which months are scored or judged, one by one."""

    months: str = param(
        "", "months to score, or to judge models on, in the format of `train_months`", in_key=False
    )


class BacktestParameters(
    PlanParameters,
    ChoiceParameters,
    SearchParameters,
    ModelsParameters,
    SeedParameters,
    ReuseParameters,
    JudgedMonthsParameters,
):
    """Parameters of backtest."""

    entry_point, package, group = "backtest", "steps.pipelines", "folds"
    window: int = param(
        3, "months that a fold's models are fitted on, before its valid month", minimum=1
    )
    horizon: int = param(
        3,
        "months that a fold's model is followed after its own test month, within `months`",
        minimum=0,
    )
    growing: bool = param(
        False, "true starts every window where that of the first fold starts, so that it grows"
    )
    folds_at_once: int = param(
        1,
        "folds whose pipelines run at the same time, for a cluster that one search does not fill",
        minimum=1,
        in_key=False,
    )
    against: str = param(
        "",
        "recipe to compare this one with, month by month: a backtest run, or a parameter file of "
        "what differs, which is then judged too",
        in_key=False,
    )


class ScoreParameters(CoverageParameters, ClusterParameters, JudgedMonthsParameters):
    """Parameters of score."""

    entry_point, group = "score", "scoring"
    model_uri: str = param(
        "models:/nyc-taxi-duration@champion",
        "model to score with: an alias, `models:/name/version`, or any other model URI",
        in_key=False,
    )
    live: str = param(
        "off",
        "`off`, or which trips adjust the predictions: `feed` (those that have ended so far, each "
        "known `feed_delay` minutes late) or `nightly` (those that ended before midnight)",
    )
    feed_delay: float = param(15.0, "minutes until a finished trip is known", minimum=0)
    live_state: str = param(
        "",
        "file or URI from which the live level is read if it exists, and to which it is written "
        "at the end, in the format that a model server reads; empty = none",
        in_key=False,
    )
    quantiles: str = param(
        "", "quantiles of the minutes to add as columns: 0.1,0.5,0.9 adds p10, p50 and p90"
    )
    output: str = param(
        "", "folder for the predictions; empty = the artifacts of the run", in_key=False
    )
    overwrite: bool = param(False, "true replaces existing predictions", in_key=False)
    fail_on_drift: bool = param(
        False, "true ends with exit code 3 if a month has drifted", in_key=False
    )
    max_psi: float = param(
        0.25, "population stability index above which a feature has drifted", minimum=0
    )
    max_unseen: float = param(
        0.05,
        "largest rise of the share of trips with an unseen zone or pair of zones, over that of "
        "valid, or without a usable distance, over that of the trips the model was fitted to",
        minimum=0,
    )
    max_rmse_rise: float = param(
        0.15, "share by which RMSE may be above the RMSE on the test months", minimum=0
    )


class VerifyParameters(SeedParameters):
    """Parameters of verify."""

    entry_point, package, group = "verify", "steps.pipelines", "verification"
    run_id: str = param("", "finished run of main to run again")
    sample: int = param(
        0, "number of random runs of main to run again, instead of run_id", minimum=0
    )
    month: str = param(
        "", "month, YYYY-MM, in which the runs of the sample began; empty = the last 30 days"
    )
    tracking_uri: str = param(
        "",
        "store of the runs, without a password; `env:<NAME>` reads it from the environment; empty "
        "= the store of this run",
    )
    env_manager: str = param(
        "uv", "what creates the fresh environment: `uv`, or `local`, which uses the current one"
    )


ENTRY_POINTS: dict[str, type[Parameters]] = {
    declared.entry_point: declared
    for declared in (
        PreprocessParameters,
        BaselineParameters,
        HpoParameters,
        RegisterParameters,
        MainParameters,
        SweepParameters,
        ScoreParameters,
        BacktestParameters,
        VerifyParameters,
    )
}
