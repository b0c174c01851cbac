"""Run steps on a server behind a proxy that injects one fault: they must end well, or in one line.

SERVER_FAULTS=hpo,score SERVER_FAULT_KINDS='^50|cut' SERVER_FAULT_MOMENTS=middle \
    python -m bench server_faults

runs only those steps, kinds and moments, and SERVER_FAULT_MOMENTS=0,1,2 hits the first three
requests; all of it takes an hour on two cores. A proxy that makes up a successful answer, in JSON
of the right shape, is not among the kinds: no client can tell it from the server.
"""

import atexit
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities import Run

from bench import ROOT, Result
from bench.faulty_proxy import FAULTS, Fault, Proxy, proxy_to
from bench.kills import is_how
from storage.terminal import RETRY_NOTICE
from storage.tracking import stale_runs, tags

STEPS = ("preprocess", "baseline", "hpo", "register", "score", "main")
SOURCE, MODEL = "--source=simulated:300", "prepared"
TRAINING = ("--models=mean", "--max_evals=2", "--parallelism=1", "--refit=train")
PRELOADED = [  # modules of the steps, imported once before forking
    __name__,
    *(f"steps.{name}" for name in ("preprocess", "baseline")),
    *(f"steps.{name}.__main__" for name in ("hpo", "register", "score", "main")),
    *("matplotlib.pyplot", "mlflow.projects", "mlflow.pyfunc", "sklearn.ensemble", "skops.io"),
]
MOMENTS = ("opening", "middle", "closing")
PATIENCE_S = 300.0  # a timeout: with the few retries below no step takes so long on busy cores
CALM = {  # keeps MLflow's retries from taking minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "OMP_NUM_THREADS": "1",
}
# lines about retries and runs, of MLflow and its libraries, and the notice of an outage
NOISE = re.compile(
    r"\d{4}/\d\d/\d\d [\d:]+ (WARNING|INFO) |\W*View (run|experiment|Logged Model) |"
    + re.escape(RETRY_NOTICE)
)


class Case(NamedTuple):
    """A step that meets a fault at a moment."""

    fault: Fault
    step: str
    moment: str


class Ending(NamedTuple):
    """How a step ended."""

    code: int | None  # exit code; None if it had to be killed
    said: list[str]  # on stderr
    runs: dict[str, Run]
    results: dict[str, set[str]]
    made: Counter[str]  # how often each of them is there


class Whole(NamedTuple):
    """The requests and results of a step without a fault."""

    asked: list[tuple[str, str]]
    results: dict[str, set[str]]
    made: Counter[str]


class Bench(NamedTuple):
    """A server with a pipeline that the steps build on."""

    server: str
    folder: Path
    run_ids: Mapping[str, str]


def measure() -> Iterator[Result]:
    """Run every step with every fault, at three moments."""
    steps = os.environ.get("SERVER_FAULTS", ",".join(STEPS)).split(",")
    kinds = re.compile(os.environ.get("SERVER_FAULT_KINDS", ""))
    moments = os.environ.get("SERVER_FAULT_MOMENTS", ",".join(MOMENTS)).split(",")
    harm: Counter[str] = Counter()
    with TemporaryDirectory() as folder, served(Path(folder)) as server:
        bench = prepare(server, Path(folder))
        cases = [
            Case(fault, step, moment)
            for step in steps
            for fault in FAULTS
            for moment in moments
            if kinds.search(fault.name)
        ]
        whole = {step: undisturbed(bench, step) for step in steps}
        with ThreadPoolExecutor(2) as pool:
            numbered = enumerate(cases)
            for problems in pool.map(lambda one: judge(bench, whole, *one), numbered):
                harm.update(problems)
    n_kinds, n_steps = len({case.fault for case in cases}), len(steps)
    names = ("hit", "ended well", "one line", *PROBLEMS)
    yield Result(
        f"{n_kinds} kinds of server faults in {n_steps} steps, {len(moments)} moments: "
        + ", ".join(names),
        ", ".join(str(harm[name]) for name in names),
        "0 of the last " + str(len(PROBLEMS)),
    )


PROBLEMS = (
    "tracebacks",
    "other than one line",
    "hangs",
    "doubles",
    "left RUNNING",
    "other results",
)


# --- the server


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Start `mlflow server` on its own database."""
    with proxy_to("") as free:
        port = free.uri.rpartition(":")[2]  # free again once the listener is closed
    command = [sys.executable, "-m", "mlflow", "server", "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            session = requests.Session()
            retry = requests.adapters.Retry(total=240, backoff_factor=0.1, backoff_max=1)
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
            session.get(f"http://127.0.0.1:{port}/health", timeout=10)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def prepare(server: str, folder: Path) -> Bench:
    """Run a pipeline for the steps to build on, and for main to reuse."""
    env = os.environ | CALM | {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": MODEL}
    command = [sys.executable, "-m", "steps.main", SOURCE, *TRAINING, f"--model_name={MODEL}"]
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    mlflow.set_tracking_uri(server)
    (main,) = mlflow.search_runs(
        experiment_names=[MODEL], filter_string="tags.step = 'main'", output_format="list"
    )
    return Bench(server, folder, {n: main.data.tags[n] for n in tags.RUN_IDS.values()})


# --- a step


def arguments(bench: Bench, step: str, name: str) -> list[str]:
    """Return the command line of a step that builds on the prepared pipeline."""
    above = {
        "baseline": ("preprocess",),
        "hpo": ("preprocess",),
        "register": ("preprocess", "baseline", "hpo"),
    }.get(step, ())
    given = [f"--{tags.RUN_IDS[one]}={bench.run_ids[tags.RUN_IDS[one]]}" for one in above]
    own = {
        "preprocess": [SOURCE],
        "baseline": ["--models=mean"],
        "hpo": ["--max_evals=2", "--parallelism=1"],
        "register": [f"--model_name={name}", "--refit=train"],
        "score": [SOURCE, f"--model_uri=models:/{MODEL}/1", "--months=2021-04"],
        "main": [SOURCE, *TRAINING, f"--model_name={MODEL}"],
    }
    return [*own[step], *given]


def run_step(env: Mapping[str, str], step: str, argv: list[str], log: Path) -> None:
    """Run `python -m steps.<step>` in this forked process, which has imported its modules."""
    with log.with_suffix(".out").open("w") as out, log.open("w") as said:
        os.dup2(out.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ.update(env)
    os.chdir(ROOT)
    is_package = (ROOT / "steps" / step).is_dir()
    module = import_module(f"steps.{step}.__main__" if is_package else f"steps.{step}")
    try:
        module.main(argv)
    finally:
        atexit._run_exitfuncs()  # a forked process would skip them


def run(bench: Bench, step: str, name: str, proxy: Proxy) -> Ending:
    """Run a step through a proxy; `name` is that of its experiment and its registered model."""
    log, began_ms = bench.folder / f"{name}.log", int(time.time() * 1000)
    experiment = MODEL if step == "main" else name
    env = CALM | {"MLFLOW_TRACKING_URI": proxy.uri, "MLFLOW_EXPERIMENT_NAME": experiment}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=run_step, args=(env, step, arguments(bench, step, name), log))
    process.start()
    process.join(PATIENCE_S)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    runs = runs_of(bench, experiment, str(process.pid), began_ms)
    return Ending(code, log.read_text().splitlines(), runs, *results(bench, runs, name))


def runs_of(bench: Bench, experiment: str, pid: str, began_ms: int) -> dict[str, Run]:
    """Find the runs that a process made: run id -> run."""
    client = MlflowClient(bench.server)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return {}
    made = client.search_runs([found.experiment_id], f"attributes.start_time >= {began_ms - 1000}")
    return {run.info.run_id: run for run in made if run.data.tags.get(tags.PID) == pid}


def results(
    bench: Bench, runs: Mapping[str, Run], name: str
) -> tuple[dict[str, set[str]], Counter[str]]:
    """Return the results of runs, and how often each kind of object exists."""
    client, made = MlflowClient(bench.server), Counter[str]()
    values: dict[str, set[str]] = defaultdict(set)
    for one in runs.values():
        if one.info.status == "FINISHED":
            known = one.data.metrics.items()
            metrics = {key: f"{value:.9g}" for key, value in known if not is_how(key)}
            values[str(one.info.run_name)].add(str(sorted(metrics.items())))
            made[str(one.info.run_name)] += 1
            outputs = one.outputs.model_outputs if one.outputs else []
            made[f"model of {one.info.run_name}"] += len(outputs)
    for version in client.search_model_versions(f"name = '{name}'"):
        about = {key: version.tags.get(key) for key in ("model_sha256", "outcome", "rmse_test")}
        values["version"].add(f"{about} {version.aliases}")
        made[f"version {about['model_sha256']}"] += 1
    return values, made


# --- judging


def undisturbed(bench: Bench, step: str) -> Whole:
    """Run a step through a proxy without a fault."""
    with proxy_to(bench.server) as proxy:
        start = time.monotonic()
        ending = run(bench, step, f"{step}-whole", proxy)
    if ending.code != 0:
        raise RuntimeError(f"{step} does not end well where nothing goes wrong: {ending.said}")
    seconds = time.monotonic() - start
    print(f"{step}: {len(proxy.asked)} requests, {seconds:.1f} s", file=sys.stderr, flush=True)
    return Whole(proxy.asked, ending.results, ending.made)


def number_of(case: Case, asked: list[tuple[str, str]]) -> int | None:
    """Choose the request that meets the fault, different for each; None if no request may."""
    n = sum(case.fault.may_hit(*request) for request in asked)
    if case.moment.isdigit():
        return int(case.moment) if int(case.moment) < n else None
    if n < len(MOMENTS):
        return None
    within = FAULTS.index(case.fault) % max(1, n // len(MOMENTS))
    return {"opening": within, "middle": n // 3 + within, "closing": n - 1 - within}[case.moment]


def judge(bench: Bench, whole: Mapping[str, Whole], at: int, case: Case) -> list[str]:
    """Run a case; return words for what happened, of which the caller keeps count."""
    number = number_of(case, whole[case.step].asked)
    if number is None:
        return ["none to hit"]
    start = time.monotonic()
    with proxy_to(bench.server, case.fault, number) as proxy:
        ending = run(bench, case.step, f"{case.step}-{at}", proxy)
    if not proxy.hit:
        return ["not hit"]
    found = verdict(case, ending, whole[case.step])
    seconds = time.monotonic() - start
    where = f"{case.step}, {case.moment} ({number}: {' '.join(proxy.hit[0])}), {case.fault.name}"
    print(f"{where}: {', '.join(found)}, {seconds:.0f} s", file=sys.stderr, flush=True)
    print(*ending.said[-30:], sep="\n", file=sys.stderr, flush=True)
    return ["hit", *found]


def verdict(case: Case, ending: Ending, whole: Whole) -> list[str]:
    """Describe in a few words each how a step ended, and what is wrong with that."""
    found = []
    lines = [line for line in ending.said if line and not NOISE.match(line)]
    if any("Traceback" in line for line in lines):
        found.append("tracebacks")
    if ending.code is None:
        found.append("hangs")
    elif ending.code == 0:
        found.append("ended well" if ending.results == whole.results else "other results")
    elif ending.code == 2 and [line.split(": ")[0] for line in lines] == [case.step]:
        found.append("one line")
    else:
        found.append("other than one line")
    if any(n > max(1, whole.made[what]) for what, n in ending.made.items()):
        found.append("doubles")
    if not case.fault.is_for_good and any(is_left(one) for one in ending.runs.values()):
        found.append("left RUNNING")
    return found


def is_left(run: Run) -> bool:
    """Whether a run was left RUNNING, even if another step has closed it since."""
    reason = run.data.tags.get(tags.FAILURE)
    return run.info.status == "RUNNING" or reason == stale_runs.REASON
