"""Run the pipeline at every point of a grid, and name the point that is best on valid.

python -m steps.pipelines.sweep --config=experiments/sweep.yaml

No test month is opened: a sweep that tested each point would choose by them. The best point's own
pipeline, which the last line starts, tests it once.
"""

from collections.abc import Iterator, Mapping, Sequence

import mlflow
from mlflow.entities import Run

from steps.common import page
from steps.common.declaration import is_run_id
from steps.common.parameter_file import POINTS
from steps.common.parameters import (
    ALL_STEPS,
    ENTRY_POINTS,
    ChoiceParameters,
    HpoParameters,
    MainParameters,
    ModelsParameters,
    SweepParameters,
)
from steps.common.pipeline import Pipeline, selected_steps
from steps.common.results import TRAINING_STEPS, read_dataset, rmse_name, write_best
from steps.common.step import step_run
from steps.common.validate import check_pipeline
from steps.pipelines.nested import check_months, get_or_run_pipeline, plan_pipeline
from storage import UserError, terminal
from storage.tracking import artifacts, pages, runs, tags
from taxi.distances import select_distance_kind
from taxi.sweep import (
    SweptPoint,
    best_points,
    draw_sweep,
    name_point,
    parameter_grid,
    rank_points,
    sweep_table,
)

TEST_STEP = "register"
N_SHOWN_POINTS = 20  # points that a page shows
# parameters that change no model, or leave no two comparable
NOT_VARIED = ("reuse", "scheduler", "parallelism", "taxi", "source", "test_months")


def main(argv: Sequence[str] | None = None) -> None:
    """List the points, run or reuse the pipeline of each, log the table, name the best."""
    with step_run(SweepParameters, __doc__, argv) as params:
        points = name_points(read_points(params))
        pipelines = {name: point_params(params, values) for name, values in points.items()}
        check_points(params, pipelines)
        if params.plan:
            return page.report_plan(
                [f"{name}: {plan_pipeline(one)}" for name, one in pipelines.items()]
            )
        swept, score = [], rmse_name(select_distance_kind(params.judge_by))
        for number, (name, one) in enumerate(pipelines.items(), 1):
            print(f"point {number} of {len(pipelines)}: {name}")
            run = get_or_run_pipeline(one, name=name)
            swept.append(read_point(run, points[name], score))
            print(f"{name}: rmse {swept[-1].rmse:.4f} min, {swept[-1].model}")
        best, verdict = best_points(swept), sweep_verdict(swept)
        artifacts.log_table(sweep_table(swept), tags.SWEEP_TABLE)
        artifacts.log_figure(draw_sweep(swept, verdict.replace("**", "")), tags.SWEEP_PICTURE)
        if len(best) == 1:
            write_best(best[0].model, {score: best[0].rmse})
            mlflow.set_tag(tags.BEST_RUN, best[0].run_id)
        lines = [*advise_next(swept, pipelines), "", *sweep_rerun_lines(params)]
        text = "\n\n".join([verdict, points_table(swept), "\n".join(lines)])
        runs.write_page(text, f"{len(swept)} points · {best[0].rmse:.2f} min")
        terminal.print_table(["point", "rmse", "model"], point_rows(swept), n_texts=1, strong=0)
        terminal.print_page([verdict, "", *lines])


# --- the points


def read_points(params: SweepParameters) -> list[dict[str, str]]:
    """List the points that the parameter file describes.

    Raises:
        UserError: there are none, or a sweep cannot vary one of the parameters.
    """
    file = params.file
    if file is None:
        raise UserError("sweep needs a file with lists: pass -P config=<file>.")
    given = params.typed_names()
    # a typed value wins over a list too
    lists = {n: entry for n, entry in file.entries.items() if entry.is_list and n not in given}
    named = [*lists.items(), *(pair for point in file.points for pair in point.items())]
    for name, entry in named:
        if problem := why_not_varied(name, name in given):
            raise file.error(entry.line, problem)
    if both := [(n, entry) for point in file.points for n, entry in point.items() if n in lists]:
        name, entry = both[0]
        raise file.error(entry.line, f"{name} is a list and in {POINTS} too. Keep one.")
    points = [{name: entry.texts[0] for name, entry in point.items()} for point in file.points]
    found = parameter_grid({name: entry.texts for name, entry in lists.items()}, points)
    if found == [{}]:
        lacks = "no list but what was typed wins over" if file.has_lists else "no list"
        raise UserError(
            f"{file.path} has {lacks}, so there is nothing to sweep. Write one, such as "
            f"half_life: [4, 8], or {POINTS}: with a list of mappings; or run main."
        )
    return found


def name_points(found: Sequence[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Name the points after their values.

    Raises:
        UserError: two points have the same values.
    """
    points: dict[str, dict[str, str]] = {}
    for values in found:
        if points.setdefault(name_point(values), values) is not values:
            raise UserError(f"The point {name_point(values)} is there twice. Keep one.")
    return points


def why_not_varied(name: str, is_given: bool) -> str:
    """Say why a sweep cannot vary a parameter; empty if it can."""
    varied = {*HpoParameters.model_fields, *ModelsParameters.model_fields}
    if is_given:
        return f"{name} is in {POINTS} and on the command line. Keep one."
    if name not in MainParameters.model_fields:
        takers = [step for step, one in ENTRY_POINTS.items() if name in one.model_fields]
        return f"{name} is a parameter of {', '.join(takers)}, and a sweep runs main."
    if name == "steps":
        return f"{name} cannot be swept: points compare the models that the same steps make."
    if is_run_id(name) or name in (*NOT_VARIED, tags.MODEL_NAME):
        return f"{name} cannot be swept: its points would be the same model, or not comparable."
    if name not in varied:
        kind = "chooses or judges" if name in ChoiceParameters.model_fields else "judges"
        return (
            f"{name} cannot be swept: it {kind} a model, and a sweep compares models on valid. "
            f"{TEST_STEP} opens the test months, once, for the best point alone."
        )
    return ""


def point_params(params: SweepParameters, values: dict[str, str]) -> MainParameters:
    """Return the parameters of the pipeline at a point; it opens no test months.

    Raises:
        UserError: the steps include register, or none that makes a model.
    """
    steps = selected_steps(params.steps)
    if params.steps != ALL_STEPS and TEST_STEP in steps:
        raise UserError(
            f"steps={params.steps}: a sweep leaves {TEST_STEP} out, which opens the test months. "
            f"Pass -P steps=all, which is all but {TEST_STEP} here, and start the best point's "
            "pipeline."
        )
    if not {*TRAINING_STEPS} & {*steps}:
        raise UserError(
            f"steps={params.steps} makes no model, and a sweep compares some. Add hpo or baseline."
        )
    base = MainParameters.of(params).launch_texts()
    trains = ",".join(step for step in steps if step != TEST_STEP)
    return MainParameters.model_validate({**base, "steps": trains, **values})


def check_points(params: SweepParameters, pipelines: Mapping[str, MainParameters]) -> None:
    """Check every point and that its months exist, before the first one runs.

    Raises:
        UserError, TripError: a point cannot be run, or two are the same.
    """
    check_distinct(pipelines)
    month_names: set[str] = set()
    for one in pipelines.values():
        check_pipeline(one)
        month_names |= {month for names in Pipeline(one).splits.values() for month in names}
    check_months(params.source, params.taxi, month_names)


def check_distinct(pipelines: Mapping[str, MainParameters]) -> None:
    """Refuse two points that are written differently and mean the same.

    Raises:
        UserError: two have the same parameters; names both.
    """
    names: dict[str, str] = {}
    for name, params in pipelines.items():
        same = names.setdefault(str(params.texts()), name)
        if same != name:
            raise UserError(f"The points {same} and {name} are the same. Keep one.")


def read_point(run: Run, values: dict[str, str], score: str) -> SweptPoint:
    """Read the result of the pipeline at a point."""
    metrics = run.data.metrics
    if score not in metrics:
        raise UserError(f"Run {run.info.run_id} made no model. Add hpo or baseline to steps.")
    hpo_id = run.data.tags.get(tags.RUN_IDS["hpo"])
    searched = runs.finished(hpo_id, "hpo").data.metrics if hpo_id else {}
    return SweptPoint(
        values,
        metrics[score],
        run.data.tags.get(tags.MODEL, ""),
        searched.get(score),
        searched.get(tags.SEED_NOISE),
        read_dataset(run).sha256["valid"],
        str(run.info.run_id),
    )


# --- the result


def sweep_verdict(swept: Sequence[SweptPoint]) -> str:
    """Name the best point, or say why there is none."""
    best, ranked = best_points(swept), rank_points(swept)
    if len(best) > 1:
        return f"**No best point**: errors on {len(best)} different sets of valid trips"
    behind = ""
    if ranked[1:]:
        gap = f"{ranked[1].rmse - best[0].rmse:.3f}"
        behind = ", as the next" if gap == "0.000" else f", {gap} below the next"
    text = f"{best[0].name} is best of {len(swept)}: RMSE {best[0].rmse:.3f} min on valid"
    return f"**{text}{behind}**"


def advise_next(swept: Sequence[SweptPoint], pipelines: dict[str, MainParameters]) -> Iterator[str]:
    """Say how large a difference counts, and what to do next."""
    for point in best_points(swept):
        if point.noise is not None:
            yield (
                f"Another seed of its search changes that by {point.noise:.3f} min: smaller "
                "differences are noise."
            )
        whole = pipelines[point.name].model_copy(update={"steps": ALL_STEPS})
        yield (
            "No test month was opened. The best of many looks better on valid than it is; this "
            "tests and registers it, once:"
        )
        yield ""
        yield page.as_code(page.rerun_command(whole))


def sweep_rerun_lines(params: SweepParameters) -> list[str]:
    """Say how to run the sweep again, or resume it."""
    command = page.as_code(page.rerun_command(params))
    lines = ["Run it again (what has finished is reused):", "", command]
    if params.file and not params.file.committed:
        lines += ["", *page.describe_uncommitted_file(tags.CONFIG)]
    return lines


def point_rows(swept: Sequence[SweptPoint]) -> list[list[str]]:
    """Return the rows of the table of points, best first."""
    return [[point.name, f"{point.rmse:.4f}", point.model] for point in rank_points(swept)]


def points_table(swept: Sequence[SweptPoint]) -> str:
    """Tabulate the best points for the page."""
    experiment_id = runs.active_info().experiment_id
    links = [pages.run_link(experiment_id, point.run_id) for point in rank_points(swept)]
    rows = [
        [f"[{name}]({link})", *cells]
        for (name, *cells), link in zip(point_rows(swept), links, strict=True)
    ]
    shown = page.to_table(["point", "RMSE on valid, min", "model"], rows[:N_SHOWN_POINTS])
    more = (
        f"\n\n{len(swept) - N_SHOWN_POINTS} more are in {tags.SWEEP_TABLE}."
        if len(swept) > N_SHOWN_POINTS
        else ""
    )
    return shown + more


if __name__ == "__main__":
    main()
