"""The README's own commands, from a fresh clone, a real git URL and a model server."""

import html
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

from steps.common.pipeline import UPSTREAM
from taxi.spaces import SEARCH_SPACES
from tests.docs import README, readme_command, with_curl
from tests.servers import free_port, wait_for

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TAXI_DATA", ROOT / "../shared/data")).resolve()
HAS_DATA = (DATA / "green_tripdata_2023-03.parquet").is_file()
needs_data = pytest.mark.skipif(not HAS_DATA, reason="no real months: set TAXI_DATA")
NOTE = "mlflow.note.content"
EXPERIMENT = "nyc-taxi-experiment"
FEW = ("linear_regression", "hist_gradient_boosting")
ACTIVATE = [readme_command("source .venv"), readme_command("export MLFLOW_EXPERIMENT_NAME")]
# PATH without the environment that runs the tests
BARE_PATH = os.pathsep.join(
    folder
    for folder in os.environ["PATH"].split(os.pathsep)
    if not (Path(folder) / "mlflow").exists()
)


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment of a fresh login, with the tools of this one."""
    kept = ("PATH", "LANG", "OMP_", "UV_", "PIP_", "SSL_", "REQUESTS_", "PYENV_ROOT", "HTTP")
    kept += ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION",)  # it is off: no test needs those 8 processes
    found = {key: value for key, value in os.environ.items() if key.upper().startswith(kept)}
    path = os.pathsep.join((str(Path(sys.executable).parent), found["PATH"]))
    # packages that uv and pip have downloaded before may be reused
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return found | {
        "HOME": str(home),
        "PATH": path,
        "XDG_CACHE_HOME": cache,
        "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
    }


def in_an_environment(command: str) -> str:
    """Replace uv in a command, with a warning, if the pinned Python is not available."""
    (pinned,) = re.findall('^python: "(.*)"', (ROOT / "python_env.yaml").read_text(), re.MULTILINE)
    if not subprocess.run(["uv", "python", "find", pinned], capture_output=True).returncode:
        return command
    warnings.warn(f"no Python {pinned} here, so this environment's packages are used", stacklevel=2)
    return command.replace("--env-manager uv", "--env-manager local")


def run(command: str, folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def git_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A git daemon on loopback that serves a bare clone of this repository."""
    base, port = tmp_path_factory.mktemp("git"), free_port()
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, base / "taxi.git"], check=True)
    options = [f"--base-path={base}", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]
    daemon = subprocess.Popen(
        ["git", "daemon", *options, f"--port={port}", "--verbose"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "Ready" in daemon.stderr.readline()
    yield f"git://127.0.0.1:{port}/taxi.git"
    daemon.terminate()
    daemon.wait()


@pytest.fixture(scope="module")
def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip()


class Pipeline:
    """The store that a pipeline run filled."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.client = MlflowClient(self.uri, self.uri)
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        self.runs = self.client.search_runs([experiment.experiment_id], max_results=1000)

    def step(self, name: str) -> Run:
        (found,) = (run for run in self.runs if run.data.tags.get("step") == name)
        return found

    def models(self) -> list[LoggedModel]:
        return list(self.client.search_logged_models([self.runs[0].info.experiment_id]))

    def children(self, of: Run) -> list[Run]:
        return [r for r in self.runs if r.data.tags.get("mlflow.parentRunId") == of.info.run_id]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home, in which the first command creates the environment."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def pipeline(
    git_url: str, commit: str, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pipeline:
    """README's command for teammates, from the git URL, in an empty folder and a fresh uv env."""
    folder = tmp_path_factory.mktemp("teammate")
    env = clean_environment(home)
    command = in_an_environment(readme_command("mlflow run <git url>"))
    command = command.replace("<git url>", git_url).replace("<commit>", commit)
    source = str(DATA) if HAS_DATA else "simulated:4000"
    few = f"-P models={','.join(FEW)} -P max_evals=3"  # the demo runs all models
    run(f"{command} -P source={shlex.quote(source)} {few}", folder, env)
    return Pipeline(folder, env)


def test_a_git_url_gives_the_whole_run_tree(pipeline: Pipeline) -> None:
    main = pipeline.step("main")
    steps = {run.data.tags["step"] for run in pipeline.children(main)}
    assert steps == {"preprocess", "baseline", "hpo", "register"}
    assert {run.info.status for run in pipeline.runs} == {"FINISHED"}
    trials = [run for run in pipeline.children(pipeline.step("hpo")) if "trial" in run.data.tags]
    assert sorted(int(run.data.tags["trial"]) for run in trials) == [0, 1, 2]
    assert len(pipeline.children(pipeline.step("baseline"))) == len(FEW)


def test_every_run_carries_repository_commit_and_developer(
    pipeline: Pipeline, git_url: str, commit: str
) -> None:
    for found in pipeline.runs:
        tags = found.data.tags
        assert tags["mlflow.source.git.commit"] == commit
        assert tags["mlflow.source.git.repoURL"] == git_url
        assert tags["mlflow.source.name"].startswith(git_url)
        assert tags["git_dirty"] == "false"
        assert tags["developer"]


def test_a_pipeline_that_reused_nothing_says_none(pipeline: Pipeline) -> None:
    assert pipeline.step("main").data.tags["reused"] == "none"


def test_the_parameter_file_of_the_command_is_named_and_kept(pipeline: Pipeline) -> None:
    main, example = pipeline.step("main"), "experiments/2023.yaml"
    assert f" -P config={example} -P " in main.data.tags["rerun"]
    assert " -P max_evals=3 " in main.data.tags["rerun"]  # it was typed, so it wins over the file
    assert " -P train_months=" not in main.data.tags["rerun"]
    assert main.data.params["config.train_months"] == "2023-01"
    assert "config.max_evals" not in main.data.params
    kept = Path(urlsplit(main.info.artifact_uri).path) / "config.yaml"
    assert kept.read_text() == (ROOT / example).read_text()


def test_a_trial_has_its_parameters_curve_and_score(pipeline: Pipeline) -> None:
    for trial in pipeline.children(pipeline.step("hpo")):
        if "trial" not in trial.data.tags:
            continue
        assert trial.data.tags["model"] == "xgboost"
        assert {"max_leaves", "subsample", "learning_rate", "seed"} <= set(trial.data.params)
        curve = pipeline.client.get_metric_history(trial.info.run_id, "rmse_by_round")
        every = SEARCH_SPACES["lossguide"].score_every
        steps = [point.step for point in curve]
        assert steps == list(range(every - 1, every * len(curve), every))
        assert min(point.value for point in curve) == trial.data.metrics["rmse"]


def test_headline_numbers_are_hoisted_and_summed_up(pipeline: Pipeline) -> None:
    main, hpo = pipeline.step("main"), pipeline.step("hpo")
    assert main.data.metrics["hpo.rmse"] == hpo.data.metrics["rmse"]
    # the search won, so the pipeline's run has its scores
    assert main.data.metrics["rmse"] == hpo.data.metrics["rmse"]
    assert main.data.metrics["test_rmse"] == pipeline.step("register").data.metrics["test_rmse"]
    note = main.data.tags[NOTE]
    assert "| xgboost | full |" in note
    assert "Run it again:" in note
    assert note.startswith("**xgboost won: RMSE ")
    assert "Next: `mlflow models serve -m models:/nyc-taxi-duration@champion" in note
    assert re.match(r"green 2023-01 > 02 · \d\.\d\d min · ", main.info.run_name)
    assert {run.info.run_name for run in pipeline.children(main)} == set(UPSTREAM)
    assert [run for run in pipeline.runs if not run.data.tags[NOTE]] == []
    assert [run for run in pipeline.runs if run.data.metrics["system/cpu_seconds"] <= 0] == []


def test_the_report_is_whole_and_linked_first_on_the_page(pipeline: Pipeline) -> None:
    main, hpo = pipeline.step("main"), pipeline.step("hpo")
    folder = Path(urlsplit(main.info.artifact_uri).path)
    text = (folder / "report.html").read_text()
    assert len(text) < 3_000_000
    assert f"/runs/{main.info.run_id}/artifacts/report.html" in main.data.tags[NOTE].split("\n")[1]
    sections = re.findall('<h2 id="(.*?)"', text)
    assert sections[:4] == ["steps", "data", "models", "search"]
    assert {"where-it-fails", "what-the-model-looks-at", "run-it-again"} <= set(sections)
    assert "not-on-this-page" not in sections
    assert f"RMSE {hpo.data.metrics['rmse']:.3f} min" in text
    assert html.escape(main.data.tags["rerun"]) in text
    assert text.count('class="chart"') >= 11


def test_the_best_candidate_is_champion_and_tested_once(pipeline: Pipeline) -> None:
    version = pipeline.client.get_model_version_by_alias("nyc-taxi-duration", "champion")
    register = pipeline.step("register")
    assert str(version.version) == register.data.tags["version"] == "1"
    assert float(version.tags["rmse_test"]) == pytest.approx(
        register.data.metrics["test_rmse"], abs=1e-6
    )
    candidates = [
        run
        for step in ("baseline", "hpo")
        for run in pipeline.children(pipeline.step(step))
        if run.data.tags.get("candidate") == "true"
    ]
    best = min(candidates, key=lambda run: run.data.metrics["rmse"])
    assert len(candidates) == 1 + len(FEW)
    # it was refitted to valid too, and the refit is the model that was tested
    (refit,) = pipeline.children(register)
    assert refit.data.tags["model"] == best.data.tags["model"]
    assert version.tags["model_uri"] == refit.data.tags["model_uri"]
    assert refit.data.tags["model_uri"] != best.data.tags["model_uri"]


def test_preprocess_tells_which_bytes_went_in_and_out(pipeline: Pipeline) -> None:
    found = pipeline.step("preprocess")
    inputs = {entry.dataset.name: entry for entry in found.inputs.dataset_inputs}
    months = {"train 2023-01", "valid 2023-02", "test 2023-03"}
    assert months <= set(inputs)
    assert {entry.tags[0].value for name, entry in inputs.items() if name not in months} <= {
        "zones"
    }
    contexts = {name: entry.tags[0].value for name, entry in inputs.items()}
    assert contexts["train 2023-01"] == "training"
    profile = json.loads(inputs["train 2023-01"].dataset.profile)
    assert profile["num_rows"] >= found.data.metrics["n_trips_train"]
    page = found.data.tags["mlflow.note.content"]
    assert re.match(r"\*\*Kept \d+\.\d % of [\d,]+ trips\*\*: ", page)
    paths = {item.path for item in pipeline.client.list_artifacts(found.info.run_id)}
    assert {"data", "months.csv", "profile.png"} <= paths


@needs_data
def test_the_numbers_on_real_months_are_within_reach(pipeline: Pipeline) -> None:
    # with only three trials; the course's recipe has 5.14 and 5.37
    assert pipeline.step("hpo").data.metrics["rmse"] < 4.06
    assert pipeline.step("register").data.metrics["test_rmse"] < 4.21


def test_the_champion_is_served_as_readme_says(pipeline: Pipeline) -> None:
    port = free_port()
    serve = readme_command("mlflow models serve").replace("5001", str(port))
    serve = serve.replace("--env-manager uv", "--env-manager local")  # has the same versions
    env = pipeline.env | {
        "MLFLOW_TRACKING_URI": pipeline.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    server = subprocess.Popen(
        ["bash", "-c", f"exec {serve}"], cwd=pipeline.folder, env=env, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        curl = readme_command("curl").replace("5001", str(port))
        (minutes,) = json.loads(run(with_curl(curl), pipeline.folder, env))["predictions"]
        assert 1 < minutes < 60
        bad = curl.replace('"PULocationID": 74', '"PULocationID": "Harlem"')
        answer = json.loads(run(with_curl(bad), pipeline.folder, env))
        assert "Row 0, column 'PULocationID': got 'Harlem'" in answer["message"]
    finally:
        server.terminate()
        server.wait()


class Demo(NamedTuple):
    """What make demo left behind in a fresh clone, and what it printed."""

    folder: Path
    env: dict[str, str]
    output: str


@pytest.fixture(scope="module")
def demo(
    git_url: str, home: Path, pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> Demo:
    """README's first command; the fixture `pipeline` has already made its runs' environment."""
    folder = tmp_path_factory.mktemp("demo") / "clone"
    run(f"git clone -q {git_url} {folder}", folder.parent, dict(os.environ))
    env = clean_environment(home)
    del env["MLFLOW_EXPERIMENT_NAME"]
    return Demo(folder, env, run(readme_command("make demo"), folder, env))


def test_make_demo_prints_what_readme_shows(demo: Demo) -> None:
    assert "xgboost registered as nyc-taxi-duration version 1, alias champion" in demo.output
    assert Pipeline(demo.folder, demo.env).step("main").info.status == "FINISHED"
    # README shows what is really printed; digits may differ on another machine
    printed = {re.sub("[0-9.,-]+", "#", line) for line in demo.output.splitlines()}
    shown = README.split("```text\n")[1].split("```")[0].strip().splitlines()
    assert {re.sub("[0-9.,-]+", "#", line) for line in shown} <= printed
    # and it ends with the commands that README shows next
    assert all(line in demo.output for line in (*ACTIVATE, readme_command("make ui")))


def test_the_ui_opens_on_the_store_of_the_demo_and_leaks_no_warnings(
    demo: Demo, tmp_path: Path
) -> None:
    port = free_port()
    command = [*readme_command("make ui").split(), f"PORT={port}"]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        server = subprocess.Popen(
            command, cwd=demo.folder, env=demo.env, stderr=stderr, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        body = {"filter": f"name = '{EXPERIMENT}'", "max_results": 1}
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
        found = requests.post(url, json=body, timeout=10).json()
        assert found["experiments"][0]["name"] == EXPERIMENT
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    assert f"Uvicorn running on http://127.0.0.1:{port}" in log.read_text()
    assert re.findall("Warning|GET|POST|executor", log.read_text()) == []


def test_the_demos_champion_answers_the_client_of_the_docs(demo: Demo) -> None:
    port = str(free_port())
    serve = readme_command("make serve").replace("5001", port)
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        serve.split(), cwd=demo.folder, env=demo.env, stderr=quiet, start_new_session=True
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        client = readme_command("python docs/client.py").replace("5001", port)
        assert 1 < float(run(client, demo.folder, demo.env)) < 60
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_the_notebook_says_of_the_demo_what_it_shows(demo: Demo) -> None:
    cells = json.loads((demo.folder / "docs/explore.ipynb").read_text())["cells"]
    cells = [cell for cell in cells if cell["cell_type"] == "code"]
    script = demo.folder / "explore.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in cells))
    command = " && ".join([*ACTIVATE, "python explore.py"])
    printed = run(command, demo.folder, demo.env | {"MPLBACKEND": "agg"})
    script.unlink()
    shown = "".join(
        line for cell in cells for out in cell["outputs"] for line in out.get("text", [])
    )
    # digits may differ on another machine
    words = [re.sub("[0-9.]+", "#", text).split() for text in (shown, printed)]
    assert len(words[0]) > 100
    assert words[0] == words[1]


def test_a_second_demo_runs_nothing_twice(demo: Demo) -> None:
    main = Pipeline(demo.folder, demo.env).step("main")
    plan = f"{readme_command('make plan')} ARGS='--source=simulated --max_evals=10'"
    assert run(plan, demo.folder, demo.env).count(" reused ") == 4
    said = run(readme_command("make demo"), demo.folder, demo.env).partition("Trained on")[0]
    assert said.count(": reused ") == 4
    assert "rmse" not in said
    newest = Pipeline(demo.folder, demo.env).runs[0]
    results, again = (
        {name: value for name, value in run.data.metrics.items() if name[:7] != "system/"}
        for run in (main, newest)
    )
    assert again == results
    report = Path(urlsplit(newest.info.artifact_uri).path, "report.html").read_text()
    assert report.count("<strong>reused</strong>") == 4


def test_the_doctor_finds_nothing_wrong_after_the_demo(demo: Demo) -> None:
    doctor = subprocess.run(
        readme_command("make doctor").split(),
        cwd=demo.folder,
        env=demo.env,
        capture_output=True,
        text=True,
    )
    # this machine may lack something, such as a disk with room on it
    problems = [line.split()[1] for line in doctor.stdout.splitlines() if line[:7] == "PROBLEM"]
    assert set(problems) <= {"disk"}, doctor.stdout
    assert (doctor.returncode != 0) == bool(problems)
    assert "Traceback" not in doctor.stderr
    assert "can be read and is migrated" in doctor.stdout
    run(readme_command("make store"), demo.folder, demo.env)


def test_a_step_started_alone_makes_what_it_needs(demo: Demo) -> None:
    """README's commands for after the demo, with fewer trips and fewer trials."""
    alone = readme_command("mlflow run . --env-manager local -e hpo -P source=simulated")
    small = alone.replace("source=simulated", "source=simulated:1000")
    lines = [*ACTIVATE, small.replace("max_evals=50", "max_evals=5")]
    store = f"sqlite:///{demo.folder.parent}/mlflow.db"
    run("\n".join(lines), demo.folder, demo.env | {"MLFLOW_TRACKING_URI": store, "PATH": BARE_PATH})
    pipeline = Pipeline(demo.folder.parent, demo.env)
    hpo = pipeline.step("hpo")
    assert pipeline.step("preprocess") in pipeline.children(hpo)
    assert sum("trial" in run.data.tags for run in pipeline.children(hpo)) == 5


def test_a_teammates_pipeline_comes_out_the_same_in_an_environment_of_its_own(
    demo: Demo, pipeline: Pipeline
) -> None:
    main = pipeline.step("main")
    # verify repeats the very command that people read on the page
    assert main.data.tags["rerun"] in main.data.tags["mlflow.note.content"]
    # it was exported to a file, and imported into another store, twice
    team = f"sqlite:///{demo.folder.parent}/team/mlflow.db"
    here, there = ({**demo.env, "MLFLOW_TRACKING_URI": uri} for uri in (pipeline.uri, team))
    run(readme_command("make export").replace("<id>", main.info.run_id), demo.folder, here)
    for _ in range(2):
        said = run(readme_command("make import"), demo.folder, there)
    assert " 0 of the runs were not there yet" in said
    imported = Pipeline(demo.folder.parent / "team", demo.env)
    assert len(imported.runs) == len(pipeline.runs)
    assert len(imported.models()) == len(pipeline.models())
    verify = readme_command("make verify").replace("<id>", imported.step("main").info.run_id)
    said = run(verify, demo.folder, there)
    assert said.endswith(": all identical\n")
    assert len(re.findall(r"^hpo/trial \d+ .* identical$", said, re.MULTILINE)) == 3
