r"""Who may ask: the hosts that are expected, a token, and what browsers are told."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection

TOKEN = re.compile(r"[A-Za-z0-9_.~-]{8,256}")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The page loads nothing from elsewhere, and no other page may show it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src data:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def check_token(token: str | None) -> str | None:
    r"""Refuses a token that cannot be sent, or is guessed soon.

    Raises:
        ValueError: Says what it may be; the token itself is not repeated.
    """
    if token is not None and not TOKEN.fullmatch(token):
        raise ValueError("the token must be 8 to 256 letters, digits or characters of _.~-")
    return token


def refusal(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    r"""Why a request is not answered, in the form of all refusals."""
    return JSONResponse({"detail": why}, status, headers)


def is_loopback(address: str) -> bool:
    r"""Whether an IP address is this machine's own, which no other machine can reach."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class Guard:
    r"""Refuses requests for another host or without the token; adds :data:`HEADERS` to answers.

    The ``Host`` of a request must be the address that it came to (by scope ``server``), or one of
    ``names``; on a loopback address it may be ``localhost``, too. A page of another site whose name
    is made to resolve to this machine (DNS rebinding) sends that name, and is refused.

    The token is taken from ``Authorization: Bearer TOKEN``, or from a cookie, which
    ``/?token=TOKEN`` sets.

    Args:
        app: What answers.
        names: Further host names, without a port.
        token: 8 to 256 letters, digits or ``_.~-``; every request may ask where ``None``.

    Raises:
        ValueError: For a token of another form.
    """

    def __init__(self, app: Any, names: Iterable[str] = (), token: str | None = None) -> None:
        self.app, self.token = app, check_token(token)
        self.names = {_host(name) for name in names}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = HTTPConnection(scope)
        answer = self._wrong_host(request) or self._without_token(request) or self.app
        await answer(scope, receive, send_with_headers)

    def _wrong_host(self, request: HTTPConnection) -> Response | None:
        at = _host((request.scope.get("server") or ("",))[0])
        expected = self.names | ({at, *LOOPBACK} if is_loopback(at) else {at})
        given = request.headers.getlist("host")
        if len(given) == 1 and given[0] and _host(given[0]) in expected:
            return None
        return refusal(400, "this service does not go by that host name; see --name of the server")

    def _without_token(self, request: HTTPConnection) -> Response | None:
        if self.token is None:
            return None
        cookie = f"gtc_pyg_{(request.scope.get('server') or ('', 0))[1]}"  # ports share cookies
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if self._is_token(shown if scheme.lower() == "bearer" else request.cookies.get(cookie, "")):
            return None
        query = parse_qs(request.scope["query_string"].decode("latin-1"))
        if request.scope["path"] == "/" and self._is_token(query.get("token", [""])[0]):
            page = Response(status_code=303, headers={"Location": "./"})
            page.set_cookie(cookie, self.token, httponly=True, samesite="lax")
            return page
        why = "open the address that the server printed, or send Authorization: Bearer TOKEN"
        return refusal(401, why, {"WWW-Authenticate": "Bearer"})

    def _is_token(self, shown: str) -> bool:
        return secrets.compare_digest(shown.encode(), (self.token or "").encode())


def _host(text: str) -> str:
    r"""A host without its port, as it is compared: addresses in their shortest form."""
    text = re.sub(r":\d*$", "", text) if text.count(":") == 1 or "]" in text else text
    text = text.strip("[]").lower()
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    return str(getattr(address, "ipv4_mapped", None) or address)
