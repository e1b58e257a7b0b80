"""Who is timed: peakhold's sink and the plain-Python aggregator."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Protocol

from peakhold.blocks import ModelMonitoringInferenceAggregatorBlockV1
from peakhold.cli.bench.plain import PlainAggregator
from peakhold.cli.session import settle
from peakhold.roboflow import RoboflowClient, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peakhold.cli.bench.plain import Report

_API_KEY = "bench"
_NOWHERE = "http://localhost"
"""No request is made; if one were, it would not leave this machine."""


class Contender(Protocol):
    """An aggregator that can be timed."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    @property
    def run(self) -> Callable[..., Mapping[str, object]]:
        """The function that takes a frame, with the arguments of the sink."""

    @property
    def reports(self) -> Sequence[Report]:
        """The reports so far, in the order of their windows."""

    def finish(self) -> None:
        """Report the open window, and wait for what is still on its way."""


class PeakholdContender:
    """The sink as users have it: window, outbox, worker and client.

    Only the requests are not made: the client keeps the reports.

    Args:
        kept: Reports to keep; None for all of them.
    """

    name = "peakhold"

    def __init__(self, kept: int | None = None) -> None:
        self._client = _KeepingClient(kept)
        self.run = ModelMonitoringInferenceAggregatorBlockV1(
            api_key=_API_KEY, platform_client=self._client
        ).run

    @property
    def reports(self) -> Sequence[Report]:
        """See ``Contender``."""
        return [json.loads(body)["inference_results"] for body in self._client.bodies]

    def finish(self) -> None:
        """See ``Contender``."""
        settle()


class PlainContender:
    """The plain-Python aggregator, which keeps its reports itself."""

    name = "plain-python"

    def __init__(self) -> None:
        self._aggregator = PlainAggregator()
        self.run = self._aggregator.run

    @property
    def reports(self) -> Sequence[Report]:
        """See ``Contender``."""
        return self._aggregator.reports

    def finish(self) -> None:
        """See ``Contender``."""
        self._aggregator.flush()


class _KeepingClient(RoboflowClient):
    """Makes no request; what it would have sent it keeps.

    Attributes:
        bodies: Of the reports. A window of 1,000 classes, the most there are, is one.
    """

    def __init__(self, kept: int | None) -> None:
        super().__init__(Settings(api_base_url=_NOWHERE, system_info=False))
        self.bodies: deque[bytes] = deque(maxlen=kept)

    def get_roboflow_workspace(self, api_key: str) -> str:
        """Name the workspace after the key."""
        return api_key

    def send_report_body(
        self,
        api_key: str,  # noqa: ARG002 - of a request that is not made
        workspace_id: str,  # noqa: ARG002 - the same
        body: bytes,
        idempotency_key: str,  # noqa: ARG002 - the same
    ) -> None:
        """Keep a report's body."""
        self.bodies.append(body)
