"""Peak memory of preprocess on twelve months relative to one, and of pipelines on large months."""

from collections.abc import Iterator
from tempfile import TemporaryDirectory
from time import perf_counter

from bench import Result, peak_mib
from bench.flat import N_HPO_ROUNDS, preprocess

N_YELLOW, N_RIDES = 3_000_000, 20_000_000
MONTHS = ("--train_months=2023-01", "--valid_months=2023-02", "--test_months=2023-03")


def measure() -> Iterator[Result]:
    """Run preprocess twice, each in its own process."""
    one, twelve = (peak_of(months) for months in ("2020-01", "2020-01..2020-12"))
    what = "preprocess, peak memory of 12 months of 1,000,000 trips over 1"
    yield Result(what, f"{twelve / one:.2f}x ({twelve:.0f} / {one:.0f} MiB)", "1.2x")


def peak_of(train_months: str) -> float:
    """Preprocess simulated months; return the process's peak resident memory, MiB."""
    with TemporaryDirectory() as folder:
        return preprocess(f"sqlite:///{folder}/mlflow.db", train_months)


def measure_main() -> Iterator[Result]:
    """Run the whole pipeline on months as large as those of yellow cabs, with one trial."""
    asked = ("--taxi=yellow", f"--source=simulated:{N_YELLOW}", *MONTHS)
    with TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        peak = peak_mib(uri, "steps.main", *asked, "--models=mean", "--max_evals=1")
    what = f"main on simulated months of {N_YELLOW:,} yellow trips, peak memory of any process"
    yield Result(what, f"{peak / 1024:.2f} GiB", "3 GiB")


def measure_rides() -> Iterator[Result]:
    """Run the steps of a pipeline on months of app rides, with boosters of only a few rounds.

    With all rounds they would take hours.
    """
    asked = ("--taxi=fhvhv", f"--source=simulated:{N_RIDES}", *MONTHS)
    mean, one = "--models=mean", "--max_evals=1"
    with TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        for step, command in {
            "preprocess": ("steps.preprocess", *asked),
            "baseline": ("steps.baseline", *asked, mean),
            "hpo": ("bench.flat", "hpo", *asked, one),
            "register": ("steps.register", *asked, mean, one),
        }.items():
            start = perf_counter()
            peak = peak_mib(uri, *command)
            minutes = (perf_counter() - start) / 60
            what = f"{step} of months of {N_RIDES:,} simulated app rides, {N_HPO_ROUNDS} rounds"
            yield Result(
                f"{what} a booster: peak memory; time",
                f"{peak / 1024:.2f} GiB; {minutes:.0f} min",
                "6 GiB",
            )
