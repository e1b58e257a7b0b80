"""Who sends: this package's transport, told how by the host, or somebody's client."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from peakhold.roboflow import RoboflowClient, Settings
from peakhold.roboflow.system_info import IDENTIFYING
from peakhold.workflows.host import inference_is_imported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peakhold.roboflow.operations import PlatformClient
    from peakhold.workflows.host import Host

_SENDING = (
    "get_roboflow_workspace",
    "send_inference_results_to_model_monitoring",
    "add_custom_metadata",
)
_DESCRIBING = ("get_device_id", "get_server_version", "get_system_info")

_SERVER_CLIENT = (
    "inference.core.interfaces.roboflow_platform_client",
    "ServerRoboflowPlatformClient",
)

# What inference has no say in. Its own time-out of 120 s is made for models.
_OWN_VARIABLES = ("ROBOFLOW_API_REQUEST_TIMEOUT", "PEAKHOLD_SYSTEM_INFO")


class InferenceClient(RoboflowClient):
    """A client that ``inference`` tells where, how and as whom to send.

    Its functions are looked up at every call, as its own client does, so that what
    replaces one of them is heeded.
    """

    def __init__(self, settings: Settings) -> None:
        """See ``settings_of_inference``."""
        super().__init__(settings)
        self._api: Any = import_module("inference.core.roboflow_api")
        self._env: Any = import_module("inference.core.env")
        self._metrics: Any = import_module("inference.core.managers.metrics")
        self._urls: Any = import_module("inference.core.utils.url_utils")
        self._version: Any = import_module("inference.core.version")

    def wrap_url(self, url: str) -> str:
        """Return the URL as it is requested: through the gateway of ``inference``."""
        wrapped: str = self._urls.wrap_url(url)
        return wrapped

    def build_api_headers(
        self, explicit_headers: Mapping[str, str] | None = None
    ) -> dict[str, str] | None:
        """Merge headers with those that ``inference`` sends with every request."""
        headers = self._api.build_roboflow_api_headers(
            explicit_headers=dict(explicit_headers or {})
        )
        return {
            name: ", ".join(value) if isinstance(value, list) else value
            for name, value in headers.items()
        }

    def get_device_id(self) -> str | None:
        """Return the device id of ``inference``."""
        device_id: str | None = self._env.DEVICE_ID
        return device_id

    def get_server_version(self) -> str:
        """Return the version of ``inference``."""
        return str(self._version.__version__)

    def get_system_info(self) -> dict[str, str]:
        """Return what ``inference`` says about the machine.

        With ``PEAKHOLD_SYSTEM_INFO=off`` host name, IP and MAC address are ``""``.
        """
        facts = dict(self._metrics.get_system_info())
        if not self.settings.system_info:
            facts.update(dict.fromkeys(IDENTIFYING, ""))
        return facts


_inference_client: InferenceClient | None = None


def inference_client() -> InferenceClient | None:
    """Return the client of this process's ``inference``; None if it has none.

    One for all blocks, for its connections: a host may make blocks by the request.
    """
    global _inference_client  # noqa: PLW0603 - shared is the point
    if not inference_is_imported():
        return None
    settings = settings_of_inference()
    client = _inference_client
    if client is None or client.settings != settings:
        # No lock that a fork could leave held: at worst two threads make one each.
        client = _inference_client = InferenceClient(settings)
    return client


def settings_of_inference() -> Settings:
    """Return how this process's ``inference`` reaches the API.

    Headers and gateway are not among them: the client asks ``inference`` for those.
    """
    own = {name: os.environ[name] for name in _OWN_VARIABLES if name in os.environ}
    api: Any = import_module("inference.core.roboflow_api")
    return replace(
        Settings.from_environment(own),
        api_base_url=api.API_BASE_URL,
        verify_ssl=bool(api.ROBOFLOW_API_VERIFY_SSL),
        offline=bool(api.OFFLINE_MODE),
    )


def injected_client(client: object, host: Host) -> PlatformClient | None:
    """Return the client a block was given, if somebody made it to send with.

    The host's own server client is none, because this package's transport does the
    same on kept connections, and neither is one that cannot send: the placeholder of
    ``roboflow-workflows``, or a client for the operations of other blocks.
    """
    kind = type(client)
    if client is None or (kind.__module__, kind.__qualname__) == _SERVER_CLIENT:
        return None
    stubs = tuple(
        host.optional("prototypes.platform_client", name)
        for name in ("RoboflowPlatformClient", "OfflineRoboflowPlatformClient")
    )
    if not all(_implements(client, name, stubs) for name in _SENDING):
        return None
    if not all(callable(getattr(client, name, None)) for name in _DESCRIBING):
        return None
    return client  # type: ignore[return-value]  # it has all the operations


def _implements(client: object, operation: str, stubs: tuple[object, ...]) -> bool:
    """Whether an operation is more than what is inherited from the host's stubs."""
    found = getattr(client, operation, None)
    function = getattr(found, "__func__", found)
    return callable(found) and all(
        function is not getattr(stub, operation, None) for stub in stubs
    )
