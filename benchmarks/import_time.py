"""How much longer ``import gtc_pyg`` takes than ``import torch_geometric`` alone."""

import sys
from argparse import Namespace
from statistics import median
from subprocess import run

from harness import Options

LIMIT = 1.10
STATEMENTS = ["import torch_geometric", "import torch_geometric, gtc_pyg"]
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def seconds(statement: str) -> float:
    """Of a statement in a fresh interpreter."""
    command = [sys.executable, "-c", TIMED.format(statement)]
    return float(run(command, check=True, capture_output=True, text=True).stdout)


def measure(args: Namespace) -> None:
    """Prints the line; the first turn fills the file cache and does not count."""
    rounds = [[seconds(statement) for statement in STATEMENTS] for _ in range(args.repeats + 1)]
    alone, both = (median(column) for column in zip(*rounds[1:], strict=True))
    print(
        f"torch_geometric {alone:.3f} s, with gtc_pyg {both:.3f} s: "
        f"ratio {both / alone:.3f} (limit {LIMIT:.2f}, medians of {args.repeats})"
    )
    sys.exit(both > LIMIT * alone)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__)
    parser.add("--repeats", 9)
    parser.start(argv, measure)


if __name__ == "__main__":
    main()
