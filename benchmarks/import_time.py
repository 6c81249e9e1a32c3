"""How much longer ``import gtc_pyg`` takes than ``import torch_geometric`` alone.

Each measurement is a fresh interpreter, and the two statements take turns, so that a machine that
slows down meanwhile slows both. Prints one line and exits with 1 above the limit.
"""

import argparse
import statistics
import subprocess
import sys

LIMIT = 1.10
TIMED = """
import time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""


def seconds(statement: str) -> float:
    command = [sys.executable, "-c", TIMED.format(statement=statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    statements = ["import torch_geometric", "import torch_geometric, gtc_pyg"]
    for statement in statements:
        seconds(statement)  # fills the file cache
    rounds = [[seconds(statement) for statement in statements] for _ in range(args.repeats)]
    alone, both = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"torch_geometric {alone:.3f} s, with gtc_pyg {both:.3f} s: "
        f"ratio {both / alone:.3f} (limit {LIMIT:.2f}, medians of {args.repeats})"
    )
    return int(both > LIMIT * alone)


if __name__ == "__main__":
    sys.exit(main())
