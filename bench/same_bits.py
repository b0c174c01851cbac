"""Run the whole demo with the arithmetic of this and of other machines: the bits must be equal.

Another machine's kernels stand in for the machine: OpenBLAS, numpy and libm choose theirs by the
processor, but can be told which to use.

SAME_BITS='--source=simulated:500 --max_evals=2' python -m bench same_bits

runs a smaller demo than the default of 3,000 trips a month and four trials.

SAME_BITS_FILE=bits.json python -m bench same_bits

writes the results to that file, or, if it exists, from another machine, counts the differences
from it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from bench import Result
from bench.search_lab import run, run_id, store
from storage.repro import verify
from storage.tracking import artifacts

SIZE = os.environ.get("SAME_BITS", "--source=simulated:3000 --max_evals=4").split()
HERE = {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
PLAIN = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4",
}
MACHINES: Mapping[str, Mapping[str, str]] = {
    "one thread": ONE_THREAD,
    "two threads, OpenBLAS for Prescott (2004)": HERE | {"OPENBLAS_CORETYPE": "Prescott"},
    "two threads, OpenBLAS for Sandybridge (2011)": HERE | {"OPENBLAS_CORETYPE": "Sandybridge"},
    "numpy and libm without AVX2 and FMA": HERE | PLAIN,
    "all of Prescott's, one thread": ONE_THREAD | PLAIN | {"OPENBLAS_CORETYPE": "Prescott"},
}
# files that are not compared: they hold run ids, times, or values that are free to differ
FREE = {"manifest.json", "outputs.json", "trials.csv", "boosters.csv"}
ENDINGS = (".csv", ".json", ".parquet", ".ubj")


def measure() -> Iterator[Result]:
    """Run the demo with each, and count the differences from this machine."""
    here = facts(HERE)
    file = os.environ.get("SAME_BITS_FILE")
    if file and Path(file).exists():
        yield compared("the machine that wrote the file", here, json.loads(Path(file).read_text()))
        return
    if file:
        Path(file).write_text(json.dumps(here, indent=1, sort_keys=True) + "\n")
    for machine, env in MACHINES.items():
        yield compared(machine, here, facts(env))


def compared(machine: str, here: Mapping[str, str], there: Mapping[str, str]) -> Result:
    """Count the metrics and hashes of a demo that differ from this machine's."""
    other = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    what = f"`main {' '.join(SIZE)}` with {machine}: of {len(here)} metrics and hashes other"
    return Result(what, ", ".join([str(len(other)), *other[:3]]), "0")


def facts(env: Mapping[str, str]) -> dict[str, str]:
    """Run the demo with these variables on a new store: run and metric or file -> its value."""
    with store() as uri:
        run(uri, "steps.main", *SIZE, env=env)
        client = MlflowClient(uri)
        whole = client.get_run(run_id(uri, "main"))
        return {
            f"{name}: {what}": value
            for name, part in verify.pipeline_runs(client, whole)
            for what, value in {**verify.comparable_facts(client, part), **files(part)}.items()
        }


def files(part: Run) -> dict[str, str]:
    """Hash the tables and models that a run logged: file -> sha256."""
    client, hashes = MlflowClient(), {}
    outputs = part.outputs.model_outputs if part.outputs else []
    models = [client.get_logged_model(output.model_id) for output in outputs]
    folders = {"run": str(part.info.artifact_uri)} | {m.name: m.artifact_location for m in models}
    for place, uri in folders.items():
        for name in artifacts.list_files(uri):
            if name.endswith(ENDINGS) and Path(name).name not in FREE:
                with artifacts.open_under(uri, name) as path:
                    content = path.read_bytes()
                # the folder of a model's files has a random name
                hashes[f"{place}/{Path(name).name}"] = hashlib.sha256(content).hexdigest()
    return hashes
