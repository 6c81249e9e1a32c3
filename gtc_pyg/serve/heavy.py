r"""Requests that take long wait for each other and not for the rest."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers

from gtc_pyg.serve.guard import refusal

MAX_BYTES = 4_000_000
MAX_WAITING = 128
MAX_NESTED = 1000  # a body that is right has three
BODY_SECONDS = 15.0
UNREADABLE = "the body cannot be read: send JSON as UTF-8 text, in the documented form"
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_CLOSE = {"Connection": "close"}  # a body that is not wanted is not read either


def workers() -> int:
    r"""How many heavy requests are worked on at a time: one core is left to the light ones."""
    has = getattr(os, "sched_getaffinity", None)  # not everywhere
    return max(1, (len(has(0)) if has else os.cpu_count() or 1) - 1)


class HeavyRequests:
    r"""Lets few requests of some paths in at a time, in the order in which they have come whole.

    Bodies are read here, before a request waits: of known length, at most :data:`MAX_BYTES`, within
    :data:`BODY_SECONDS`. At most :data:`MAX_WAITING` requests are read or wait, the next is told to
    come again; one whose client has gone by its turn is dropped.

    Args:
        app: What answers.
        paths: Of heavy requests; those with a body all are.
    """

    def __init__(self, app: Any, paths: Collection[str]) -> None:
        self.app, self.paths = app, paths
        self.turn = asyncio.Semaphore(workers())
        self.waiting = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with_body = scope["type"] == "http" and scope["method"] == "POST"
        if not with_body and scope.get("path") not in self.paths:
            return await self.app(scope, receive, send)
        refused = _refused_body(Headers(scope=scope)) if with_body else None
        if refused is None and self.waiting >= MAX_WAITING:
            refused = refusal(
                503, "too many requests wait: try again", _CLOSE | {"Retry-After": "5"}
            )
        if refused is not None:
            return await refused(scope, receive, send)
        self.waiting += 1
        try:
            await self._in_turn(scope, receive, send, with_body)
        finally:
            self.waiting -= 1

    async def _in_turn(self, scope: Any, receive: Any, send: Any, with_body: bool) -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive) if with_body else b""
        except TimeoutError:
            why = f"the body did not come within {BODY_SECONDS:.0f} seconds"
            return await refusal(408, why, _CLOSE)(scope, receive, send)
        if body is None:
            return
        if is_nested(body):
            return await refusal(400, UNREADABLE)(scope, receive, send)
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.ensure_future(_disconnect(receive))

        async def replay() -> Any:
            return messages.pop() if messages else await asyncio.shield(gone)

        try:
            async with self.turn:
                if not gone.done():
                    await self.app(scope, replay, send)
        finally:
            gone.cancel()


def _refused_body(headers: Headers) -> Any:
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or "transfer-encoding" in headers:
        return refusal(411, "send the body whole, with its Content-Length", _CLOSE)
    if len(length) > 18 or int(length) > MAX_BYTES:
        return refusal(413, f"the body must have at most {MAX_BYTES:,} bytes", _CLOSE)
    return None


def is_nested(body: bytes) -> bool:
    r"""Whether a body has more lists and objects than :data:`MAX_NESTED`, outside of texts.

    A million empty lists in 4 MB take seconds to parse, in which nobody is answered.
    """

    def count(text: bytes) -> int:
        return text.count(b"[") + text.count(b"{")

    return count(body) > MAX_NESTED and count(_TEXT.sub(b"", body)) > MAX_NESTED


async def _body(receive: Any) -> bytes | None:
    r"""The whole body; ``None`` where the client went before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _disconnect(receive: Any) -> Any:
    r"""Waits until the client has gone."""
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message
