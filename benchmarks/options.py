"""Options of scripts that run on one data set at a time."""

import argparse
from collections.abc import Sequence
from pathlib import Path


def dataset_parser(
    doc: str | None, datasets: Sequence[str], default: str, out: Path
) -> argparse.ArgumentParser:
    """With --dataset, --root, --threads and --out; :func:`with_root` ends what it gives.

    Args:
        doc: The script's docstring, which is its help.
        datasets: What --dataset may be.
        default: The one that it is.
        out: The file that --out is.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=datasets, default=default)
    parser.add_argument("--root", help="folder with raw/ (default: data/<dataset>)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, default=out, help="CSV file of the result rows")
    return parser


def with_root(args: argparse.Namespace) -> argparse.Namespace:
    """The options, with the root of the data set where none was given."""
    args.root = args.root or f"data/{args.dataset}"
    return args
