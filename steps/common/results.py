"""Results that a step hands to the next: typed records, written to runs and read back only here."""

from collections.abc import Mapping
from typing import NamedTuple

import mlflow
from mlflow.entities import Run

from storage import UserError
from storage.data import splits
from storage.tracking import artifacts, runs, tags
from taxi.backtest import DayErrors
from taxi.distances import DISTANCE_KINDS, METERED


def rmse_name(kind: str) -> str:
    """Name the RMSE metric for a kind of distance in taxi.distances.DISTANCE_KINDS."""
    return "rmse" if kind == METERED else tags.RMSE_WITH.of(kind)


RMSES = {kind: rmse_name(kind) for kind in DISTANCE_KINDS}
# on the validation trips: of a candidate, and of a step, whose scores are its best candidate's
SCORES = (*RMSES.values(), "mae", "r2")
TEST_SCORES = tuple(tags.TEST.of(score) for score in SCORES)
# the gain and its interval's ends
IMPROVEMENT_METRICS = tuple(map(tags.RMSE_IMPROVEMENT.of, ("", "_low", "_high")))
NO_CITY = "none"
SIMULATED, REAL = "simulated", "real"
TRAINING_STEPS = ("baseline", "hpo")  # steps whose models are candidates
LEARNING_SPLITS = ("train", "valid")  # splits that a model is fitted on or chosen on


class Dataset(NamedTuple):
    """The clean trips of a pipeline, recorded on every run that reads them."""

    taxi: str
    is_simulated: bool  # true if any month is
    source: str  # of the months, without credentials
    months: dict[str, list[str]]  # split -> YYYY-MM
    sha256: dict[str, str]  # split -> sha256 of its trips
    city: str = ""  # sha256 of the city's zones; empty if the map is learned from trips alone

    @property
    def has_test(self) -> bool:
        """Whether there are trips to judge a champion by."""
        return "test" in self.sha256

    @property
    def learned_from(self) -> dict[str, str]:
        """The content that a model depends on; test months are not part of it."""
        return {
            "taxi": self.taxi,
            "train": self.sha256["train"],
            "valid": self.sha256["valid"],
            "city": self.city or NO_CITY,
        }

    def parameters(self) -> dict[str, str]:
        """Return the parameters that name these trips."""
        months = {f"{split}_months": ",".join(self.months.get(split, ())) for split in splits.NAMES}
        return {"taxi": self.taxi, **({"source": self.source} if self.source else {}), **months}

    def tags(self) -> dict[str, str]:
        """Return it as tags of a run."""
        return {
            tags.TAXI: self.taxi,
            tags.DATA: SIMULATED if self.is_simulated else REAL,
            tags.MONTHS_SOURCE: self.source,
            tags.CITY: self.city or NO_CITY,
            **{tags.MONTHS.of(split): ",".join(names) for split, names in self.months.items()},
            **{tags.SHA256.of(split): digest for split, digest in self.sha256.items()},
        }


class Code(NamedTuple):
    """The code that a run ran."""

    commit: str  # empty if there is none
    is_dirty: bool  # some of it is uncommitted, or it is unknown whether it is


class PreprocessResult(NamedTuple):
    """The result of preprocess."""

    run_id: str
    dataset: Dataset
    code: Code
    metrics: dict[str, float]  # n_trips_<split>, repeated on the pipeline's run
    odd_months: list[str]  # what is implausible about its months, one line each

    @property
    def n_learned_from(self) -> dict[str, int]:
        """The number of trips that a model depends on: split -> trips, 0 if not recorded."""
        counts = {split: self.metrics.get(tags.N_TRIPS.of(split), 0) for split in LEARNING_SPLITS}
        return {split: int(count) for split, count in counts.items()}


class Candidate(NamedTuple):
    """A model that register may choose."""

    run_id: str
    model: str  # its kind
    features: str
    model_uri: str
    scores: dict[str, float]  # those of SCORES that its run has, on valid
    code: Code


class TrainingResult(NamedTuple):
    """The result of baseline or hpo."""

    run_id: str
    preprocess_run_id: str
    dataset: Dataset
    model: str  # kind of its best candidate
    metrics: dict[str, float]  # its scores, and the best trial's
    candidates: list[Candidate]


class RegisterResult(NamedTuple):
    """The result of register."""

    run_id: str
    model_name: str  # empty, as is the version, if the model was only tested
    version: str
    champion_version: str  # empty if there is none
    reasons: str
    model: str
    metrics: dict[str, float]  # on the test months
    model_uri: str = ""  # of the model that was tested


class PipelineResult(NamedTuple):
    """The result of main: those of the steps that it chained."""

    run_id: str
    preprocess: PreprocessResult
    baseline: TrainingResult
    hpo: TrainingResult
    registered: RegisterResult | None  # None if there were no test months

    @property
    def candidates(self) -> list[Candidate]:
        """The models that register chose from."""
        return [*self.baseline.candidates, *self.hpo.candidates]


class ScoringResult(NamedTuple):
    """The result of score for months whose drop-offs are known."""

    run_id: str
    days: list[DayErrors]


# --- writing, each to the active run


def write_dataset(dataset: Dataset, extra_tags: Mapping[str, str] | None = None) -> None:
    """Record the trips that this run makes or reads, and further tags."""
    mlflow.set_tags({**dataset.tags(), **(extra_tags or {})})


def write_candidate(model_uri: str, note: str) -> None:
    """Record a model as a candidate for register, and write the run's page."""
    mlflow.set_tags({tags.CANDIDATE: "true", tags.MODEL_URI: model_uri, tags.NOTE: note})


def write_best(model: str, scores: Mapping[str, float]) -> None:
    """Record the kind and the scores of a step's best candidate."""
    mlflow.log_metrics(dict(scores))
    mlflow.set_tag(tags.MODEL, model)


def write_registration(
    *,
    model_name: str,
    version: str,
    champion_version: str,
    outcome: str,
    reasons: str,
    model_uri: str = "",
) -> None:
    """Record what was tested and registered, and which version is champion now."""
    mlflow.set_tags(
        {
            tags.MODEL_NAME: model_name,
            tags.VERSION: version,
            tags.CHAMPION_VERSION: champion_version,
            tags.OUTCOME: outcome,
            tags.REASONS: reasons,
            tags.MODEL_URI: model_uri,
        }
    )


# --- reading


def read_preprocess(run: Run) -> PreprocessResult:
    """Read the result of a finished run of preprocess."""
    dataset = read_dataset(run)
    counts = [tags.N_TRIPS.of(split) for split in dataset.sha256]
    return PreprocessResult(
        run_id=run.info.run_id,
        dataset=dataset,
        code=read_code(run),
        metrics=_metrics(run, *counts),
        odd_months=run.data.tags.get(tags.ODD_MONTHS, "").splitlines(),
    )


def read_training(run: Run) -> TrainingResult:
    """Read the result of a finished run of baseline or hpo.

    Raises:
        UserError: the child run of its best model is missing.
    """
    best = run.data.tags.get(tags.MODEL, "")
    below = runs.children(run.info.run_id)
    candidates = [_candidate(one) for one in below if tags.CANDIDATE in one.data.tags]
    if best and best not in [candidate.model for candidate in candidates]:
        raise UserError(
            f"No run of {best}, its best model, is below run {run.info.run_id}: somebody deleted "
            f"it, or what answers is not the store. Run {run.data.tags.get(tags.STEP, 'step')} "
            f"again, or restore it (`mlflow runs restore --run-id <id>`)."
        )
    return TrainingResult(
        run_id=run.info.run_id,
        preprocess_run_id=_tag(run, tags.RUN_IDS["preprocess"]),
        dataset=read_dataset(run),
        model=best,
        metrics=_metrics(run, *SCORES, tags.BEST_RMSE),
        candidates=candidates,
    )


def read_registration(run: Run) -> RegisterResult:
    """Read the result of a finished run of register."""
    return RegisterResult(
        run_id=run.info.run_id,
        model_name=_tag(run, tags.MODEL_NAME),
        version=_tag(run, tags.VERSION),
        champion_version=_tag(run, tags.CHAMPION_VERSION),
        reasons=_tag(run, tags.REASONS),
        model=_tag(run, tags.MODEL),
        metrics=_metrics(run, *TEST_SCORES, tags.CHAMPION_TEST.of("rmse"), *IMPROVEMENT_METRICS),
        model_uri=_tag(run, tags.MODEL_URI),
    )


def read_pipeline(run: Run) -> PipelineResult:
    """Read the result of a finished run of main."""
    done = {
        step: runs.finished(run.data.tags[name], step)
        for step, name in tags.RUN_IDS.items()
        if name in run.data.tags
    }
    return PipelineResult(
        run.info.run_id,
        read_preprocess(done["preprocess"]),
        read_training(done["baseline"]),
        read_training(done["hpo"]),
        read_registration(done["register"]) if "register" in done else None,
    )


def read_scoring(run: Run) -> ScoringResult:
    """Read the result of a finished run of score.

    Raises:
        UserError: no drop-off was known, so there are no errors to read.
    """
    if not artifacts.has_file(run.info.run_id, tags.DAYS_TABLE):
        raise UserError(
            f"Run {run.info.run_id} scored months without drop-offs, so it has no "
            f"{tags.DAYS_TABLE}. Score months whose trips have ended."
        )
    table = artifacts.read_table(run.info.run_id, tags.DAYS_TABLE)
    return ScoringResult(run.info.run_id, [DayErrors.read(row) for row in table])


def read_code(run: Run) -> Code:
    """Read which code a run ran; it counts as dirty unless it is recorded as committed."""
    commit = run.data.tags.get(tags.COMMIT, "")
    return Code(commit, not commit or run.data.tags.get(tags.DIRTY) != "false")


def _candidate(run: Run) -> Candidate:
    return Candidate(
        run_id=run.info.run_id,
        model=_tag(run, tags.MODEL),
        features=_tag(run, tags.FEATURES),
        model_uri=_tag(run, tags.MODEL_URI),
        scores=_metrics(run, *SCORES),
        code=read_code(run),
    )


def read_dataset(run: Run) -> Dataset:
    """Read which trips a run made or read."""
    months = tags.MONTHS.select(run.data.tags)
    sha256 = tags.SHA256.select(run.data.tags)
    recorded_splits = [split for split in splits.NAMES if split in sha256]
    return Dataset(
        taxi=_tag(run, tags.TAXI),
        is_simulated=_tag(run, tags.DATA) == SIMULATED,
        source=run.data.tags.get(tags.MONTHS_SOURCE, ""),
        months={split: months[split].split(",") for split in recorded_splits},
        sha256={split: sha256[split] for split in recorded_splits},
        city=run.data.tags.get(tags.CITY, "").removeprefix(NO_CITY),
    )


def _metrics(run: Run, *names: str) -> dict[str, float]:
    return {name: run.data.metrics[name] for name in names if name in run.data.metrics}


def _tag(run: Run, name: str) -> str:
    if name not in run.data.tags:
        step = run.data.tags.get(tags.STEP, "step")
        raise UserError(
            f"Run {run.info.run_id} has no tag {name}: another version of this project made it, or "
            f"it is of no step. Run {step} again."
        )
    return str(run.data.tags[name])
