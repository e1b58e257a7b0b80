"""The operations that delivery calls on a client, and in which form."""

from __future__ import annotations

from typing import Any, Protocol

_NAMED_OPERATIONS = {
    "send_inference_results_to_model_monitoring",
    "add_custom_metadata",
}


class PlatformClient(Protocol):
    """What a block needs of a client; any object with these operations will do."""

    def get_roboflow_workspace(self, api_key: str) -> str:
        """Return the workspace of an api key."""

    def send_inference_results_to_model_monitoring(
        self, api_key: str, workspace_id: str, inference_data: dict[str, Any]
    ) -> object:
        """Send one report."""

    def add_custom_metadata(
        self,
        api_key: str,
        workspace_id: str,
        inference_ids: list[str],
        field_name: str,
        field_value: str,
    ) -> object:
        """Send one metadata entry."""

    def get_device_id(self) -> str | None:
        """Return the device id of reports."""

    def get_server_version(self) -> str:
        """Return the server version of reports."""

    def get_system_info(self) -> dict[str, str] | None:
        """Return the system information of reports, if there is any."""


def sends_bodies(client: object) -> bool:
    """Whether a client is to get bodies, rather than calls of its named operations.

    Its class says so by ``sends_bodies = True``. That is void where a subclass, or the
    client itself, has a named operation of its own and does not say so anew: who
    overrides an operation wants it called. A mock never says so.
    """
    if not _NAMED_OPERATIONS.isdisjoint(getattr(client, "__dict__", ())):
        return False
    for kind in type(client).__mro__:
        if "sends_bodies" in vars(kind):
            return vars(kind)["sends_bodies"] is True
        if not _NAMED_OPERATIONS.isdisjoint(vars(kind)):
            return False
    return False
