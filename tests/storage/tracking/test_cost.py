"""The cost of a run is among its metrics, however it ended."""

import subprocess
import sys
import threading

import mlflow
import pytest

from storage import UserError
from storage.tracking import cost, runs, tags
from tests.stores import Store

COST = {tags.WALL_SECONDS, tags.CPU_SECONDS, tags.PEAK_MEMORY}


def work() -> None:
    """Use a few hundredths of a CPU second."""
    sum(number * number for number in range(2_000_000))


def test_threads_and_ended_processes_count_and_what_came_before_does_not() -> None:
    work()
    meter = cost.Meter()
    idle = meter.read()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with_thread = meter.read()
    code = "sum(number * number for number in range(2_000_000))"
    subprocess.run([sys.executable, "-c", code], check=True)
    with_process = meter.read()
    spent = [read[tags.CPU_SECONDS] for read in (idle, with_thread, with_process)]
    assert spent == sorted(spent)
    assert spent[0] < spent[1] / 2
    assert spent[1] < spent[2]
    assert set(idle) == COST
    whole = cost.Meter(whole_process=True).read()
    assert whole[tags.CPU_SECONDS] > with_process[tags.CPU_SECONDS]
    assert whole[tags.PEAK_MEMORY] > 20


@pytest.mark.parametrize("error", [None, UserError("no trips"), KeyboardInterrupt()])
def test_every_step_and_the_runs_below_it_tell_what_they_cost(
    store: Store, error: BaseException | None
) -> None:
    ids = []
    try:
        with runs.StepRun("hpo", ""):
            ids.append(mlflow.active_run().info.run_id)
            with runs.child_run("refit", {}) as child:
                ids.append(child.info.run_id)
                if error:
                    raise error
    except (UserError, KeyboardInterrupt):
        pass
    for run_id in ids:
        metrics = mlflow.get_run(run_id).data.metrics
        assert metrics.keys() == COST
        assert all(value > 0 for value in metrics.values())
