"""README, CONTRIBUTING and docs/, checked against the repository."""

import ast
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from steps.common import parameters
from steps.hpo import ensemble as seeds
from taxi import (
    baselines,
    boosting,
    bootstrap,
    encoding,
    ensemble,
    features,
    recipes,
    request_params,
    schema,
    search,
    slices,
    spaces,
    spread,
    threads,
    worst,
)
from tests import docs
from tests.docs import DOCUMENTS, PAGES, ROOT

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
MAKEFILE = (ROOT / "Makefile").read_text()
ENTRY_POINTS = set(yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"])
SCHEDULER = "tcp://<host>:8786"

END_TO_END = "tests/test_end_to_end.py"
SCORING = "tests/steps/test_readme_commands.py"
CLUSTER, SEARCH_THERE = "tests/clusters.py", "tests/steps/hpo/test_executor.py"
ROLLBACK = "tests/steps/register/test_rollback.py"
DOOR = "tests/taxi/test_serving_door.py"
RUN_BY = {  # command -> the test file that reads it from the page and runs it
    "make demo": END_TO_END,
    "make ui": END_TO_END,
    "make plan": END_TO_END,
    "make verify RUN=<id>": END_TO_END,
    "make doctor": END_TO_END,
    "make store": END_TO_END,
    "make export RUN=<id> FILE=pipeline.zip": END_TO_END,
    "make import FILE=pipeline.zip": END_TO_END,
    "source .venv/bin/activate": END_TO_END,
    "export MLFLOW_EXPERIMENT_NAME=nyc-taxi-experiment": END_TO_END,
    "mlflow run . --env-manager local -e hpo -P source=simulated -P max_evals=50": END_TO_END,
    "mlflow run <git url> -v <commit> --env-manager uv -P config=experiments/2023.yaml": (
        END_TO_END
    ),
    "mlflow models serve -m models:/nyc-taxi-duration@champion --env-manager uv --port 5001": (
        END_TO_END
    ),
    "curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d "
    """'{"dataframe_records": [{"lpep_pickup_datetime": "2021-03-05 17:45:00", """
    """"PULocationID": 74, "DOLocationID": 75, "trip_distance": 1.3}]}'""": END_TO_END,
    "make serve PORT=5001": END_TO_END,
    'python -c "from mlflow import MlflowClient as C; C().set_registered_model_alias('
    """'nyc-taxi-duration', 'champion', '2')\"""": ROLLBACK,
    'python -c "from mlflow import MlflowClient as C; C().delete_registered_model_alias('
    """'nyc-taxi-duration', 'champion')\"""": ROLLBACK,
    "python docs/client.py http://127.0.0.1:5001 2021-03-05T17:45 74 75 1.3": END_TO_END,
    "mlflow models generate-dockerfile -m models:/nyc-taxi-duration@champion -d image": DOOR,
    "mlflow run . -e score -P months=2023-03": SCORING,
    "python -m steps.score --months=2023-03 --fail_on_drift=true": SCORING,
    "mlflow run . -e register -P restore=2": ROLLBACK,
    "mlflow run . -e register -P rollback=true": SCORING,
    "dask scheduler": CLUSTER,
    f"dask worker {SCHEDULER} --nthreads 1": CLUSTER,
    f"mlflow run . -e hpo -P scheduler={SCHEDULER}": SEARCH_THERE,
}
NOT_RUN = {  # command -> why no test runs it as written
    "docker build -t nyc-taxi-duration image": "it wants a Docker engine",
    "docker run -p 5001:8080 nyc-taxi-duration": "it wants a Docker engine",
    "docker build -f docs/Dockerfile -t nyc-taxi-env .": "bench/image.py runs its commands",
    "kubectl create -f docs/job.yaml": "it wants Kubernetes; bench/image.py runs it",
    "apptainer build nyc-taxi-env.sif docker-daemon://nyc-taxi-env:latest": "it wants Apptainer",
    "sbatch --export=ALL,COMMIT=<commit>,URL=<git url> docs/run.sbatch -P max_evals=100": (
        "it wants Slurm; tests/test_other_machines.py runs the script"
    ),
    "mlflow run . -e backtest -P months=2022-01..2023-12 -P window=3": (
        "it takes hours; bench backtest_kills runs a small one"
    ),
    "mlflow run . -e backtest -P months=2022-01..2023-12 -P window=3 -P half_life=0 "
    "-P against=<run id>": "it takes hours; tests/steps/pipelines compare two",
    "mlflow run . -e sweep -P config=experiments/sweep.yaml": (
        "python -m bench sweep runs one on simulated months, killed and undisturbed"
    ),
    "mlflow run . -e verify -P run_id=<id>": "make verify compares by the very same code",
    "mlflow run . -e verify -P sample=3 -P month=2026-11": "it runs three pipelines again",
    "make test": "it is what runs the tests",
    "make check": "tests/test_checks.py runs it",
    "make pictures": "it wants Chromium, and writes files that are committed",
    "uv run --no-project --with jupyterlab jupyter lab docs/explore.ipynb": "it is for a browser",
    "make contract": "it writes files that are committed; make check compares them",
    f"CUDA_VISIBLE_DEVICES=0 dask worker {SCHEDULER} --nthreads 1 --resources GPU=1": (
        "it wants a GPU"
    ),
}


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- commands


@pytest.mark.parametrize("page", DOCUMENTS, ids=page_id)
def test_every_command_is_run_by_a_test_or_stands_here_with_a_reason(page: Path) -> None:
    assert [line for line in docs.commands(page) if line not in RUN_BY | NOT_RUN] == []


def test_no_command_stands_here_that_no_page_has() -> None:
    shown = {line for page in DOCUMENTS for line in docs.commands(page)}
    assert RUN_BY.keys() | NOT_RUN.keys() == shown
    assert RUN_BY.keys() & NOT_RUN.keys() == set()


@pytest.mark.parametrize("command", RUN_BY)
def test_the_test_of_a_command_reads_it_from_its_page(command: str) -> None:
    starts = read_commands((ROOT / RUN_BY[command]).read_text())
    assert [start for start in starts if docs.command(start) == command] != []


def read_commands(text: str) -> list[str]:
    """List the beginnings of commands that a test file asks for, as far as they are constant."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    asked = [
        call.args[0] for call in calls if ast.unparse(call.func).endswith("command") and call.args
    ]
    return [start for argument in asked if (start := constant_text(argument))]


def constant_text(argument: ast.expr) -> str:
    """Return a constant, or an f-string whose only value is the scheduler."""
    if isinstance(argument, ast.JoinedStr):
        parts = [getattr(part, "value", None) for part in argument.values]
        return "".join(
            SCHEDULER if isinstance(part, ast.Name) and part.id == "SCHEDULER" else str(part)
            for part in parts
        )
    return argument.value if isinstance(argument, ast.Constant) else ""


@pytest.mark.parametrize("page", DOCUMENTS, ids=page_id)
def test_every_target_entry_point_step_and_measurement_named_exists(page: Path) -> None:
    text = "\n".join([*docs.commands(page), *docs.code_words(page)])
    named = {
        "make": set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)),
        "mlflow run -e": set(re.findall(r"^mlflow run .*-e (\w+)", text, re.MULTILINE)),
        "python -m steps.": set(re.findall(r"python -m steps\.(?:pipelines\.)?(\w+)", text)),
        "python -m bench": set(re.findall(r"python -m bench (\w+)", text)),
    }
    there = {
        "make": set(targets()),
        "mlflow run -e": ENTRY_POINTS,
        "python -m steps.": ENTRY_POINTS,
        "python -m bench": measurements(),
    }
    assert {kind: names - there[kind] for kind, names in named.items() if names - there[kind]} == {}


def measurements() -> set[str]:
    """Return the keys of MEASUREMENTS without importing the measurements."""
    tree = ast.parse((ROOT / "bench" / "__main__.py").read_text())
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "MEASUREMENTS"
    )
    assert isinstance(table, ast.Dict)
    return {key.value for key in table.keys if isinstance(key, ast.Constant)}


def test_bench_says_how_each_measurement_is_asked_for() -> None:
    usage = ast.get_docstring(ast.parse((ROOT / "bench" / "__main__.py").read_text())) or ""
    asked = set(usage.partition("[")[2].partition("]")[0].split())
    assert {name for name in measurements() if not {name, name.partition("_")[0]} & asked} == set()


def test_the_steps_in_a_package_of_their_own_are_said_to_be_there() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text()
    (said,) = re.findall(r"\(([^()]*): `python -m steps.pipelines.sweep`\)", text)
    inside = {name for name, one in parameters.ENTRY_POINTS.items() if one.package != "steps"}
    told = "name the entry points of steps/pipelines above the table of docs/parameters.md"
    assert set(re.findall(r"`(\w+)`", said)) == inside, told


def test_every_number_is_printed_by_a_measurement_or_a_test() -> None:
    rows = docs.table(ROOT / "docs" / "numbers.md", "what", "course's recipe", "here", "printed by")
    source = re.compile(r"`python -m bench \w+`|tests/\w+")
    assert [what for what, _, _, printed_by in rows if not source.fullmatch(printed_by)] == []


LOSSGUIDE = spaces.SEARCH_SPACES["lossguide"]
IN_WORDS = {2: "two", 4: "four", 5: "five", 6: "six"}
PERCENT = {0.05: "5 %", 0.02: "2 %", 0.035: "3.5 %"}
SAID = [  # page, and words that it must contain, with numbers from the code
    ("search", f"The first {IN_WORDS[len(LOSSGUIDE.first)]} points are a portfolio"),
    ("search", f"only those at least {spaces.LAG} before: trials 5 to {18 + spaces.LAG}"),
    ("search", f"any `parallelism` up to {spaces.LAG}"),
    ("search", f"Of the {IN_WORDS[ensemble.POOL_SIZE]} best trials of each loss"),
    ("search", f"of the first point with {IN_WORDS[seeds.N_SEEDS - 1]} more seeds"),
    ("search", f"{IN_WORDS[LOSSGUIDE.n_boosters]} at most, each after the first worth"),
    ("search", f"worth {ensemble.MIN_GAIN} min"),
    ("search", f"{PERCENT[recipes.WEIGHT_WITHOUT_DISTANCE]} of each answer"),
    ("search", f"with {recipes.MORE_ROUNDS} times the rounds, finer bins"),
    ("search", f"up to {recipes.FEW_TRIPS:,} trips, steps that begin small"),
    ("search", f"where the search has {LOSSGUIDE.fixed['learning_rate']}"),
    ("search", f"a thread for each {threads.ROWS_PER_THREAD:,} trips"),
    ("search", f"`search_rows` trips, {spaces.SEARCH_ROWS:,} by default"),
    ("search", f"up to {encoding.MAX_ROWS_IN_MEMORY:,} | the trip 32"),
    ("search", f"its columns {4 * len(features.FULL_WITH_CITY)} and"),
    ("search", f"up to {boosting.MAX_ROWS_BINNED_IN_MEMORY:,} | the trip and the bins"),
    ("search", f"a batch of {schema.BATCH_ROWS:,} trips at a time"),
    ("search", f"It takes {boosting.BYTES_PER_VALUE} bytes a column"),
    (
        "search",
        f"more than a fifth of its trials do (and more than {search.MAX_FAILED})",
    ),
    ("large", f"`TMPDIR`, {4 * len(features.FULL_WITH_CITY)} bytes a trip"),
    ("large", f"`lasso_0.01` | up to {baselines.LINEAR_ROWS:,}"),
    ("large", f"`gradient_boosting` | up to {baselines.TREE_ROWS:,}"),
    ("champion", f"a paired bootstrap of {bootstrap.N_RESAMPLES:,} resamples"),
    ("champion", f"more than {PERCENT[slices.MIN_SHARE]} of the test trips"),
    ("champion", f"squared errors at {PERCENT[slices.ALPHA]} over all slices"),
    ("champion", f"has the {worst.N_WORST} trips whose predictions were furthest off"),
    ("serving", f"each of its leaves, {spread.LEAF_ROWS} trips or more"),
    ("serving", f"more than {request_params.MAX_QUANTILES} of them"),
    ("serving", f"a model with fewer than {spread.MIN_ROWS} valid trips"),
]


@pytest.mark.parametrize(("page", "said"), SAID)
def test_a_page_has_the_numbers_of_the_code(page: str, said: str) -> None:
    text = " ".join((ROOT / "docs" / f"{page}.md").read_text().split())
    if " ".join(said.split()) not in text:
        pytest.fail(f"docs/{page}.md does not say {said!r}, as the code has it now: write it there")


# --- links, names and files


def test_readme_is_a_page() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", DOCUMENTS, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in docs.links(page):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        leads = target.is_relative_to(ROOT) and target.exists()
        if "://" not in link and not (leads and anchor in {"", *anchors_of(target)}):
            broken.append(link)
    assert broken == []


def anchors_of(target: Path) -> set[str]:
    return docs.anchors(target) if target.suffix == ".md" else set()


def test_readme_leads_to_every_page_the_licence_and_how_to_contribute() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in docs.links(README)}
    named = [ROOT / name for name in ("LICENSE", "CONTRIBUTING.md", "CHANGELOG.md")]
    assert {*PAGES[1:], *named, ROOT / "docs" / "run.png"} <= linked


@pytest.mark.parametrize("page", DOCUMENTS, ids=page_id)
def test_every_file_named_exists(page: Path) -> None:
    folders = r"(?<![\w./])(?:bench|docs|steps|storage|taxi|tests|tools)/[\w/-]*(?:\.\w+)?"
    named = {name.rstrip("/") for name in re.findall(folders, docs.prose(page).replace("\\", ""))}
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_test_that_contributors_are_shown_exists() -> None:
    named = {word for word in docs.code_words(CONTRIBUTING) if re.fullmatch(r"test_\w+", word)}
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named != set()
    assert {name for name in named if f"def {name}(" not in text} == set()


def test_readme_lists_the_entry_points() -> None:
    rows = docs.table(README, "entry point", "does")
    assert sorted(name.strip("`") for name, _ in rows) == sorted(ENTRY_POINTS)


@pytest.mark.parametrize(
    ("page", "part"),
    [("parameters", "parameters"), ("architecture", "imports"), ("architecture", "tags")],
)
def test_a_page_has_room_for_what_make_contract_writes(page: str, part: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    begin, end = f"<!-- {part}: written by make contract -->\n", f"<!-- end of {part} -->\n"
    assert (text.count(begin), text.count(end)) == (1, 1)
    assert text.index(begin) < text.index(end)


# --- the Makefile, and what runs before a commit


def targets() -> dict[str, str]:
    """Return the documented make targets, each with its comment."""
    rules = re.findall(r"^([a-z][\w-]*):(?!=)[^#\n]*(?:## (.*))?$", MAKEFILE, re.MULTILINE)
    return dict(rules)


@pytest.mark.parametrize("asked", ["make", "make help"])
def test_make_help_lists_every_target_and_variable_with_its_comment(asked: str) -> None:
    # like a user's shell, not one below the make that runs these tests
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        asked.split(), cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^  (\w+) +(.*)$", done.stdout, re.MULTILINE)
    assert done.stderr == ""
    assert [(name, about) for name, about in listed if name.islower()] == list(targets().items())
    assert [name for name, about in listed if not about] == []
    asked_for = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE))
    assert {name for name, _ in listed if name.isupper()} == asked_for
    assert {"EXPERIMENT", "PORT", "ARGS", "RUN"} <= asked_for


def test_every_target_is_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert sorted(phony.split()) == sorted(targets())


def test_a_commit_is_checked_by_what_make_check_runs() -> None:
    (hooks,) = (repo["hooks"] for repo in yaml.safe_load(read(".pre-commit-config.yaml"))["repos"])
    assert {hook["language"] for hook in hooks} == {"system"}
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    recipe = MAKEFILE.partition("\ncheck:")[2].partition("\n\n")[0].splitlines()[1:]
    # hooks get the files of the commit, make checks the whole tree
    alone = [re.sub(" --force-exclude$", "", entry) for entry in entries]
    assert alone == [line.strip().removesuffix(" .") for line in recipe]


# --- the licence


def test_the_licence_is_mit_and_names_its_holder() -> None:
    first, _, holder = read("LICENSE").splitlines()[:3]
    assert (first, holder) == (
        "MIT License",
        "Copyright (c) 2026 the NYC taxi trip duration authors",
    )


def read(name: str) -> str:
    return (ROOT / name).read_text()
