"""Heavy requests: how many are worked on, in which order, and which are refused."""

import asyncio
import json
import time

import pytest

from gtc_pyg.serve import heavy
from gtc_pyg.serve.heavy import MAX_BYTES, HeavyRequests, is_nested


class Work:
    """Notes who begins and what came, and ends when it is told to."""

    def __init__(self):
        self.begun, self.now, self.most, self.end = [], 0, 0, asyncio.Event()

    async def __call__(self, scope, receive, send):
        message = await receive()
        self.begun.append((scope["name"], message["body"]))
        self.now += 1
        self.most = max(self.most, self.now)
        if scope["path"] == "/heavy":
            await self.end.wait()
        self.now -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})


class Request:
    """One request of a client that goes when it is told to."""

    def __init__(self, name, path="/heavy", body=b"", method="POST", length=None, parts=1):
        length = str(len(body)) if length is None else length
        headers = [(b"content-length", length.encode())] if length else []
        self.scope = {"type": "http", "method": method, "path": path, "headers": headers}
        self.scope["name"] = name
        size = -(-max(1, len(body)) // parts)
        self.parts = [body[i : i + size] for i in range(0, max(1, len(body)), size)]
        self.gone, self.sent = asyncio.Event(), []

    async def receive(self):
        if self.parts:
            part = self.parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self.parts)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None


async def settled():
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(heavy, "workers", lambda: 2)


def start(app, *requests):
    return [asyncio.create_task(app(r.scope, r.receive, r.send)) for r in requests]


def test_few_are_worked_on_in_their_order_and_light_ones_pass(two):
    async def run():
        work = Work()
        app = HeavyRequests(work, {"/heavy"})
        tasks = start(app, *(Request(n, body=b"abcdef", parts=3) for n in range(6)))
        tasks += start(app, Request(6, method="GET"))
        await settled()
        assert [name for name, _ in work.begun] == [0, 1]
        light = Request("light", path="/light", method="GET")
        await app(light.scope, light.receive, light.send)
        assert light.status == 200
        work.end.set()
        await asyncio.gather(*tasks)
        assert [name for name, _ in work.begun] == [0, 1, "light", 2, 3, 4, 5, 6]
        assert {body for name, body in work.begun if name in range(6)} == {b"abcdef"}
        assert work.most <= 3
        assert app.waiting == 0

    asyncio.run(run())


def test_a_request_whose_client_has_gone_is_not_worked_on(two):
    async def run():
        work = Work()
        app = HeavyRequests(work, {"/heavy"})
        requests = [Request(n) for n in range(5)]
        tasks = start(app, *requests)
        await settled()
        requests[3].gone.set()
        await settled()
        work.end.set()
        await asyncio.gather(*tasks)
        assert [name for name, _ in work.begun] == [0, 1, 2, 4]
        assert [r.status for r in requests] == [200, 200, 200, None, 200]

    asyncio.run(run())


def test_a_request_too_many_is_told_to_come_again(two, monkeypatch):
    monkeypatch.setattr(heavy, "MAX_WAITING", 3)

    async def run():
        work = Work()
        app = HeavyRequests(work, {"/heavy"})
        requests = [Request(n) for n in range(5)]
        tasks = start(app, *requests)
        await settled()
        assert [r.status for r in requests] == [None, None, None, 503, 503]
        assert (b"retry-after", b"5") in requests[3].sent[0]["headers"]
        work.end.set()
        await asyncio.gather(*tasks)
        assert [r.status for r in requests] == [200, 200, 200, 503, 503]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("", 411),
        ("-1", 411),
        ("1e3", 411),
        ("٣", 411),
        ("²", 411),
        (str(MAX_BYTES), 200),
        (str(MAX_BYTES + 1), 413),
        ("9" * 5000, 413),
    ],
)
def test_a_body_of_no_or_too_great_length_is_not_read(length, status):
    async def run():
        work = Work()
        work.end.set()
        request = Request(0, length=length)
        await HeavyRequests(work, set())(request.scope, request.receive, request.send)
        assert request.status == status
        assert len(request.parts) == (status != 200)

    asyncio.run(run())


def test_a_body_that_does_not_come_ends_and_takes_no_turn(two, monkeypatch):
    monkeypatch.setattr(heavy, "BODY_SECONDS", 0.05)

    async def run():
        work = Work()
        work.end.set()
        app = HeavyRequests(work, {"/heavy"})
        slow, half, whole = Request(0), Request(1), Request(2)
        slow.parts = []
        slow.receive = asyncio.Event().wait  # for ever
        half.parts = []
        half.gone.set()
        await asyncio.gather(*start(app, slow, half, whole))
        assert [name for name, _ in work.begun] == [2]
        assert (slow.status, half.status, whole.status) == (408, None, 200)
        assert app.waiting == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "nested"),
    [
        (json.dumps({"interactions": ["[{" * 3000, '"[' * 3000, "\\", "\\[" * 2000]}), False),
        (json.dumps({"user": "a", "exclude": list(range(10_000))}), False),
        (json.dumps([[]] * 1001), True),
        ("[" * 2000, True),
        (json.dumps({"interactions": ["]" * 3000, [{}] * 1001]}), True),
        ('"' + "[" * 2000, True),
    ],
)
def test_bodies_of_many_lists_are_not_parsed(body, nested):
    async def run():
        work = Work()
        work.end.set()
        request = Request(0, body=body.encode())
        await HeavyRequests(work, set())(request.scope, request.receive, request.send)
        assert (request.status, len(work.begun)) == ((400, 0) if nested else (200, 1))

    asyncio.run(run())


def test_looking_for_lists_takes_little_time():
    for body in (b'"' + b"[\\" * 1_300_000, b'"[' * 2_000_000, b'["",' * 1_000_000):
        start = time.perf_counter()
        is_nested(body)
        assert time.perf_counter() - start < 20  # a square of the length would be hours


def test_the_pool_leaves_a_core_to_light_requests(monkeypatch):
    monkeypatch.setattr(heavy.os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert heavy.workers() == 7
    monkeypatch.setattr(heavy.os, "sched_getaffinity", lambda _: range(1), raising=False)
    assert heavy.workers() == 1
