"""The server on real sockets: connections that say nothing, too little, or nonsense."""

import logging
import socket
import threading
import time

import pytest

from gtc_pyg.serve import server as module
from gtc_pyg.serve.heavy import HeavyRequests
from gtc_pyg.serve.server import make_server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LIMITS = {"REQUEST_SECONDS": 0.4, "KEEP_ALIVE_SECONDS": 0.3, "LINGER_SECONDS": 0.3}


async def answer(scope, receive, send):
    """The length of the path, or as much as the path says."""
    body = await receive()
    while body.get("more_body"):
        body = await receive()
    path = scope["path"]
    text = b"x" * int(path[5:]) if path.startswith("/big/") else str(len(path)).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture(scope="module")
def started():
    """The port of a server with short limits, the server, and the errors that it logs."""
    errors, handler = [], logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in LIMITS.items():
            patch.setattr(module, name, value)
        server = make_server(HeavyRequests(answer, set()), longest_id=100_000)
        logging.getLogger("uvicorn.error").addHandler(handler)
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1], server, errors
        server.should_exit = True
        thread.join(20)
        logging.getLogger("uvicorn.error").removeHandler(handler)


@pytest.fixture
def served(started):
    """The same; afterwards it still answers and has logged no error."""
    port, _, errors = started
    errors.clear()
    yield started
    assert say(port, LAST)[0].count(b"200 OK") == 1
    assert errors == []


def say(port, *parts, pause=0.0):
    """All that the server answers until it closes, and the seconds until then."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            found = b""
            while more := connection.recv(2**16):
                found += more
        except (ConnectionResetError, BrokenPipeError):
            found = b""
    return found, time.monotonic() - start


def test_a_connection_that_says_nothing_is_closed(served):
    found, seconds = say(served[0])
    assert (found, 0.3 < seconds < 5) == (b"", True)


def test_a_head_that_comes_by_drops_is_cut_off(served):
    found, seconds = say(served[0], *(bytes([byte]) for byte in GET), pause=0.1)
    assert (found, seconds < 8) == (b"", True)


@pytest.mark.parametrize("again", [1, 3])
def test_a_connection_is_kept_for_more_and_closed_when_idle(served, again):
    found, seconds = say(served[0], *[GET] * again)
    assert found.count(b"200 OK") == again
    assert 0.2 < seconds < 5


def test_half_a_second_request_is_cut_off(served):
    found, seconds = say(served[0], GET, GET[:20], pause=0.1)
    assert found.count(b"200 OK") == 1
    assert seconds < 5


CHUNKED = b" / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 5\r\n"


@pytest.mark.parametrize(
    "chunk", [b"zz\r\nhello\r\n", b"5\r\nhelloX", b"-1\r\n", b"\xff\r\n", b"\xff" * 50]
)
@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
@pytest.mark.parametrize("length", [b"", LENGTH])
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_a_bad_chunk_is_refused_without_a_traceback(served, method, length, chunk, pause):
    found, _ = say(served[0], method + CHUNKED + length + b"\r\n", chunk, pause=pause)
    assert b" 500 " not in found
    assert found.count(b"HTTP/1.1 ") <= 2  # an answer, and 400 for what is no request


@pytest.mark.parametrize(
    "noise", [b"\0" * 100, b"\r\n" * 9, b"GET / HTTP/1.1\r\n\r\n", b"x" * 2**20]
)
def test_nonsense_ends_and_leaves_the_server_well(served, noise):
    assert b"200 OK" not in say(served[0], noise)[0]


def test_an_address_has_room_for_the_longest_id(served):
    head = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
    assert b"200 OK" in say(served[0], head % (b"%41" * 100_000))[0]
    assert b"200 OK" not in say(served[0], head % (b"%41" * 200_000))[0]


def test_who_takes_no_answer_is_cut_off(served):
    port, server, _ = served
    request = b"GET /big/%d HTTP/1.1\r\nHost: a\r\n\r\n" % 50_000_000
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(1) == b"H"
        until = time.monotonic() + 8
        while server.server_state.connections and time.monotonic() < until:
            time.sleep(0.05)
    assert not server.server_state.connections
