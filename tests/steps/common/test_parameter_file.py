"""Parameter files: which value wins, what is refused with its line, how the run is repeated."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from steps.common.parameter_file import read_parameter_file
from steps.common.parameters import ENTRY_POINTS, PreprocessParameters
from steps.common.step import locating_errors, step_run
from storage import UserError
from storage.checkout import ROOT, committed_path
from storage.tracking import artifacts
from tests.entry import entry, parsed
from tests.stores import Store

EXAMPLE = "experiments/2023.yaml"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> str:
        path = tmp_path / "given.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return f"--config={path}"

    return write


# --- which value wins


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(written: Any) -> None:
    config = written("max_evals: 20\nseed: 7\nhalf_life: 0.50  # months\nlive: off\n")
    params = parsed("hpo", config, "--seed=9")
    assert (params.max_evals, params.seed, params.half_life) == (20, 9, 0.5)
    assert params.search_space == "lossguide"
    assert params.file_texts() == {"max_evals": "20", "half_life": "0.5"}


@pytest.mark.parametrize("typed", ["--max_evals=50", "--half_life=8.00"])
def test_a_value_that_is_the_default_counts_as_not_given(written: Any, typed: str) -> None:
    config = written("max_evals: 20\nhalf_life: 4\n")
    assert parsed("hpo", config, typed) == parsed("hpo", config)


@pytest.mark.parametrize("step", ENTRY_POINTS)
def test_one_file_serves_every_entry_point(step: str) -> None:
    params = parsed(step, f"--config={EXAMPLE}")
    said = {name: entry.texts[0] for name, entry in params.file.entries.items()}
    assert len(said) > 3
    assert params.file_texts() == {
        name: text for name, text in said.items() if name in ENTRY_POINTS[step].model_fields
    }


def test_a_value_is_read_as_it_is_typed_whatever_yaml_makes_of_it(written: Any) -> None:
    params = parsed("score", written('live: off\nmonths: 2021-01\nmodel_uri: "models:/a/1"\n'))
    assert (params.live, params.months, params.model_uri) == ("off", "2021-01", "models:/a/1")


def test_what_a_step_is_known_by_is_the_value_not_the_file(written: Any) -> None:
    assert (
        parsed("hpo", written("seed: 7\n")).key_values() == parsed("hpo", "--seed=7").key_values()
    )


# --- what is refused


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("seed: 7\nmax_eval: 3\n", 2, "no entry point has a parameter 'max_eval'. Did you mean"),
        ("colour: red\n", 1, "no entry point has a parameter 'colour'. docs/parameters.md lists"),
        ("seed: 7\n\nmax_evals: ten\n", 3, "max_evals must be a whole number of at least 1, got"),
        ("max_psi: -1\n", 1, "max_psi must be a number of at least 0, got '-1'"),
        ("reuse: yes\n", 1, "reuse must be true or false, got 'yes'"),
        ("seed: 7\ntaxi: green\nseed: 8\n", 3, "seed is there twice, in line 1 too. Keep one."),
        ("seed: 7\nmax_evals:\t3\n", 2, "a tab where YAML needs spaces"),
        ("seed: 7\n\tmax_evals: 3\n", 2, "a tab where YAML needs spaces"),
        ("seed: 7\nmax_evals: [3, 4]\n", 2, "max_evals is a list where a value must be. Lists"),
        ("points:\n- seed: 7\n", 2, "points is a list where a value must be"),
        ("seed: {a: 7}\n", 1, "seed is a mapping where a value must be"),
        ("seed: [[7]]\n", 1, "seed is a list where a value must be"),
        ("seed: []\n", 1, "seed is an empty list"),
        ("seed:\n", 1, 'seed has no value. Write "" for an empty one.'),
        ("points: 7\n", 1, "points must be a list of mappings"),
        ("points: [7]\n", 1, "a point must be a mapping"),
        ("seed: 7\nsource: 'open\n", 2, "no YAML: found unexpected end of stream"),
        ("seed: 7\n- max_evals\n", 2, "no YAML: "),
        ("seed: 7\x07\n", 1, "no YAML: it holds U+0007"),
        (b"seed: 7\ndeveloper: \xff\n", 2, "no UTF-8 text"),
        ("- seed\n", 1, "expected a mapping of parameters, such as seed: 7; found a list"),
        ("# May\n- seed\n", 2, "expected a mapping of parameters, such as seed: 7; found a list"),
        ("seed 7\n", 1, "expected a mapping of parameters, such as seed: 7; found a single value"),
        ("# seed: 7\n", 1, "expected a mapping of parameters, such as seed: 7; found nothing"),
        ("? [seed]\n: 7\n", 1, "expected a name before the colon; found a list"),
        ("config: other.yaml\n", 1, "config belongs to a single run. Pass it as -P config=..."),
        ("developer: ana\n", 1, "developer belongs to a single run"),
        ("plan: true\n", 1, "plan belongs to a single run"),
        ("source: https://ana:hush@host/trips\n", 1, "source holds a user, a password or a query, "
         "and the file is kept with the run. Leave them out and let source: env:<NAME>"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_with_its_line(
    written: Any, text: str | bytes, line: int, said: str
) -> None:
    config = written(text)
    with pytest.raises(UserError) as refused:
        parsed("main", config)
    message = str(refused.value)
    assert message.startswith(f"{config.removeprefix('--config=')}:{line}: {said}")
    assert message.splitlines() == [message]
    assert "hush" not in message


def test_lists_too_deep_to_be_read_are_one_line(written: Any) -> None:
    with pytest.raises(UserError, match="too deep to read"):
        parsed("main", written(f"seed: {'[' * 3_000}{']' * 3_000}\n"))


@pytest.mark.parametrize("name", ["experiments/2032.yaml", "experiments", "a\0b"])
def test_a_file_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=r"No parameter file '.*Pass -P config=<file>"):
        parsed("main", f"--config={name}")


def test_a_value_that_a_step_refuses_later_is_refused_with_its_line(
    written: Any, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written("source: simulated:300\nsearch_space: lossgide\n")
    before = store.runs()
    with pytest.raises(SystemExit) as left:
        entry("main").main([config])
    assert left.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(f"Choose from ['course_best', 'lossguide', 'seed']. See {config[9:]}:2.")
    (run,) = (run for run_id, run in store.runs().items() if run_id not in before)
    assert run["data"]["tags"]["failure"] == line.removeprefix("main: ")


def test_a_value_that_was_typed_is_refused_without_a_line_of_the_file(written: Any) -> None:
    params = parsed("main", written("seed: 7\nsearch_space: course\n"), "--search_space=lossgide")
    with pytest.raises(UserError) as refused, locating_errors(params):
        raise UserError("Unknown search_space 'lossgide'.")
    assert str(refused.value) == "Unknown search_space 'lossgide'."


# --- what the run keeps of it, and how it is repeated


def test_the_file_enters_the_run_with_what_follows_from_it(
    written: Any, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "source: simulated:300\n# a remark\nmax_evals: 3\nmin_r2: 0\n"
    before = store.runs()
    with step_run(PreprocessParameters, None, [written(text), "--taxi=yellow"]):
        pass
    (run_id,) = store.runs().keys() - before.keys()
    assert artifacts.read_text(run_id, "config.yaml") == text
    assert MlflowClient().get_run(run_id).data.params == {"config.source": "simulated:300"}
    assert capfd.readouterr().out.splitlines()[0].endswith(" gives source=simulated:300")


def test_the_repeating_command_names_a_committed_file_and_what_differs_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steps.common.parameter_file.committed_path", lambda *_: EXAMPLE)
    given = [f"--config={ROOT / EXAMPLE}", "--models=mean", "--seed=7"]
    params = parsed("main", *given)
    texts = params.rerun_texts()
    assert next(iter(texts.items())) == ("config", EXAMPLE)
    assert (texts["models"], texts["seed"], texts["taxi"]) == ("mean", "7", "green")
    assert {"max_evals", "train_months"} & texts.keys() == set()
    again = parsed("main", *(f"--{name}={text}" for name, text in texts.items()))
    assert again.texts() | {"config": ""} == params.texts() | {"config": ""}
    # a typed default usually does not count as given, but here the file has another value
    as_default = params.model_copy(update={"max_evals": 50}).rerun_texts()
    assert "config" not in as_default
    assert (as_default["max_evals"], as_default["train_months"]) == ("50", "2023-01")


def test_the_repeating_command_says_all_where_no_commit_holds_the_file(written: Any) -> None:
    params = parsed("main", written("max_evals: 20\n"), "--seed=9")
    assert params.rerun_texts() == parsed("main", "--max_evals=20", "--seed=9").rerun_texts()


def test_the_command_that_repeats_a_sweep_names_its_file_be_it_committed_or_not(
    written: Any,
) -> None:
    params = parsed("sweep", written("seed: [7, 8]\n"))
    assert params.rerun_texts()["config"] == params.config


def test_runs_to_build_on_stay_in_the_command_so_that_it_is_seen_to_need_them(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steps.common.parameter_file.committed_path", lambda *_: "a.yaml")
    params = parsed("main", written("hpo_run_id: 1a2b\nseed: 9\n"))
    assert params.rerun_texts().items() >= {"config": "a.yaml", "hpo_run_id": "1a2b"}.items()


def test_a_commit_holds_a_file_only_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a b.yaml"
    path.write_text("seed: 7\n")
    (tmp_path / "MLproject").write_text("name: x\n")
    assert committed_path(path, path.read_bytes(), tmp_path) == ""
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    assert committed_path(path, b"seed: 7\r\n", tmp_path) == "a b.yaml"
    assert committed_path(path, b"seed: 8\n", tmp_path) == ""
    assert committed_path(Path(__file__), b"", tmp_path) == ""


def test_the_example_says_how_it_is_used() -> None:
    file = read_parameter_file(EXAMPLE)
    assert re.match(rf"# .*-P config={EXAMPLE}", file.text)
