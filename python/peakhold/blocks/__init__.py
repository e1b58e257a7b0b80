"""The two sinks, free of any host."""

from __future__ import annotations

from peakhold.blocks.custom_metadata import RoboflowCustomMetadataBlockV1
from peakhold.blocks.model_monitoring import ModelMonitoringInferenceAggregatorBlockV1

__all__ = [
    "ModelMonitoringInferenceAggregatorBlockV1",
    "RoboflowCustomMetadataBlockV1",
]
