"""Open the test months once, for the best candidate, and register it as champion.

python -m steps.register --source=simulated --max_evals=10
"""

import argparse
from collections.abc import Sequence

import mlflow
from mlflow.entities import Run

from steps import entry_parser, step_run
from steps._candidates import load_trips, log_inputs
from steps._chain import Chain
from steps._given import refuse_typos
from storage import StorageError, models, runs
from taxi import evaluation
from taxi.model import write_frame

NO_TEST = (
    "register needs test months, and there are none. Pass -P test_months=YYYY-MM, or stop before "
    "register with -e hpo."
)


def build_parser() -> argparse.ArgumentParser:
    """Names and help; the defaults are MLproject's."""
    return entry_parser("register", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Gather this pipeline's candidates, choose on valid, score on test, register."""
    with step_run(build_parser(), argv) as args:
        refuse_early(args)
        preprocess, baseline, hpo = gather(args)
        best = choose([*runs.children(baseline.info.run_id), *runs.children(hpo.info.run_id)])
        scores = score_on_test(best, preprocess)
        version, is_new = models.register(
            best.data.tags["model_uri"],
            args.model_name,
            tags=version_tags(best, preprocess, scores),
            description=describe(best, preprocess, scores),
        )
        mlflow.set_tags({"model": name_of(best), "model_name": args.model_name, "version": version})
        done = "registered as" if is_new else "was already"
        print(
            f"{name_of(best)} {done} {args.model_name} version {version}, alias champion: "
            f"test rmse {scores['rmse']:.4f} min"
        )


def refuse_early(args: argparse.Namespace) -> None:
    """Look at everything typed before any upstream step starts."""
    refuse_typos(args)
    models.check_name(args.model_name)
    given = args.preprocess_run_id or args.baseline_run_id or args.hpo_run_id
    if not given and not args.test_months.strip():
        raise StorageError(NO_TEST)


def gather(args: argparse.Namespace) -> tuple[Run, Run, Run]:
    """Look up or make the runs whose models compete: preprocess, baseline and hpo.

    Raises:
        StorageError: a run cannot be used, or there are no test trips to judge by.
    """
    chain = Chain(args)
    base = chain.take("preprocess")
    if "sha256.test" not in base.data.tags:
        raise StorageError(NO_TEST)
    baseline, hpo = chain.take("baseline"), chain.take("hpo")
    chain.tag("register")
    return base, baseline, hpo


def choose(found: list[Run]) -> Run:
    """Pick the candidate with the smallest RMSE on valid.

    Raises:
        StorageError: no run among these logged a model.
    """
    candidates = [run for run in found if run.data.tags.get("candidate") == "true"]
    if not candidates:
        raise StorageError("No candidate model in the baseline and hpo runs. Run them again.")
    return min(candidates, key=lambda run: run.data.metrics["rmse"])


def score_on_test(best: Run, preprocess: Run) -> dict[str, float]:
    """Score the candidate on the test months, through the very model that will be served."""
    trips = load_trips(preprocess, "test")
    log_inputs(preprocess, {"test": "test"})
    predicted = models.load(best.data.tags["model_uri"]).predict(
        write_frame(trips, preprocess.data.tags["taxi"])
    )
    scores = evaluation.score(trips.trip_minutes, predicted)
    mlflow.log_metrics({f"test_{name}": value for name, value in scores.items()})
    mlflow.log_metric("rmse", best.data.metrics["rmse"])
    return scores


def version_tags(best: Run, preprocess: Run, scores: dict[str, float]) -> dict[str, str]:
    """Give what a reader of the registry needs to find the way back."""
    tags = preprocess.data.tags
    found = {key: tags[key] for key in tags if key.startswith(("months.", "sha256."))}
    found["git_commit"] = tags.get("mlflow.source.git.commit", "")
    found["git_dirty"] = tags["git_dirty"]
    found["model"] = name_of(best)
    found["pipeline_run_id"] = runs.active().data.tags.get("mlflow.parentRunId", "")
    found["rmse_valid"] = f"{best.data.metrics['rmse']:.6f}"
    found["rmse_test"] = f"{scores['rmse']:.6f}"
    return found


def describe(best: Run, preprocess: Run, scores: dict[str, float]) -> str:
    """Write the version's description: model, data, commit, metrics."""
    tags = preprocess.data.tags
    commit = tags.get("mlflow.source.git.commit", "none")
    dirty = ", with uncommitted changes" if tags["git_dirty"] == "true" else ""
    return "\n".join(
        (
            f"**{name_of(best)}** predicts the minutes of a {tags['taxi']} taxi trip.",
            "",
            f"- trained on {tags['months.train']}, chosen on {tags['months.valid']}, "
            f"tested on {tags['months.test']}",
            f"- RMSE {best.data.metrics['rmse']:.3f} min on valid, {scores['rmse']:.3f} on test; "
            f"MAE {scores['mae']:.3f}, R2 {scores['r2']:.3f} on test",
            "- `trip_distance` is the planned distance: the meter's is known only after the trip",
            f"- commit {commit}{dirty}",
        )
    )


def name_of(candidate: Run) -> str:
    """Name the kind of model a candidate run fitted."""
    return str(candidate.data.tags["model"])


if __name__ == "__main__":
    main()
