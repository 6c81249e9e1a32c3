r"""Explore a saved recommender in the browser: users, their lists, reasons, what-if.

    python examples/lfm2k.py --root data/lfm2k --models gtc --save outputs/saved/lfm2k
    python -m gtc_pyg.serve outputs/saved/lfm2k        # then open http://127.0.0.1:8000

FOLDER is what Recommender.save(FOLDER) or --save FOLDER of the example scripts wrote. Pick a user,
see their history, list and reasons; drop or add an item and the list is made anew from the edited
history, without training. Nothing is written.

Without a token whoever reaches HOST:PORT sees all ids, histories and item columns. So the default
is this machine alone. Other addresses need --token, or --no-token where that is wanted. With
--token the printed address lets a browser in; programs send Authorization: Bearer TOKEN. Nothing is
encrypted: on a network that you do not trust put an HTTPS server before it, and give the host name
by which that is reached as --name.

In a checkout python examples/explorer/serve.py FOLDER is the same.
"""

import argparse
import secrets
import socket
import sys

try:
    import uvicorn  # noqa: F401

    from gtc_pyg.recommend import Recommender
    from gtc_pyg.serve.api import longest_id, make_app
    from gtc_pyg.serve.guard import check_token, is_loopback
    from gtc_pyg.serve.server import make_server
except ModuleNotFoundError as error:
    if error.name is None or error.name.startswith("gtc_pyg"):
        raise
    sys.exit(f'The explorer needs {error.name}: pip install "gtc-pyg[recommend,serve]"')

import torch


def port_number(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"must be 0 (any free one) to 65535 (got {text!r})")
    return int(text)


def token_text(text: str) -> str:
    try:
        check_token(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gtc_pyg.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dir", metavar="FOLDER", help="folder of a saved recommender")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve (this machine)")
    parser.add_argument("--port", type=port_number, default=8000, help="default 8000; 0: any free")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="host name that requests may be for besides the address they come to, repeatable",
    )
    access = parser.add_mutually_exclusive_group()
    access.add_argument(
        "--token",
        nargs="?",
        type=token_text,
        const=True,
        metavar="TOKEN",
        help="ask for it in every request; alone, as the last option: one is drawn",
    )
    access.add_argument(
        "--no-token", action="store_true", help="serve other addresses than loopback to everybody"
    )
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
    place = f"{args.host}:{args.port}"
    other = "choose another --port or --host, or end what serves there"
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        address = socket.getaddrinfo(args.host, args.port, family, socket.SOCK_STREAM)[0][-1]
    except (OSError, UnicodeError) as error:
        sys.exit(f"cannot serve {place} ({getattr(error, 'strerror', error)}): {other}")
    at = str(address[0])
    token = secrets.token_urlsafe(24) if args.token is True else args.token
    if not is_loopback(at) and token is None:
        everybody = f"whoever reaches {place} can read all ids, histories and item columns"
        if not args.no_token:
            sys.exit(
                f"{everybody}: give --token, or --no-token to serve them without one; --host "
                f"127.0.0.1 is this machine alone"
            )
        print(f"warning: {everybody} (--no-token)", file=sys.stderr)
    print(f"loading {args.dir} and embedding everybody ...", file=sys.stderr)
    try:
        recommender = Recommender.load(args.dir)
        app = make_app(recommender, args.label, [args.host, *args.name], token)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    try:
        listening = socket.create_server(address, family=family)
    except OSError as error:
        sys.exit(f"cannot serve {place} ({error.strerror}): {other}")
    host = f"[{args.host}]" if ":" in args.host else args.host
    page = f"http://{host}:{listening.getsockname()[1]}"
    print(f"{page}/?token={token}" if token else page, "(Ctrl+C ends it)", flush=True)
    make_server(app, longest_id(recommender)).run(sockets=[listening])


if __name__ == "__main__":
    main()
