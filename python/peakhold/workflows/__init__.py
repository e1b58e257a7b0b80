"""The plugin for Roboflow workflows: ``WORKFLOWS_PLUGINS=peakhold.workflows``.

Importing it picks the host and imports nothing of it; ``load_blocks``, which the host
calls, does. This package is the only part of peakhold that imports a host.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from peakhold.workflows.configuration import (
    TooLateError,
    configure,
    in_place_was_promised,
)
from peakhold.workflows.host import CORE, find_host
from peakhold.workflows.identity import NotInPlaceError, report, taken_identifiers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BLOCKS_SOURCE",
    "REGISTERED_INITIALIZERS",
    "NotInPlaceError",
    "TooLateError",
    "configure",
    "load_blocks",
]

_HOST = find_host()

BLOCKS_SOURCE = CORE
"""The host's own namespace: its init parameters are the blocks', too."""

_loaded: list[type] = []

REGISTERED_INITIALIZERS: dict[str, Callable[[], Any]] = (
    {
        name: partial(_HOST.init_parameter, name)
        for name in (
            "api_key",
            "cache",
            "background_tasks",
            "thread_pool_executor",
            "disable_sinks",
        )
    }
    if _HOST.names_by_plugin
    else {}
)
"""Init parameters, for hosts that look them up under the name of the plugin."""


def load_blocks() -> list[type]:
    """Return the blocks; the host calls this whenever it compiles a workflow.

    Raises:
        NotInPlaceError: If a reference block is still there, and the program called
            ``configure`` or set ``PEAKHOLD_IN_PLACE``.
        ValueError: If ``PEAKHOLD_IN_PLACE`` is neither on nor off.
    """
    if not _loaded:
        report(taken_identifiers(_HOST), required=in_place_was_promised())
        from peakhold.workflows import blocks

        # At once: another thread may look.
        _loaded[:] = (
            blocks.ModelMonitoringInferenceAggregatorBlockV1,
            blocks.RoboflowCustomMetadataBlockV1,
            blocks.ModelMonitoringInferenceAggregatorBlockV2,
        )
    return list(_loaded)
