"""A Roboflow API on loopback that works, except where it is told not to."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from peakhold.testing.behaviours import Computed, answer_json
from peakhold.testing.server import MisbehavingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peakhold.testing.behaviours import Behaviour
    from peakhold.testing.server import Request

_PATHS = {"report": "/inference-stats", "metadata": "/inference-stats/metadata"}


class MisbehavingApi(MisbehavingServer):
    """The part of the Roboflow API that the sinks use; every fault has to be asked for.

    Attributes:
        workspace: What workspace lookups answer.
        is_monitor: Whether such an answer says that it is a peakhold monitor.
        lookups: What happens to the next workspace lookups instead, one each.
        failures: What happens to the next POST requests instead, one each.
        always: What happens to every POST request instead, unless it is None.
        faults: Asked about every POST request; None lets it succeed.
    """

    def __init__(self, *, tls: bool = False) -> None:
        """Bind a port; nothing is answered before the server is entered."""
        super().__init__(tls=tls)
        self.workspace: object = "spaceship"
        self.lookups: list[Behaviour] = []
        self.failures: list[Behaviour] = []
        self.always: Behaviour | None = None
        self.faults: Callable[[Request], Behaviour | None] | None = None
        self._accepted: list[Request] = []
        self.is_monitor = False
        self.otherwise = Computed(self._route)

    def _route(self, request: Request) -> Behaviour:
        if request.method == "GET":
            if self.lookups:
                return self.lookups.pop(0)
            monitor = {"peakhold_monitor": {"windows": 1}} if self.is_monitor else {}
            return answer_json({"workspace": self.workspace, **monitor})
        behaviour = self._fault(request) or answer_json({})
        if behaviour.takes_effect:
            self._accepted.append(request)
        return behaviour

    def _fault(self, request: Request) -> Behaviour | None:
        if self.always is not None:
            return self.always
        if self.failures:
            return self.failures.pop(0)
        return self.faults(request) if self.faults else None

    def posts(self, *, kind: str | None = None) -> list[Request]:
        """Return every POST request that arrived, whatever was answered.

        Args:
            kind: ``"report"``, ``"metadata"``, or None for both.
        """
        return _of_kind(self.requests, kind)

    def accepted(self, *, kind: str | None = None) -> list[Request]:
        """Return every POST request that took effect, arrived answer or not.

        Args:
            kind: ``"report"``, ``"metadata"``, or None for both.
        """
        return _of_kind(self._accepted, kind)

    def lookup_count(self) -> int:
        """Return how often the workspace was looked up."""
        return sum(request.method == "GET" for request in list(self.requests))

    def results(self) -> list[dict[str, Any]]:
        """Return the results of every report that took effect."""
        return [
            result
            for request in self.accepted(kind="report")
            for result in request.json()["inference_results"]
        ]

    def entries(self) -> list[dict[str, Any]]:
        """Return every metadata entry that took effect."""
        return [
            entry
            for request in self.accepted(kind="metadata")
            for entry in request.json()["data"]
        ]


class RandomFaults:
    """Faults drawn at random, the same ones for the same seed.

    An instance is what ``MisbehavingApi.faults`` wants:

        api.faults = RandomFaults(7, (0.08, Answer(503)), (0.05, LostAcknowledgement()))
    """

    def __init__(self, seed: int, *odds: tuple[float, Behaviour]) -> None:
        """Draw from ``seed``; each fault comes with its probability."""
        self._random = random.Random(seed)  # noqa: S311 - repeatable is the point
        self._faults: Sequence[Behaviour | None] = [*(fault for _, fault in odds), None]
        self._weights = [odd for odd, _ in odds]
        self._weights.append(1.0 - sum(self._weights))

    def __call__(self, request: Request) -> Behaviour | None:
        """Return what happens to a request; None: nothing out of the ordinary."""
        del request  # it makes no difference
        return self._random.choices(self._faults, self._weights)[0]


def _of_kind(requests: list[Request], kind: str | None) -> list[Request]:
    end = "" if kind is None else _PATHS[kind]
    return [
        request
        for request in list(requests)
        if request.method == "POST" and request.path.endswith(end)
    ]
