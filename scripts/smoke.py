"""Send a frame through both sinks of the installed package and check what arrives."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

import numpy as np
import supervision as sv

import peakhold

# Not the user's own; removed at the exit, after the outbox in it was closed.
_STATE = tempfile.TemporaryDirectory(prefix="peakhold-smoke-")
os.environ["PEAKHOLD_STATE_DIR"] = _STATE.name


class RecordingClient:
    """A platform client that keeps what it is given."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self.metadata: list[tuple[str, list[str], str, str]] = []

    def get_roboflow_workspace(self, api_key: str) -> str:
        """Answer as the platform does for any key."""
        return f"workspace-of-{api_key}"

    def send_inference_results_to_model_monitoring(
        self,
        api_key: str,  # noqa: ARG002 - of the platform client's signature
        workspace_id: str,
        inference_data: dict[str, Any],
    ) -> None:
        """Keep the report."""
        self.reports.append({"workspace": workspace_id, **inference_data})

    def add_custom_metadata(
        self,
        api_key: str,  # noqa: ARG002 - as above
        workspace_id: str,
        inference_ids: list[str],
        field_name: str,
        field_value: str,
    ) -> None:
        """Keep the entry."""
        entry = (workspace_id, inference_ids, field_name, field_value)
        self.metadata.append(entry)

    def get_device_id(self) -> str:
        """Name this device."""
        return "smoke"

    def get_server_version(self) -> str:
        """Name the server's version."""
        return peakhold.__version__

    def get_system_info(self) -> dict[str, str]:
        """Leave the machine out."""
        return {}

    def build_api_headers(
        self, explicit_headers: dict[str, str] | None = None
    ) -> dict[str, str] | None:
        """Add no header."""
        return explicit_headers

    def wrap_url(self, url: str) -> str:
        """Use no gateway."""
        return url


def expect(found: object, expected: object) -> None:
    """End the program, naming both, unless they are equal."""
    if found != expected:
        sys.exit(f"expected {expected!r}, found {found!r}")


def main() -> None:
    """Run both sinks over one frame, synchronously."""
    frame = sv.Detections(
        xyxy=np.array([[0, 0, 9, 9], [1, 1, 8, 8], [2, 2, 7, 7]], dtype=np.float32),
        confidence=np.array([0.5, 0.75, 0.25], dtype=np.float32),
        class_id=np.array([0, 0, 1]),
        data={
            "class_name": np.array(["car", "car", "person"]),
            "inference_id": np.array(["a", "b", "b"]),
            "prediction_type": np.array(["object-detection"] * 3),
        },
    )
    client = RecordingClient()
    aggregator = peakhold.ModelMonitoringInferenceAggregatorBlockV1(
        api_key="smoke", platform_client=client
    )
    for _ in range(2):
        answer = aggregator.run(
            fire_and_forget=False,
            predictions=frame,
            frequency=1,
            unique_aggregator_key="smoke",
            model_id="smoke/1",
        )
        time.sleep(1.1)  # past the frequency of one second
    expect(answer, {"error_status": False, "message": "Data sent successfully"})
    peaks = [
        (peak["class_name"], peak["confidence"], peak["inference_id"])
        for peak in client.reports[0]["inference_results"]
    ]
    expect(client.reports[0]["workspace"], "workspace-of-smoke")
    expect(peaks, [("car", 0.75, "b"), ("person", 0.25, "b")])

    metadata = peakhold.RoboflowCustomMetadataBlockV1(
        api_key="smoke", platform_client=client
    )
    answer = metadata.run(
        fire_and_forget=False, field_name="site", field_value="a", predictions=frame
    )
    expect(answer["message"], "Custom metadata upload was successful")
    expect(client.metadata, [("workspace-of-smoke", ["a", "b"], "site", "a")])
    print(
        f"smoke: Python {sys.version.split()[0]}, numpy {np.__version__}, "
        f"supervision {sv.__version__}: both sinks delivered"
    )


if __name__ == "__main__":
    main()
