"""Which points a file describes, which are refused, and what a sweep reports."""

from pathlib import Path
from typing import Any

import pytest

from steps.common.parameters import MainParameters
from steps.pipelines import nested, sweep
from storage import StorageError, UserError
from storage.tracking import artifacts, launching, runs, tags
from taxi.sweep import SweptPoint
from tests.entry import entry, parsed
from tests.stores import Store

MONTHS = ("2021-02", "2021-03")
GRID = "half_life: [4, 8]\nmax_evals: [2, 3]\nmodels: mean\n"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str) -> str:
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return f"--config={path}"

    return write


def points(*arguments: str) -> list[dict[str, str]]:
    return sweep.read_points(parsed("sweep", *arguments))


def test_lists_span_a_grid_and_the_rest_holds_for_every_point(written: Any) -> None:
    params = parsed("sweep", written(GRID), "--seed=9")
    found = [sweep.point_params(params, values) for values in sweep.read_points(params)]
    assert [(one.half_life, one.max_evals) for one in found] == [(4, 2), (4, 3), (8, 2), (8, 3)]
    assert {(one.models, one.seed, one.config) for one in found} == {("mean", 9, "")}


def test_what_is_typed_wins_over_a_list(written: Any) -> None:
    config = written(GRID)
    assert points(config, "--max_evals=5") == [{"half_life": "4"}, {"half_life": "8"}]
    assert len(points(config, "--max_evals=50")) == 4  # a typed default counts as not given


def test_a_list_of_points_is_crossed_with_the_lists(written: Any) -> None:
    text = "seed: [1, 2]\npoints:\n- {half_life: 4, max_evals: 2}\n- half_life: 8\n"
    assert points(written(text)) == [
        {"half_life": "4", "max_evals": "2", "seed": "1"},
        {"half_life": "4", "max_evals": "2", "seed": "2"},
        {"half_life": "8", "seed": "1"},
        {"half_life": "8", "seed": "2"},
    ]


def test_no_point_opens_the_test_months(written: Any) -> None:
    for steps in ("all", "preprocess,baseline,hpo"):
        params = parsed("sweep", written(GRID), f"--steps={steps}")
        assert sweep.point_params(params, {}).steps == "preprocess,baseline,hpo"
    params = parsed("sweep", written(GRID), "--steps=preprocess,hpo")
    assert sweep.point_params(params, {}).steps == "preprocess,hpo"
    everything = parsed("sweep", written(GRID), "--steps=preprocess,baseline,hpo,register")
    with pytest.raises(UserError, match="a sweep leaves register out, which opens the test months"):
        sweep.point_params(everything, {})


def test_a_sweep_of_steps_that_make_no_model_is_refused_before_any_point_runs(written: Any) -> None:
    params = parsed("sweep", written(GRID), "--steps=preprocess")
    with pytest.raises(UserError, match="steps=preprocess makes no model"):
        sweep.point_params(params, {})


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("seed: 7\nhalf_lives: [4, 8]\n", 2, "no entry point has a parameter 'half_lives'. Did"),
        ("months: [2021-01, 2021-02]\n", 1, "months is a parameter of score"),
        ("half_life: [4]\nmax_rmse: [7, 8]\n", 2, "max_rmse cannot be swept: it judges a model"),
        ("refit: [train, train_valid]\n", 1, "refit cannot be swept: it chooses or judges"),
        ("steps: [all, preprocess]\n", 1, "steps cannot be swept: points compare the"),
        ("model_name: [a, b]\n", 1, "model_name cannot be swept: its points would be the same"),
        ("hpo_run_id: [1a, 2b]\n", 1, "hpo_run_id cannot be swept"),
        ("parallelism: [1, 2]\n", 1, "parallelism cannot be swept"),
        ("test_months: [2021-03, 2021-04]\n", 1, "test_months cannot be swept"),
        ("half_life: [4, old]\n", 1, "half_life must be a number of at least 0, got 'old'"),
        ("seed: [1, 2]\npoints:\n- seed: 3\n", 3, "seed is a list and in points too. Keep one."),
        ("points:\n- seed: 3\n  seed: 4\n", 3, "seed is there twice, in line 2 too"),
        ("points:\n- seed: [3, 4]\n", 2, "seed is a list where a value must be"),
        ("seed: [1, [2]]\n", 1, "seed is a list where a value must be"),
    ],
)
def test_what_cannot_be_swept_is_one_line_with_its_line(
    written: Any, text: str, line: int, said: str
) -> None:
    config = written(text)
    with pytest.raises(UserError) as refused:
        points(config)
    assert str(refused.value).startswith(f"{config.removeprefix('--config=')}:{line}: {said}")


def test_without_lists_or_file_there_is_nothing_to_sweep(written: Any) -> None:
    with pytest.raises(UserError, match="has no list, so there is nothing to sweep"):
        points(written("seed: 7\n"))
    with pytest.raises(UserError, match="has no list but what was typed wins over"):
        points(written("seed: [1, 2]\n"), "--seed=4")
    with pytest.raises(UserError, match="sweep needs a file with lists: pass -P config=<file>"):
        points()
    with pytest.raises(UserError, match="seed is in points and on the command line"):
        points(written("points:\n- seed: 3\n"), "--seed=4")


def test_two_points_that_are_the_same_are_refused(written: Any) -> None:
    params = parsed("sweep", written("half_life: [4, 4.0]\n"))
    found = {
        text["half_life"]: sweep.point_params(params, text) for text in sweep.read_points(params)
    }
    with pytest.raises(UserError, match="are the same"):
        sweep.check_distinct(found)


@pytest.mark.parametrize("text", ["half_life: [4, 4]\n", "points:\n- {seed: 1}\n- {seed: 1}\n"])
def test_a_point_that_is_there_twice_is_refused(written: Any, text: str) -> None:
    with pytest.raises(UserError, match=r"The point (half_life=4|seed=1) is there twice"):
        sweep.name_points(points(written(text)))


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("half_life: [4, 8]\nfeatures: [full, fool]\n", "'fool'", 2),
        ("points:\n- {features: full}\n- {features: fool}\n", "'fool'", 3),
        ("points:\n- {train_months: 2021-01}\n- {train_months: 2021-02}\n", "2021-02 is in", 3),
        (f"source: {__file__}\nseed: [1, 2]\n", "is no folder", 1),
    ],
)
def test_what_only_a_later_point_would_stumble_over_is_refused_before_any_runs(
    written: Any, store: Store, capfd: pytest.CaptureFixture[str], text: str, said: str, line: int
) -> None:
    config = written(text)
    before = store.runs()
    with pytest.raises(SystemExit) as left:
        entry("sweep").main([config])
    assert left.value.code == 2
    (error,) = capfd.readouterr().err.splitlines()
    assert said in error
    assert error.endswith(f"See {config.removeprefix('--config=')}:{line}.")
    (run,) = (run for run_id, run in store.runs().items() if run_id not in before)
    assert (run["data"]["tags"]["step"], run["info"]["status"]) == ("sweep", "FAILED")


def test_the_months_of_every_point_are_looked_for_before_any_runs(
    written: Any, tmp_path: Path
) -> None:
    for month in ("2021-01", "2021-02", "2021-03"):
        (tmp_path / f"green_tripdata_{month}.parquet").touch()
    params = parsed("sweep", written("valid_months: [2021-02, 2021-03]\n"), f"--source={tmp_path}")
    points = {text: sweep.point_params(params, {"valid_months": text}) for text in MONTHS}
    with pytest.raises(StorageError, match=r"No green trips in .* for 2021-04"):
        sweep.check_points(params, points)


def test_the_line_of_the_file_names_its_lists_too(
    written: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "max_evals: 2\nhalf_life: [4, 8]\nseed: [1, 2]\npoints:\n- features: full\n"
    with pytest.raises(SystemExit):
        entry("sweep").main([written(text), "--seed=7", "--steps=none", "--plan=true"])
    (line,) = capfd.readouterr().out.splitlines()
    assert line.endswith(" gives max_evals=2, 2 values of half_life, 1 point")


def test_what_says_its_line_by_itself_says_it_once(
    written: Any, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        entry("sweep").main([written("max_rmse: [5, 6]\n")])
    (line,) = capfd.readouterr().err.splitlines()
    assert "max_rmse cannot be swept" in line
    assert " See " not in line


@pytest.mark.parametrize(
    ("rmses", "said"),
    [
        ((5.5, 5.75), "best of 2: RMSE 5.500 min on valid, 0.250 below the next**"),
        ((5.5, 5.5001), "best of 2: RMSE 5.500 min on valid, as the next**"),
        ((5.5,), "best of 1: RMSE 5.500 min on valid**"),
    ],
)
def test_the_verdict_says_how_far_the_next_is_behind(rmses: tuple[float, ...], said: str) -> None:
    swept = [SweptPoint({"seed": "1"}, rmse, "xgboost", None, None, "ab", "1a") for rmse in rmses]
    assert sweep.sweep_verdict(swept).endswith(said)


# --- the result of a sweep, with stand-ins for pipelines


RMSES = {(4.0, 2): 5.5, (4.0, 3): 5.25, (8.0, 2): 5.75, (8.0, 3): 6.0}


@pytest.fixture
def swept(store: Store, written: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sweep a grid of pipelines with known errors; return the sweep's run and its launches."""
    launched = []

    def launch(step: str, texts: dict[str, str], *, name: str) -> str:
        params = MainParameters.model_validate(texts)
        launched.append((step, name))
        with runs.child_run(
            name, {"step": "main", "sha256.valid": "ab", "sha256.train": "cd"}
        ) as run:
            import mlflow

            months = {f"months.{split}": "2021-01" for split in ("train", "valid")}
            mlflow.set_tags({"taxi": "green", "data": "simulated", "model": "xgboost", **months})
            mlflow.log_metric("rmse", RMSES[params.half_life, params.max_evals])
        return str(run.info.run_id)

    found = nested.ReuseDecision("main", None, "for the first time")
    monkeypatch.setattr(nested, "find_pipeline", lambda params: found)
    monkeypatch.setattr(launching, "launch", launch)
    before = store.runs()
    entry("sweep").main([written(GRID)])
    (run,) = (
        run
        for run_id, run in store.runs().items()
        if run_id not in before and run["data"]["tags"]["step"] == "sweep"
    )
    return run, launched


def test_the_best_point_is_named_and_the_table_has_them_all(
    swept: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    run, launched = swept
    run_id, about = run["info"]["run_id"], run["data"]["tags"]
    assert launched == [
        ("main", f"half_life={months}, max_evals={n}") for months in (4, 8) for n in (2, 3)
    ]
    first, *rows = artifacts.read_text(run_id, tags.SWEEP_TABLE).splitlines()
    assert first == "half_life,max_evals,rmse,model,searched_rmse,best,run_id"
    assert [row.split(",")[:3] for row in rows] == [
        ["4", "3", "5.25"], ["4", "2", "5.5"], ["8", "2", "5.75"], ["8", "3", "6.0"],
    ]  # fmt: skip
    assert about["best_run_id"] == rows[0].split(",")[-1]
    note = about["mlflow.note.content"]
    said = (
        "**half_life=4, max_evals=3 is best of 4: RMSE 5.250 min on valid, 0.250 below the next**"
    )
    assert note.splitlines()[0] == said
    assert "-P half_life=4 -P " in note and "-P max_evals=3 -P " in note
    assert "-P steps=all" in note
    assert "No test month was opened." in note
    assert artifacts.has_file(run_id, tags.SWEEP_PICTURE)
    assert run["data"]["metrics"]["rmse"] == 5.25
    # the file is uncommitted, so a teammate needs the artifact
    assert f"mlflow artifacts download -r {run_id} -a config.yaml -d ." in note
    assert "-e sweep" in note and "-P config=" in note
