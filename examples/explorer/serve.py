"""Explore a saved recommender in the browser: users, their lists, reasons, what-if.

    python examples/lfm2k.py --root data/lfm2k --models gtc --save outputs/saved/lfm2k
    python examples/explorer/serve.py outputs/saved/lfm2k        # then open http://127.0.0.1:8000

DIR is what Recommender.save(DIR) or --save DIR of the example scripts wrote. Pick a user, see their
history, list and reasons; drop or add an item and the list is made anew from the edited history,
without training. Nothing is written. There is no login: whoever reaches HOST:PORT sees all ids,
histories and item columns, so the default is this machine alone. --help of other scripts says how
they are trained (--seed, --epochs, ...); docs/explorer.md says what the page and its API do.
"""

import argparse
import socket
import sys

try:
    import uvicorn
    from api import make_app

    from gtc_pyg.recommend import Recommender
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("gtc_pyg"):
        raise
    sys.exit(f'The explorer needs {error.name}: pip install "gtc-pyg[recommend,serve]"')

import torch


def port_number(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"must be 0 (any free one) to 65535 (got {text!r})")
    return int(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of a saved recommender")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve (this machine)")
    parser.add_argument("--port", type=port_number, default=8000, help="default 8000; 0: any free")
    parser.add_argument(
        "--label",
        action="append",
        metavar="COLUMN",
        help="column of the items' table to show, repeatable (default: all columns of text)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)  # requests are answered side by side
    print(f"loading {args.dir} and embedding everybody ...", file=sys.stderr)
    try:
        app = make_app(Recommender.load(args.dir), args.label)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listening = socket.create_server((args.host, args.port), family=family)
    except OSError as error:
        sys.exit(
            f"cannot serve {args.host}:{args.port} ({error.strerror}): choose another --port or "
            "--host, or end what serves there"
        )
    host = f"[{args.host}]" if ":" in args.host else args.host
    print(f"http://{host}:{listening.getsockname()[1]} (Ctrl+C ends it)", flush=True)
    config = uvicorn.Config(app, log_level="warning")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
