"""The endpoints: those of the platform that the sinks use, a page, and readiness."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from peakhold.monitor.bodies import BodyTooLargeError, TooLargeResponse, read_body
from peakhold.monitor.dashboard import HEADERS, render_dashboard
from peakhold.monitor.errors import InvalidRequestError, StoreError
from peakhold.monitor.payloads import MAX_NAME, WINDOWS_VERSION
from peakhold.monitor.statistics import parse_models, parse_period

if TYPE_CHECKING:
    from peakhold.monitor.ingest import Kind
    from peakhold.monitor.store import Store

logger = logging.getLogger("peakhold.monitor")

_INLINE_BODY = 32 * 1024
"""Bodies up to this size are parsed on the event loop: quicker than a thread's turn."""

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")

_EXPECTED_ERRORS = (
    InvalidRequestError,
    BodyTooLargeError,
    StoreError,
    HTTPException,
    ClientDisconnect,
)


def create_app(store: Store, workspace: str) -> Starlette:
    """Make the ASGI application.

    Any API key is accepted and none is kept; requests without one are refused, as the
    platform refuses them. The dashboard asks for none: it is for whoever can reach
    the address.

    Args:
        store: Where requests go. The caller closes it.
        workspace: The one workspace that there is.
    """
    endpoints = _Endpoints(store, workspace)
    reports = "/{workspace}/inference-stats"
    app = Starlette(
        routes=[
            Route("/", endpoints.workspace, methods=["GET"]),
            Route("/health", endpoints.health, methods=["GET"]),
            Route("/dashboard", endpoints.dashboard, methods=["GET"]),
            Route(reports, endpoints.statistics, methods=["GET"]),
            Route(reports, endpoints.report, methods=["POST"]),
            Route(f"{reports}/metadata", endpoints.metadata, methods=["POST"]),
            Route("/{workspace}/windows", endpoints.windows, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys(_EXPECTED_ERRORS, _answer_error),
    )
    # A redirect would repeat the query, api key included, in its Location.
    app.router.redirect_slashes = False
    return app


class _Endpoints:
    def __init__(self, store: Store, workspace: str) -> None:
        self._store = store
        self._workspace = workspace

    async def workspace(self, request: Request) -> Response:
        _require_api_key(request)
        monitor = {"windows": WINDOWS_VERSION}
        return JSONResponse({"workspace": self._workspace, "peakhold_monitor": monitor})

    async def report(self, request: Request) -> Response:
        return await self._store_body(request, "report")

    async def metadata(self, request: Request) -> Response:
        return await self._store_body(request, "metadata")

    async def windows(self, request: Request) -> Response:
        return await self._store_body(request, "windows")

    async def statistics(self, request: Request) -> Response:
        workspace = self._require_workspace(request)
        query = request.query_params
        period = parse_period(query.get("startTime"), query.get("endTime"))
        models = parse_models(query.get("modelNames"))
        return JSONResponse(
            await run_in_threadpool(self._store.statistics, workspace, period, models)
        )

    async def dashboard(self, request: Request) -> Response:
        model = request.query_params.get("model", "")[:MAX_NAME]
        live = request.query_params.get("live") == "1"
        return HTMLResponse(
            await run_in_threadpool(self._render, model, live=live), headers=HEADERS
        )

    async def health(self, _request: Request) -> Response:
        await run_in_threadpool(self._store.check)
        return JSONResponse({"status": "ok"})

    def _render(self, model: str, *, live: bool) -> str:
        overview = self._store.overview(self._workspace, model)
        return render_dashboard(overview, self._workspace, model, live=live)

    async def _store_body(self, request: Request, kind: Kind) -> Response:
        workspace = self._require_workspace(request)
        key = request.headers.get("idempotency-key")
        if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
            raise InvalidRequestError(
                "must have 1 to 255 visible ASCII characters", field="Idempotency-Key"
            )
        body = await read_body(request)
        submission = (kind, workspace, body, key)
        if len(body) <= _INLINE_BODY:
            future = self._store.submit(*submission)
        else:
            future = await run_in_threadpool(self._store.submit, *submission)
        stored = await asyncio.wrap_future(future)
        return JSONResponse({"status": "ok", "stored": stored})

    def _require_workspace(self, request: Request) -> str:
        _require_api_key(request)
        if request.path_params["workspace"] != self._workspace:
            raise HTTPException(
                404, f"there is no such workspace, this one is {self._workspace!r}"
            )
        return self._workspace


def _require_api_key(request: Request) -> None:
    if not request.query_params.get("api_key"):
        raise HTTPException(401, "the query has no api_key; any value will do here")


def _answer_error(_request: Request, error: Exception) -> Response:
    match error:
        case InvalidRequestError():
            return JSONResponse({"error": str(error), "field": error.field}, 400)
        case BodyTooLargeError():
            return TooLargeResponse()
        case StoreError():
            # The file's trouble, not the sender's: 503 has it sent again.
            logger.warning("a request could not be answered: %s", error)
            return JSONResponse({"error": str(error)}, 503, {"retry-after": "1"})
        case HTTPException():
            answer = {"error": error.detail}
            return JSONResponse(answer, error.status_code, error.headers)
        case ClientDisconnect():
            # Nobody reads this; 400 says that the request was never whole.
            return Response(status_code=400)
        case _:
            raise error
