"""Reading a request body of bounded size, and refusing a larger one politely."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

MAX_BODY = 1024 * 1024
"""Largest body in bytes."""

_LINGER_BYTES = 8 * MAX_BODY
_LINGER_SECONDS = 2.0


class BodyTooLargeError(Exception):
    """More than MAX_BODY bytes were announced or have arrived."""


async def read_body(request: Request) -> bytes:
    """Read the body, of known length or chunked, as long as it is small enough.

    Raises:
        BodyTooLargeError: It is not; what is beyond the limit has not been read.
        ClientDisconnect: The client went away.
    """
    announced = request.headers.get("content-length", "0")
    # The HTTP parser has refused whatever is not a number.
    if int(announced) > MAX_BODY:
        raise BodyTooLargeError
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise BodyTooLargeError
    return bytes(body)


class TooLargeResponse(JSONResponse):
    """A 413 that reaches a client which is still sending.

    Closing a connection with unread bytes resets it, and the client sees a broken
    connection, which it would try again, instead of the 413. So the answer goes out
    first, and then a bounded part of the rest is read and thrown away.
    """

    def __init__(self) -> None:
        super().__init__(
            {"error": f"the body has more than {MAX_BODY:,} bytes; split it"},
            status_code=413,
            headers={"connection": "close"},
        )

    async def __call__(
        self,
        scope: Scope,  # noqa: ARG002 - the signature is ASGI's
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer, linger, close."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_discard(receive), _LINGER_SECONDS)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    discarded = 0
    while discarded < _LINGER_BYTES:
        message = await receive()
        discarded += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
