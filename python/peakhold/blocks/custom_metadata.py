"""Roboflow Custom Metadata: attaches a field to the inferences of a frame."""

from __future__ import annotations

from typing import Any

from peakhold._peakhold import unique_inference_ids
from peakhold.blocks.handover import (
    OFFLINE,
    SINK_DISABLED,
    Sink,
    SinkResult,
    failure,
    missing_key,
    result,
)
from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current
from peakhold.records import MetadataEntry, seal_metadata
from peakhold.texts import text_of

NO_INFERENCE_IDS = (
    "Custom metadata upload failed because no inference_ids were received. "
    "This is known bug (https://github.com/roboflow/inference/issues/567). "
    "Please provide a report for the problem under mentioned issue."
)
IN_BACKGROUND = "Registration happens in the background task"
SENT = "Custom metadata upload was successful"
FAILED = "Error while custom metadata registration."


class RoboflowCustomMetadataBlockV1(Sink):
    """Registers a field and its value for the inferences that made predictions.

    In the background, ids of many frames with one field and value go out together.
    """

    def run(
        self,
        fire_and_forget: bool,
        field_name: str,
        field_value: str,
        predictions: Any,
    ) -> SinkResult:
        """Register a field for the inferences of a frame.

        Args:
            fire_and_forget: Whether it may happen in the background.
            field_name: Name of the field.
            field_value: Its value; what is not a string is sent as its ``str``.
            predictions: ``sv.Detections`` or a classification dict. A frame without
                detections names its inference in ``metadata["inference_id"]``.

        Raises:
            ValueError: If there is no api key, neither given nor in the environment.
        """
        if self._disabled:
            return result(SINK_DISABLED)
        sender = self._sender
        if sender is None:
            raise missing_key("RoboflowCustomMetadata")
        ids = unique_inference_ids(predictions)
        if not ids:
            return result(NO_INFERENCE_IDS, error_status=True)
        name, value = text_of(field_name), text_of(field_value)
        offline = sender.offline
        if fire_and_forget or offline:
            schedule = self._schedule if fire_and_forget else None
            dispatcher = current()
            if sender.offers is None or sender.offers.owner is not dispatcher:
                REGISTRY.lend(dispatcher, sender)
            dispatcher.add_metadata(ids, name, value, sender, schedule)
            return {
                "error_status": False,
                "message": OFFLINE if offline else IN_BACKGROUND,
            }
        record = seal_metadata(
            sender.destination, (MetadataEntry(tuple(ids), name, value),)
        )
        error = current().deliver_now(record, sender)
        return result(SENT) if error is None else failure(FAILED, error, sender)
