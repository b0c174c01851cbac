"""Run the measurements named, or all of them, and print them as a table.

python -m bench [cleaning memory flat fuzz_months steps reuse same_bits serving load score live
                 judging estimate drift slices baselines large plan accuracy ablation coverage
                 zones_only dense search kills sweep dask backtest_kills server_faults image]

`search` stands for all that begin with it, such as search_cost; so do `cleaning`, `dask`, `flat`,
`load` and `memory`.
"""

import sys
from collections.abc import Callable, Iterator

from bench import (
    Result,
    ablation,
    accuracy,
    backtest_kills,
    baselines,
    cleaning,
    cleaning_workers,
    coverage,
    dask_kills,
    dense,
    drift,
    estimate,
    flat,
    fuzz_months,
    image,
    judging,
    kills,
    large,
    live,
    load,
    memory,
    reuse,
    same_bits,
    score,
    search,
    search_rivals,
    search_rows,
    search_workers,
    server_faults,
    serving,
    slices,
    steps,
    sweep,
    zones_only,
)

MEASUREMENTS: dict[str, Callable[[], Iterator[Result]]] = {
    "cleaning": cleaning.measure,
    "cleaning_dask": cleaning_workers.measure,
    "memory": memory.measure,
    "memory_main": memory.measure_main,
    "memory_rides": memory.measure_rides,
    "flat_hpo": flat.measure_hpo,
    "flat_refit": flat.measure_refit,
    "flat_threads": flat.measure_threads,
    "fuzz_months": fuzz_months.measure,
    "steps": steps.measure,
    "reuse": reuse.measure,
    "same_bits": same_bits.measure,
    "serving": serving.measure,
    "load": load.measure,
    "load_workers": load.measure_workers,
    "score": score.measure,
    "live": live.measure,
    "judging": judging.measure,
    "estimate": estimate.measure,
    "drift": drift.measure,
    "slices": slices.measure,
    "baselines": baselines.measure,
    "large": large.measure,
    "plan": large.measure_plan,
    "accuracy": accuracy.measure,
    "ablation": ablation.measure,
    "coverage": coverage.measure,
    "zones_only": zones_only.measure,
    "dense": dense.measure,
    "search_cost": search.measure_cost,
    "search_pruning": search.measure_pruning,
    "search_tracking": search.measure_tracking,
    "search_threads": search_workers.measure_threads,
    "search_dask": search_workers.measure_dask,
    "search_rivals": search_rivals.measure,
    "search_rows": search_rows.measure,
    "kills": kills.measure,
    "sweep": sweep.measure,
    "dask_memory": cleaning_workers.measure_memory,
    "dask_kills": dask_kills.measure,
    "backtest_kills": backtest_kills.measure,
    "server_faults": server_faults.measure,
    "image": image.measure,
}


def main() -> None:
    """Print one row per number as it is measured."""
    called = {name: {name, name.partition("_")[0]} for name in MEASUREMENTS}
    asked = set(sys.argv[1:]) or set(MEASUREMENTS)
    if unknown := sorted(asked.difference(*called.values())):
        raise SystemExit(f"No measurement is called {unknown[0]}. Choose from {[*MEASUREMENTS]}.")
    print("| what | measured | must |\n|---|---|---|")
    for name in (name for name, names in called.items() if names & asked):
        for result in MEASUREMENTS[name]():
            print(f"| {result.what} | {result.measured} | {result.must} |", flush=True)


if __name__ == "__main__":
    main()
