"""Model Monitoring sinks for high-FPS vision pipelines, on a Rust core.

Importing the package loads the extension and NumPy, nothing else. The blocks and the
API client bring requests with them and are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

from peakhold._peakhold import (
    PeakAggregator,
    WindowSnapshot,
    __version__,
    build_profile,
    unique_inference_ids,
)
from peakhold.errors import PeakholdError

if TYPE_CHECKING:
    from peakhold.blocks import (
        ModelMonitoringInferenceAggregatorBlockV1,
        RoboflowCustomMetadataBlockV1,
    )
    from peakhold.blocks.flush import flush
    from peakhold.delivery.health import health
    from peakhold.notices import on_drop, on_error
    from peakhold.roboflow import RoboflowClient

__all__ = [
    "ModelMonitoringInferenceAggregatorBlockV1",
    "PeakAggregator",
    "PeakholdError",
    "RoboflowClient",
    "RoboflowCustomMetadataBlockV1",
    "WindowSnapshot",
    "__version__",
    "flush",
    "health",
    "on_drop",
    "on_error",
    "unique_inference_ids",
]

_LAZY = {
    "ModelMonitoringInferenceAggregatorBlockV1": "peakhold.blocks",
    "RoboflowCustomMetadataBlockV1": "peakhold.blocks",
    "RoboflowClient": "peakhold.roboflow",
    "flush": "peakhold.blocks.flush",
    "health": "peakhold.delivery.health",
    "on_drop": "peakhold.notices",
    "on_error": "peakhold.notices",
}

if build_profile != "release":
    warnings.warn(
        f"peakhold's extension is a {build_profile} build, many times slower than a "
        "release: build it with `maturin develop --release`",
        RuntimeWarning,
        stacklevel=2,
    )


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
