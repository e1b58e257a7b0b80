"""The reference blocks, where the environment has them."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

_SINKS = "roboflow_workflows.core_steps.sinks.roboflow"
MISSING = (
    "roboflow-workflows is not installed here: no column for the reference blocks, "
    "and the targets that compare with them cannot be judged"
)


@cache
def installed() -> bool:
    """Whether the reference blocks can be imported."""
    return find_spec("roboflow_workflows") is not None


def module(sink: str) -> Any:
    """Import the module of a sink."""
    return importlib.import_module(f"{_SINKS}.{sink}.v1")


def versions() -> dict[str, str]:
    """Return the version of the package that has the blocks, if it is here."""
    return {"roboflow-workflows": version("roboflow-workflows")} if installed() else {}


@cache
def platform_client(url: str) -> Any:
    """Return a client that sends to `url` as the host's does: a connection per call.

    The package alone brings none that sends.
    """
    import requests

    client_module = importlib.import_module(
        "roboflow_workflows.prototypes.platform_client"
    )

    class Client(client_module.OfflineRoboflowPlatformClient):  # type: ignore[name-defined, misc]
        def get_roboflow_workspace(self, api_key: str) -> str:
            answer = requests.get(url, params={"api_key": api_key}, timeout=10)
            return str(answer.json()["workspace"])

        def _post(self, path: str, api_key: str, body: dict[str, Any]) -> None:
            requests.post(
                f"{url}{path}", params={"api_key": api_key}, json=body, timeout=10
            ).raise_for_status()

        def add_custom_metadata(
            self,
            api_key: str,
            workspace_id: str,
            inference_ids: list[str],
            field_name: str,
            field_value: str,
        ) -> None:
            entry = {
                "inference_ids": inference_ids,
                "field_name": field_name,
                "field_value": field_value,
            }
            path = f"/{workspace_id}/inference-stats/metadata"
            self._post(path, api_key, {"data": [entry]})

        def send_inference_results_to_model_monitoring(
            self, api_key: str, workspace_id: str, inference_data: dict[str, Any]
        ) -> None:
            self._post(f"/{workspace_id}/inference-stats", api_key, inference_data)

        def get_device_id(self) -> None:
            return None

        def get_server_version(self) -> str:
            return "0.0.0"

        def get_system_info(self) -> dict[str, str]:
            return {}

    return Client()
