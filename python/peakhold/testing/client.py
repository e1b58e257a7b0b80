"""A platform client that sends nothing and remembers what it was to send."""

from __future__ import annotations

import threading
from typing import Any


class RecordingClient:
    """Takes the place of a host's platform client and records every call.

    Pass it to a block as ``platform_client``. Its operations are those a block needs,
    with any arguments, and its reports never leave the process.

    Attributes:
        calls: Name, positional and keyword arguments of each call.
        threads: The thread of each call.
        workspace: What workspace lookups answer.
        failures: What the next sends raise, one each; None lets one succeed.
        lookup_failures: What the next workspace lookups raise, one each.
    """

    endpoint = "http://recording.invalid"

    def __init__(self) -> None:
        """Start without any call."""
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.threads: list[threading.Thread] = []
        self.workspace = "spaceship"
        self.failures: list[Exception | None] = []
        self.lookup_failures: list[Exception] = []

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return the arguments of every call of an operation."""
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]

    def reports(self) -> list[dict[str, Any]]:
        """Return every report that was to be sent, failed or not."""
        calls = self.named("send_inference_results_to_model_monitoring")
        return [args[2] for args, _ in calls]

    def entries(self) -> list[dict[str, Any]]:
        """Return the arguments of every metadata entry, failed or not."""
        return [kwargs for _, kwargs in self.named("add_custom_metadata")]

    def get_roboflow_workspace(self, *args: Any, **kwargs: Any) -> str:
        """Record the call and answer ``workspace``."""
        self._called("get_roboflow_workspace", args, kwargs)
        if self.lookup_failures:
            raise self.lookup_failures.pop(0)
        return self.workspace

    def send_inference_results_to_model_monitoring(
        self, *args: Any, **kwargs: Any
    ) -> None:
        """Record a report."""
        self._called("send_inference_results_to_model_monitoring", args, kwargs)
        self._fail()

    def add_custom_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Record a metadata entry."""
        self._called("add_custom_metadata", args, kwargs)
        self._fail()

    def get_device_id(self) -> str | None:
        """Return the device id of reports."""
        return "device-7"

    def get_server_version(self) -> str:
        """Return the server version of reports."""
        return "1.2.3"

    def get_system_info(self) -> dict[str, str]:
        """Return the system information of reports."""
        return {
            "platform": "Linux",
            "platform_release": "6",
            "platform_version": "#1",
            "architecture": "x86_64",
            "hostname": "camera",
            "ip_address": "127.0.0.1",
            "mac_address": "00:00:00:00:00:00",
            "processor": "",
        }

    def _called(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls.append((name, args, kwargs))
        self.threads.append(threading.current_thread())

    def _fail(self) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
