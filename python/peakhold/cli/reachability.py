"""Checks of the way to the endpoint: key, network, clock, workspace."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from peakhold.cli.findings import Finding, fail, ok, warn
from peakhold.roboflow import ApiKey, RoboflowClient, RoboflowError, Settings
from peakhold.roboflow.errors import UnexpectedStatusError
from peakhold.roboflow.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peakhold.cli.probe import Answer

_TOLERANCE = timedelta(seconds=60)
"""The statistics are by the minute; networks and headers cost a second or two."""


def check_reachability() -> Iterator[Finding]:
    """Yield what is found about the api key, and what the endpoint says to it."""
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        yield fail("settings", str(error), "set or unset that variable")
        return
    yield _check_key(settings)
    if settings.offline:
        yield warn(
            "endpoint",
            "OFFLINE_MODE is on: nothing is sent to any",
            "unset OFFLINE_MODE to use the network",
        )
        return
    client = RoboflowClient(settings)
    try:
        yield from _check_endpoint(client)
    finally:
        client.close()


def _check_key(settings: Settings) -> Finding:
    if settings.api_key is None:
        return fail(
            "api key",
            "there is none",
            "export ROBOFLOW_API_KEY=..., the private key of the workspace",
        )
    name = "ROBOFLOW_API_KEY"
    if not os.environ.get(name, "").strip():
        name = "API_KEY"
    return ok("api key", f"{name} has one")


def _check_endpoint(client: RoboflowClient) -> Iterator[Finding]:
    from peakhold.cli.probe import ask

    try:
        answer = ask(client)
    except RoboflowError as error:
        yield _failure("endpoint", error, client.settings.api_key)
        for check in ("clock", "workspace"):
            yield _unknown(check, "the endpoint did not answer")
        return
    through = f" through the proxy {answer.proxy}" if answer.proxy else ""
    yield ok("endpoint", f"{client.endpoint} answers{through}")
    yield _check_clock(answer)
    yield _check_workspace(client)


def _check_clock(answer: Answer) -> Finding:
    if answer.ahead is None:
        return warn(
            "clock",
            "the endpoint did not tell its time",
            "compare this machine's clock with another one's",
        )
    seconds = round(abs(answer.ahead).total_seconds())
    if abs(answer.ahead) > _TOLERANCE:
        side = "ahead of" if answer.ahead > timedelta(0) else "behind"
        return warn(
            "clock",
            f"it is {seconds:,} s {side} the endpoint's, and so are the times of "
            "reports",
            "synchronize it (NTP)",
        )
    return ok("clock", f"it agrees with the endpoint's within {max(seconds, 1)} s")


def _check_workspace(client: RoboflowClient) -> Finding:
    api_key = client.settings.api_key
    if api_key is None:
        return _unknown("workspace", "there is no api key")
    try:
        workspace = client.get_roboflow_workspace(ApiKey.of(api_key).reveal())
    except RoboflowError as error:
        return _failure("workspace", error, api_key)
    return ok("workspace", redact(repr(workspace), api_key))


def _failure(check: str, error: RoboflowError, api_key: ApiKey | str | None) -> Finding:
    message = redact(str(error), api_key)
    # The last sentence of these errors is the remedy; a plain status has none.
    text, stop, remedy = message.rpartition(". ")
    if not stop or isinstance(error, UnexpectedStatusError):
        return fail(check, message, "check API_BASE_URL, or try again later")
    return fail(check, text, remedy)


def _unknown(check: str, why: str) -> Finding:
    return warn(check, f"not checked: {why}", "put that right first")
