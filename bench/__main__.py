"""Run the measurements named, or all of them, and print them as a table.

python -m bench [cleaning memory steps reuse serving score accuracy ablation]
"""

import sys
from collections.abc import Callable, Iterator

from bench import Result, ablation, accuracy, cleaning, memory, reuse, score, serving, steps

MEASUREMENTS: dict[str, Callable[[], Iterator[Result]]] = {
    "cleaning": cleaning.measure,
    "memory": memory.measure,
    "steps": steps.measure,
    "reuse": reuse.measure,
    "serving": serving.measure,
    "score": score.measure,
    "accuracy": accuracy.measure,
    "ablation": ablation.measure,
}


def main() -> None:
    """Print one row per number as it is measured."""
    names = sys.argv[1:] or list(MEASUREMENTS)
    print("| what | measured | must |\n|---|---|---|")
    for name in names:
        for result in MEASUREMENTS[name]():
            print(f"| {result.what} | {result.measured} | {result.must} |", flush=True)


if __name__ == "__main__":
    main()
