"""What it costs to find out that nothing has to run, and to start a step that does."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from uuid import uuid4

from bench import ROOT, Result
from bench.steps import children_cpu_s

SMALL = ("source=simulated:3000", "models=mean", "max_evals=1")
N_TIMES = 3  # times that each command is run, alternately
N_RUNS = 10_000
EMPTY = "name: empty\nentry_points:\n  main:\n    command: 'true'\n"
# in a warm process a step costs only its own work; launched, it costs the start-up too
STEP = """
import sys, time
import mlflow, steps.preprocess as module
from contextlib import contextmanager
from steps.common.parameters import PreprocessParameters
from storage.tracking import launching, runs
params = PreprocessParameters(source="simulated:3000")
opened = module.step_run
@contextmanager
def timed(*declared):
    with opened(*declared) as params:
        start = time.perf_counter()
        yield params
        print("own", time.perf_counter() - start)
module.step_run = timed
argv = [f"--{name}={value}" for name, value in params.texts().items()]
module.main(argv)
module.main(argv)
with runs.StepRun("main", ""):
    for _ in range(int(sys.argv[1])):
        start = time.perf_counter()
        launching.launch("preprocess", params.texts())
        print("launched", time.perf_counter() - start)
"""
DECIDE = """
import sys, time
import mlflow
from steps.common.command_line import make_parser, parse
from steps.common.parameters import MainParameters
from steps.common.pipeline import UPSTREAM, Pipeline
from storage.tracking import launching, runs
params = parse(MainParameters, make_parser(MainParameters, None), sys.argv[1:])
assert runs.experiment_id()
start = time.perf_counter()
pipeline = Pipeline(params)
for step in UPSTREAM:
    pipeline.get_or_run(step)
print("decided", time.perf_counter() - start)
assert all(decision.run for decision in pipeline.decisions.values())
"""


def measure() -> Iterator[Result]:
    """Fill a store with one small pipeline, and measure what comes after it."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        (folder / "empty" / "MLproject").write_text(EMPTY)
        env = os.environ | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_EXPERIMENT_NAME": "bench",
        }
        mlflow_run(ROOT, env, *SMALL)
        yield reused(folder, env)
        yield fixed(env)
        fill(folder / "mlflow.db", N_RUNS)
        arguments = [f"--{value}" for value in SMALL]
        seconds = median(told("decided", env, DECIDE, *arguments)[0] for _ in range(N_TIMES))
        what = f"reuse decision for all steps, {N_RUNS:,} runs in the experiment"
        yield Result(what, f"{seconds:.2f} s", "1 s")


def reused(folder: Path, env: dict[str, str]) -> Result:
    """Compare a pipeline whose steps are all reused with an empty entry point."""
    empty, whole = [], []
    for _ in range(N_TIMES):
        empty.append(timed(folder / "empty", env))
        whole.append(timed(ROOT, env, *SMALL))
    ratio = median(whole) / median(empty)
    what = "`main`, all steps reused, over one `mlflow run` of an empty entry point, CPU"
    return Result(what, f"{ratio:.2f}x ({median(whole):.1f} s / {median(empty):.1f} s)", "1.7x")


def fixed(env: dict[str, str]) -> Result:
    """Compare the overhead of a step with importing MLflow."""
    imported = []
    for _ in range(N_TIMES):
        start = perf_counter()
        told("", env, "import mlflow")
        imported.append(perf_counter() - start)
    lines = output_of(env, STEP, str(N_TIMES))
    own = float(next(words[1] for words in reversed(lines) if words[0] == "own"))
    cost = median(float(words[1]) for words in lines if words[0] == "launched") - own
    what = "fixed cost of one step over `python -c 'import mlflow'`"
    ratio = cost / median(imported)
    return Result(what, f"{ratio:.2f}x ({cost:.1f} s / {median(imported):.1f} s)", "3x")


def timed(project: Path, env: dict[str, str], *parameters: str) -> float:
    """Return the CPU seconds of one `mlflow run`, which depend little on other load."""
    before = children_cpu_s()
    mlflow_run(project, env, *parameters)
    return children_cpu_s() - before


def mlflow_run(project: Path, env: dict[str, str], *parameters: str) -> None:
    """Run a project in this environment."""
    words = [word for parameter in parameters for word in ("-P", parameter)]
    command = ["-m", "mlflow", "run", ".", "--env-manager", "local", *words]
    done = subprocess.run([sys.executable, *command], cwd=project, env=env, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-2000:])


def told(word: str, env: dict[str, str], code: str, *arguments: str) -> list[float]:
    """Run Python code in the checkout; return the numbers on its lines that begin with a word."""
    lines = output_of(env, code, *arguments)
    return [float(words[1]) for words in lines if words and words[0] == word]


def output_of(env: dict[str, str], code: str, *arguments: str) -> list[list[str]]:
    """Run Python code in the checkout; return the words of its lines of output."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return [line.split() for line in done.stdout.splitlines() if line]


def fill(path: Path, n_runs: int) -> None:
    """Copy the newest run of hpo, with tags and metrics but other keys, until there are n_runs."""
    with closing(sqlite3.connect(path)) as store:
        ((run_id, n_there),) = store.execute(
            "SELECT run_uuid, (SELECT count(*) FROM runs) FROM tags "
            "WHERE key = 'step' AND value = 'hpo' LIMIT 1"
        )
        ids = [uuid4().hex for _ in range(n_runs - n_there)]
        for table in ("runs", "tags", "latest_metrics", "params"):
            rows = store.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", [run_id])
            names = [column[0] for column in rows.description]
            place, wanted = names.index("run_uuid"), ",".join("?" * len(names))
            copies = [[*row[:place], new_id, *row[place + 1 :]] for row in rows for new_id in ids]
            store.executemany(f"INSERT INTO {table} VALUES ({wanted})", copies)
        mine = ",".join(f"'{new_id}'" for new_id in ids)
        store.execute(
            f"UPDATE tags SET value = run_uuid WHERE key = 'step_key' AND run_uuid IN ({mine})"
        )
        store.commit()
