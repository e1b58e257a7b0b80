"""What the reference blocks of this host send, recorded instead of sent."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from host import API_KEY, Host

from peakhold.roboflow import RoboflowClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

WORKSPACE = "local"


class Recording:
    """The operations that send something, and what they were given.

    Attributes:
        reports: Bodies of reports, as JSON would carry them.
        metadata: Bodies of metadata requests, likewise.
    """

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.metadata: list[dict[str, Any]] = []

    def get_roboflow_workspace(self, api_key: str) -> str:
        assert api_key == API_KEY
        return WORKSPACE

    def send_inference_results_to_model_monitoring(
        self, api_key: str, workspace_id: str, inference_data: dict[str, Any]
    ) -> None:
        assert (api_key, workspace_id) == (API_KEY, WORKSPACE)
        self.reports.append(json.loads(json.dumps(inference_data)))

    def add_custom_metadata(
        self,
        api_key: str,
        workspace_id: str,
        inference_ids: list[str],
        field_name: str,
        field_value: str,
    ) -> None:
        assert (api_key, workspace_id) == (API_KEY, WORKSPACE)
        entry = {
            "inference_ids": inference_ids,
            "field_name": field_name,
            "field_value": field_value,
        }
        self.metadata.append(json.loads(json.dumps({"data": [entry]})))


def _client(host: Host, recording: Recording) -> Any:
    """Return a platform client of the host whose sending operations record."""
    module = host.module("prototypes.platform_client")
    if host.standalone:
        # This host describes no machine; what is asked is answered as by the client
        # that peakhold takes from the environment.
        client = module.OfflineRoboflowPlatformClient()
        ours = RoboflowClient()
        for name in ("get_device_id", "get_server_version", "get_system_info"):
            setattr(client, name, getattr(ours, name))
    else:
        from inference.core.interfaces import roboflow_platform_client

        client = roboflow_platform_client.ServerRoboflowPlatformClient()
    for name in (
        "get_roboflow_workspace",
        "send_inference_results_to_model_monitoring",
        "add_custom_metadata",
    ):
        setattr(client, name, getattr(recording, name))
    return client


class _Cache:
    """The two operations of a host's cache, for the reference alone."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def set(self, key: str, value: Any, expire: float | None = None) -> None:
        self._values[key] = value


class ReferenceSinks:
    """Both reference blocks with a recording client.

    Attributes:
        recording: What they sent.
        aggregator: The aggregator block.
        metadata: The custom metadata block.
    """

    def __init__(self, host: Host, pool: ThreadPoolExecutor | None) -> None:
        self.recording = Recording()
        arguments: dict[str, Any] = {
            "cache": _Cache(),
            "api_key": API_KEY,
            "background_tasks": None,
            "thread_pool_executor": pool,
        }
        if host.split:
            arguments["platform_client"] = _client(host, self.recording)
        self.aggregator = (
            host.reference_aggregator.ModelMonitoringInferenceAggregatorBlockV1(
                **arguments
            )
        )
        self.metadata = host.reference_metadata.RoboflowCustomMetadataBlockV1(
            **arguments
        )


@contextmanager
def reference_sinks(
    host: Host, pool: ThreadPoolExecutor | None
) -> Iterator[ReferenceSinks]:
    """Make the reference blocks; hosts without platform client send by functions."""
    sinks = ReferenceSinks(host, pool)
    recording = sinks.recording
    with ExitStack() as patches:
        if not host.split:
            for module, names in (
                (
                    host.reference_aggregator,
                    (
                        "get_roboflow_workspace",
                        "send_inference_results_to_model_monitoring",
                    ),
                ),
                (
                    host.reference_metadata,
                    ("get_roboflow_workspace", "add_custom_metadata"),
                ),
            ):
                for name in names:
                    patches.enter_context(
                        mock.patch.object(module, name, getattr(recording, name))
                    )
        yield sinks
