"""What a parameter may be, what of it a key holds, and what the command that repeats a run has."""

import ast
import re

import pytest

from steps.common.command_line import choices
from steps.common.parameters import (
    ENTRY_POINTS,
    BaselineParameters,
    HpoParameters,
    MainParameters,
    PreprocessParameters,
    RegisterParameters,
)
from storage import UserError
from storage.data.months import SOURCES
from storage.tracking import tags
from taxi.spaces import LAG
from tests.conftest import ROOT
from tests.entry import parsed

READERS = [path for path in (ROOT / "steps").rglob("*.py") if path.name != "declaration.py"]
SAY_IT = "say it in its `param`, steps/common/parameters.py, then make contract"
ABOVE = [PreprocessParameters, BaselineParameters, HpoParameters]


def test_every_parameter_is_read_by_some_step() -> None:
    read = {
        node.attr
        for path in READERS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    declared = {name for one in ENTRY_POINTS.values() for name in one.model_fields}
    assert declared - read - {*tags.RUN_IDS.values()} == set()


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "developer",
        "reuse",
        "plan",
        "steps",
        "rollback",
        "restore",
        "scheduler",
        "source",
        "train_months",
        "hpo_run_id",
    ],
)
def test_what_changes_no_number_is_in_no_key(name: str) -> None:
    takers = [declared() for declared in ENTRY_POINTS.values() if name in declared.model_fields]
    assert takers
    assert [params for params in takers if name in params.key_values()] == []


def test_a_step_is_known_by_its_own_parameters_only() -> None:
    assert set(HpoParameters().key_values(ABOVE[:1])) == {
        *("device", "features", "lag", "max_evals", "max_minutes", "search_space", "seed"),
        *("half_life", "warm_start"),
    }
    assert BaselineParameters().key_values(ABOVE[:1]) == {"models": "all", "seed": 42}
    assert set(RegisterParameters().key_values(ABOVE)) == {
        *("allow_dirty", "allow_simulated", "allow_slice_loss", "max_rmse", "max_slice_loss"),
        *("min_improvement", "min_r2", "judge_by", "max_coverage_gap", "model_name", "refit"),
        *("refit_workers", "seed", "test_only"),
    }


@pytest.mark.parametrize("step", ["preprocess", "baseline", "hpo", "register"])
def test_main_knows_a_step_by_the_very_values_that_the_step_itself_does(step: str) -> None:
    given = ["--seed=7", "--max_minutes=0.50", "--parallelism=3", "--taxi=yellow"]
    declared = ENTRY_POINTS[step]
    own = [word for word in given if word[2:].partition("=")[0] in declared.model_fields]
    assert declared.of(parsed("main", *given)) == parsed(step, *own)


@pytest.mark.parametrize(
    "name", sorted(choices().keys() - {"models", "device"})
)  # too many; other words
def test_what_a_parameter_may_be_is_named_where_it_is_said(name: str) -> None:
    declared = next(one for one in ENTRY_POINTS.values() if name in one.model_fields)
    said = declared.model_fields[name].description or ""
    assert [choice for choice in choices()[name] if f"`{choice}`" not in said] == [], SAY_IT


def test_what_a_source_begins_with_is_named_where_it_is_said() -> None:
    said = re.findall(r"\w+", ENTRY_POINTS["main"].model_fields["source"].description or "")
    begins = {name.partition(":")[0].replace("https", "http") for name in SOURCES}
    assert begins - {*said} == set(), SAY_IT


@pytest.mark.parametrize("spelled", [" mean , lasso_0.1,", "mean,lasso_0.1,mean"])
def test_a_list_of_models_is_the_same_in_each_spelling(spelled: str) -> None:
    written = parsed("baseline", "--models=mean,lasso_0.1").key_values()
    assert parsed("baseline", f"--models={spelled}").key_values() == written
    assert parsed("baseline", "--models=lasso_0.1").key_values() != written


@pytest.mark.parametrize("zero", ["0", "-0", "-0.0", "0e3"])
def test_zero_is_the_same_in_each_spelling(zero: str) -> None:
    assert str(parsed("hpo", f"--half_life={zero}").key_values()["half_life"]) == "0.0"


@pytest.mark.parametrize("at_once", [0, 1, LAG, LAG + 1, 40])
def test_of_the_trials_at_once_only_the_lag_counts(at_once: int) -> None:
    params = parsed("hpo", f"--parallelism={at_once}")
    assert "parallelism" not in params.key_values()
    assert params.key_values()["lag"] == max(at_once, LAG)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "--seed=-1",
            "--seed: must be a whole number of at least 0 and at most 2147482648, got '-1'",
        ),
        (
            "--seed=4294967296",
            "must be a whole number of at least 0 and at most 2147482648, got '4294967296'",
        ),
        ("--max_evals=1.5", "--max_evals: must be a whole number of at least 1, got '1.5'"),
        ("--max_evals=", "must be a whole number of at least 1, got ''"),
        ("--max_minutes=nan", "--max_minutes: must be a number of at least 0, got 'nan'"),
        ("--max_minutes=-0.1", "must be a number of at least 0, got '-0.1'"),
        ("--min_r2=inf", "--min_r2: must be a number of at least -1, got 'inf'"),
        ("--reuse=yes", "--reuse: must be true or false, got 'yes'"),
        ("--reuse=1", "--reuse: must be true or false, got '1'"),
        ("--reuse=", "--reuse: must be true or false, got ''"),
        ("--seeed=1", "unrecognized arguments: --seeed=1. Did you mean seed?"),
        ("--max-eval=3", "unrecognized arguments: --max-eval=3. Did you mean max_evals?"),
        ("--colour=red", "unrecognized arguments: --colour=red. See"),
        ("-Pseed=1", "-Pseed=1. -P is mlflow run's: type --seed=1 here. See"),
    ],
)
def test_a_value_that_means_nothing_is_named_with_what_is_wanted(argument: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        parsed("main", argument)
    assert said in str(refused.value)
    assert str(refused.value).endswith(" See python -m steps.main --help.")


@pytest.mark.parametrize("step", ["preprocess", "main", "score"])
@pytest.mark.parametrize("uri", ["https://ada:hush@host/trips", "s3://key:hu/sh@bucket/trips"])
def test_a_source_with_a_password_is_refused_before_any_work_and_named_without(
    step: str, uri: str
) -> None:
    with pytest.raises(UserError, match=r"^The source '.*' was passed with a password") as refused:
        parsed(step, f"--source={uri}")
    assert "sh@" not in str(refused.value)


@pytest.mark.parametrize("step", ENTRY_POINTS)
def test_no_parameter_that_may_name_a_place_takes_a_password_or_repeats_it(step: str) -> None:
    texts = [
        name for name, field in ENTRY_POINTS[step].model_fields.items() if field.annotation is str
    ]
    for name in {*texts} - {"model_uri", "tracking_uri"}:  # which are looked at where they are used
        with pytest.raises(
            UserError, match=rf"^The {name} 's3://b/x' was passed with a"
        ) as refused:
            parsed(step, f"--{name}=s3://key:hush@b/x")
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize("uri", ["https://host/trips?sig=hush", "https://host/trips#hush"])
def test_a_source_with_a_query_is_refused_without_quoting_it(uri: str) -> None:
    with pytest.raises(UserError, match=r"^The source 'https://host/trips' .* with a query") as no:
        parsed("preprocess", f"--source={uri}")
    assert "hush" not in str(no.value)
    assert "source=env:<NAME>" in str(no.value)


def test_a_repeated_run_has_every_parameter_but_who_asks_and_runs_only_where_given() -> None:
    params = parsed("main", "--developer=ana", "--plan=true", "--hpo_run_id=1a2b")
    runs = {"preprocess_run_id", "baseline_run_id"}
    assert set(params.rerun_texts()) == set(MainParameters.model_fields) - {
        *runs,
        *("config", "developer", "plan"),
    }
    assert params.run_ids() == {"hpo_run_id": "1a2b"}
    words = [f"--{name}={text}" for name, text in params.rerun_texts().items()]
    assert parsed("main", *words).rerun_texts() == params.rerun_texts()
