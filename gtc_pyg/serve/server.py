r"""uvicorn with connections that end: those that say nothing, too little, or nonsense."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 20.0
KEEP_ALIVE_SECONDS = 5
LINGER_SECONDS = 20.0


class PatientProtocol(H11Protocol):
    r"""HTTP/1.1 as uvicorn speaks it, with limits that it lacks.

    - A request must come whole within :data:`REQUEST_SECONDS` of the connection, or of the answer
      before. uvicorn waits for ever.
    - Who does not take an answer within :data:`LINGER_SECONDS` after the connection was to end is
      cut off. uvicorn keeps it, with the connection.
    - After a chunk that is none the request gets its one answer, 400; uvicorn has the application
      answer as well, which ends in a traceback.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_whole()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            self._is_whole()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.timeout_keep_alive_handler)

    def _is_whole(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def timeout_keep_alive_handler(self) -> None:
        self.transport.close()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _should_upgrade(self) -> bool:
        return False  # and no warning for who asks

    def send_400_response(self, msg: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # what the application still says is dropped
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        super().send_400_response(msg)


def make_server(app: Any, longest_id: int) -> uvicorn.Server:
    r"""A server that ``run(sockets=[...])`` starts.

    Args:
        app: The application.
        longest_id: Bytes of the longest id that an address may have.
    """
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        h11_max_incomplete_event_size=2**16 + 3 * longest_id,  # %xx for each byte
    )
    return uvicorn.Server(config)
