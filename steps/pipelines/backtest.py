"""Judge a recipe as it would have done: trained anew for each month, and followed as it ages.

python -m steps.pipelines.backtest --source=simulated --months=2021-06..2021-08 --horizon=1
"""

from collections.abc import Iterator, Sequence

import mlflow

from steps.common import charts, page
from steps.common.parameters import BacktestParameters, MainParameters, ScoreParameters
from steps.common.results import PipelineResult
from steps.common.step import locating_errors, step_run
from steps.common.validate import check_pipeline
from steps.pipelines import nested
from steps.pipelines.folds import Fold, age_at, make_folds
from steps.pipelines.other_recipe import (
    check_shared_months,
    compare_with,
    find_other_recipe,
    rerun_lines,
)
from storage import UserError
from storage.data import months
from storage.tracking import artifacts, pages, runs, tags
from taxi import backtest
from taxi.backtest import CHOSEN, COMPARED_BASELINES, MonthErrors, RmseRise, format_n_months
from taxi.backtest_picture import draw_backtest
from taxi.report_backtest import write_backtest
from taxi.schema import select_taxi
from taxi.words import percent

AGAINST_SUFFIX = " against"  # ends the names of the other recipe's runs


def main(argv: Sequence[str] | None = None) -> None:
    """Run a pipeline for each month, score its model on it and later ones, and report."""
    with step_run(BacktestParameters, __doc__, argv) as params:
        folds = make_folds(
            params.months, window=params.window, horizon=params.horizon, growing=params.growing
        )
        check_backtest(params, folds)
        other_recipe = find_other_recipe(params)
        check_shared_months(folds, other_recipe)
        recipe = other_recipe.recipe if other_recipe else None
        other_folds = check_recipe(recipe) if recipe else []
        if params.plan:
            lines = [*plan_folds("backtest", params, folds)]
            lines += plan_folds("against", recipe, other_folds) if recipe else []
            page.report_plan(lines)
            return
        rows: list[MonthErrors] = []
        for fold, pipeline in zip(folds, run_folds(params, folds), strict=True):
            rows += (judged := judge_fold(params, fold, pipeline))
            log_fold(fold, judged)
        others = other_recipe.rows if other_recipe else []
        if recipe:
            made = zip(other_folds, run_folds(recipe, other_folds, AGAINST_SUFFIX), strict=True)
            others = [row for fold, one in made for row in judge_other_recipe(recipe, fold, one)]
        rises = backtest.measure_ageing(rows)
        compared = [compare_with(rows, other_recipe, others)] if other_recipe else []
        log_backtest(params, rows, rises, compared, rerun_lines(params, other_recipe))
        print("\n".join([backtest.advise_retraining(rises, rows), *compared]))


def check_backtest(params: BacktestParameters, folds: Sequence[Fold]) -> None:
    """Check, before any work, the parameters of the folds, and that all months exist.

    Raises:
        UserError: something cannot be used.
    """
    check_no_leak(params)
    check_pipeline(pipeline_of(params, folds[0]))
    month_names = (month for fold in folds for month in [*fold.train, fold.valid, fold.month])
    nested.check_months(params.source, params.taxi, month_names)


def check_recipe(recipe: BacktestParameters) -> list[Fold]:
    """Make and check the folds of the other recipe, whose models are not followed further.

    Raises:
        UserError: a fold would refuse it; names the line of its file.
    """
    with locating_errors(recipe):
        folds = make_folds(recipe.months, window=recipe.window, horizon=0, growing=recipe.growing)
        check_backtest(recipe, folds)
        return folds


def pipeline_of(params: BacktestParameters, fold: Fold) -> MainParameters:
    """Return the parameters of main for a fold.

    Nothing is registered: a backtest must not change the champion, and folds that share a
    registered model would compete with each other's champions.
    """
    split = {
        "train_months": ",".join(fold.train),
        "valid_months": fold.valid,
        "test_months": fold.month,
    }
    common = MainParameters.of(params)
    return common.model_copy(update={**split, "test_only": True, "plan": False})


def check_no_leak(params: BacktestParameters) -> None:
    """Refuse what would leak later months into a fold.

    Raises:
        UserError: warm_start: searches would begin with points chosen on other months.
    """
    if params.warm_start:
        raise UserError(
            "warm_start=true lets a fold's search begin with the best points of any other, those "
            "of later months too. Leave warm_start out."
        )


def plan_folds(title: str, params: BacktestParameters, folds: Sequence[Fold]) -> Iterator[str]:
    """Say what would happen to each fold; start nothing."""
    yield title
    for fold in folds:
        branch = "└──" if fold is folds[-1] else "├──"
        why = nested.plan_pipeline(pipeline_of(params, fold))
        yield f"{branch} {fold.month}  of {fold.learned_months}: {why}"


# --- a fold


def run_folds(
    params: BacktestParameters, folds: Sequence[Fold], suffix: str = ""
) -> Iterator[PipelineResult]:
    """Reuse or run the pipelines of folds, in their order.

    Args:
        params: of the recipe.
        folds: of its months.
        suffix: of the names of their runs.
    """
    pipelines = {f"{fold.month}{suffix}": pipeline_of(params, fold) for fold in folds}
    return nested.run_pipelines(pipelines, at_once=params.folds_at_once)


def judge_fold(
    params: BacktestParameters, fold: Fold, pipeline: PipelineResult
) -> list[MonthErrors]:
    """Score the model of a fold's pipeline, and the models beside it."""
    return [
        row
        for model, uri in models_of(pipeline).items()
        for row in judge_model(params, fold, model, uri)
    ]


def judge_other_recipe(
    recipe: BacktestParameters, fold: Fold, pipeline: PipelineResult
) -> list[MonthErrors]:
    """Score the other recipe's model of a fold, on the fold's month only."""
    uri, name = models_of(pipeline)[CHOSEN], f"{fold.month}{AGAINST_SUFFIX} {CHOSEN}"
    return judge_model(recipe, fold._replace(later=[]), CHOSEN, uri, name=name)


def models_of(pipeline: PipelineResult) -> dict[str, str]:
    """Return the URIs of the models to judge: CHOSEN, refitted as it would serve, and others."""
    if not pipeline.registered:
        raise RuntimeError("a fold has its month to be tested on")
    found = {one.model: one.model_uri for one in pipeline.baseline.candidates}
    beside = {model: found[model] for model in COMPARED_BASELINES if model in found}
    return {CHOSEN: pipeline.registered.model_uri, **beside}


def judge_model(
    params: BacktestParameters, fold: Fold, model: str, uri: str, *, name: str = ""
) -> list[MonthErrors]:
    """Score a model on the fold's month; the fold's own model also on later months."""
    month_names = [fold.month, *(fold.later if model == CHOSEN else ())]
    scoring = ScoreParameters(
        taxi=params.taxi,
        source=params.source,
        scheduler=params.scheduler,
        developer=params.developer,
        months=",".join(month_names),
        model_uri=uri,
    )
    scored = nested.run_scoring(scoring, name=name or f"{fold.month} {model}")
    return [
        backtest.measure_month(
            scored.days,
            fold=fold.month,
            month=month,
            age=age_at(fold, month),
            model=model,
            run_id=scored.run_id,
            seed=params.seed,
        )
        for month in month_names
    ]


# --- reporting


def log_fold(fold: Fold, rows: Sequence[MonthErrors]) -> None:
    """Print and log how the models of a fold did; the month is the step of the metrics."""
    own, *beside = (row for row in rows if row.age == 0)
    values = {"rmse": own.rmse.value, "bias": own.bias.value}
    values |= {tags.BESIDE_RMSE.of(row.model): row.rmse.value for row in beside}
    step, start_ms = months.month_step(fold.month), months.month_start_ms(fold.month)
    mlflow.log_metrics(values, step=step, timestamp=start_ms)
    findings = [f"rmse {own.rmse.value:.4f} min ({own.rmse.low:.4f} to {own.rmse.high:.4f})"]
    findings += [f"{COMPARED_BASELINES[row.model]} {row.rmse.value:.4f}" for row in beside]
    findings += [f"in {row.month} {row.rmse.value:.4f}" for row in rows if row.age]
    print(f"{fold.month}: {', '.join(findings)}")


def log_backtest(
    params: BacktestParameters,
    rows: Sequence[MonthErrors],
    rises: Sequence[RmseRise],
    compared: Sequence[str],
    rerun: Sequence[str],
) -> None:
    """Log the tables, the picture and the page."""
    answer = backtest.advise_retraining(rises, rows)
    artifacts.log_table([row.row() for row in rows], tags.BACKTEST_TABLE)
    ageing = [{"age": r.age, "n_months": r.n_months, **r.share._asdict()} for r in rises]
    if ageing:
        artifacts.log_table(ageing, tags.AGEING_TABLE)
    artifacts.log_figure(draw_backtest(rows, rises, answer), tags.BACKTEST_PICTURE)
    for rise in rises:
        mlflow.log_metric(tags.RISE, rise.share.value, step=rise.age)
    mlflow.set_tags({tags.TAXI: params.taxi, tags.ANSWER: answer})
    judged = sorted(backtest.fresh_errors(rows))
    mean = backtest.mean_interval(
        [backtest.fresh_errors(rows)[month].rmse.value for month in judged]
    ).value
    mlflow.log_metric(tags.MEAN_RMSE, mean)
    log_backtest_report(params, rows, rises, [answer, *compared], rerun)
    # MLflow folds the page, and then links work only in the first two lines
    parts = [f"**{answer}** {charts.link_report(runs.active())}", *compared]
    parts += [month_table(rows), ageing_table(rises), "Run it again:", "\n".join(rerun)]
    subject = f"{params.taxi} {page.format_months(judged)} · {mean:.2f} min"
    runs.write_page("\n\n".join(filter(None, parts)), subject)


def log_backtest_report(
    params: BacktestParameters,
    rows: Sequence[MonthErrors],
    rises: Sequence[RmseRise],
    findings: Sequence[str],
    rerun: Sequence[str],
) -> None:
    """Log the report, one page that opens offline, and print where it is."""
    of = "a growing window" if params.growing else f"a window of {format_n_months(params.window)}"
    judged = page.format_months(sorted(backtest.fresh_errors(rows)))
    kind = "TLC" if months.simulated_seed(params.source) is None else "simulated"
    scripts = charts.read_scripts()
    text = write_backtest(
        f"Minutes of {select_taxi(params.taxi).singular}: backtest of {kind} months {judged}, {of}",
        charts.describe_run(runs.active()),
        findings,
        rows,
        rises,
        rerun=rerun,
        missing=[] if scripts else [charts.NO_LIBRARY],
        style=charts.read_style(),
        scripts=scripts,
    )
    mlflow.log_text(text, tags.REPORT)
    print(f"report: {artifacts.find_location(runs.active_info().run_id, tags.REPORT)}")


def month_table(rows: Sequence[MonthErrors]) -> str:
    """Tabulate by month the errors of the fresh model, of those beside it, and of it later."""
    experiment_id = runs.active_info().experiment_id
    beside = {
        COMPARED_BASELINES[name]: errors
        for name in COMPARED_BASELINES
        if (errors := backtest.fresh_errors(rows, name))
    }
    ages = sorted({row.age for row in rows if row.age})
    old = {(row.fold, row.age): row for row in rows if row.age}
    headers = ["month", "RMSE, min", "95 %", "bias, min", "95 %", *beside]
    headers += [f"the same model {format_n_months(age)} later" for age in ages]
    lines = []
    for month, row in sorted(backtest.fresh_errors(rows).items()):
        link = pages.run_link(experiment_id, row.run_id)
        cells = [f"[{month}]({link})", *error_cells(row)]
        others = [there.get(month) for there in beside.values()]
        others += [old.get((month, age)) for age in ages]
        cells += [f"{other.rmse.value:.3f}" if other else "" for other in others]
        lines.append(cells)
    return page.to_table(headers, lines)


def error_cells(row: MonthErrors) -> list[str]:
    """Format RMSE and bias, each with its interval."""
    rmse, bias = row.rmse, row.bias
    return [
        *(f"{rmse.value:.3f}", f"{rmse.low:.3f} to {rmse.high:.3f}"),
        *(f"{bias.value:+.3f}", f"{bias.low:+.3f} to {bias.high:+.3f}"),
    ]


def ageing_table(rises: Sequence[RmseRise]) -> str:
    """Tabulate what ageing costs; empty if no model was followed."""
    headers = ["age, months", "judged on months", "RMSE above a fresh model's", "95 %"]
    lines = [
        (rise.age, rise.n_months, value, f"{low} to {high}" if rise.n_months > 1 else "")
        for rise in rises
        for value, low, high in [[percent(end, 2, sign="+") for end in rise.share]]
    ]
    return page.to_table(headers, lines) if lines else ""


if __name__ == "__main__":
    main()
