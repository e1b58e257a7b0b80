"""Under which type identifiers the blocks run: the reference's, or their own.

Two blocks with one identifier clash when a workflow is compiled, so a block takes the
place of its reference only where the host's configuration removed that.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from peakhold.environment import Environment
from peakhold.errors import PeakholdError
from peakhold.hosts import (
    IN_PLACE_VARIABLE,
    PATTERNS_VARIABLE,
    PLUGIN,
    REMOVING_PATTERNS,
)
from peakhold.workflows.host import inference_is_imported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peakhold.workflows.host import Host

_logger = logging.getLogger("peakhold.workflows")


class NotInPlaceError(PeakholdError):
    """The reference blocks are still there, and in place was asked for."""


@dataclass(frozen=True)
class Identity:
    """The names of a block.

    Attributes:
        own: The identifier that always works.
        reference: Identifiers of the reference block.
        pattern: What makes a host's configuration remove the reference block.
    """

    own: str
    reference: tuple[str, ...]
    pattern: str

    def identifiers(self, taken: frozenset[str]) -> tuple[str, ...]:
        """Return the identifiers to run under, given those that others have."""
        if self.is_free(taken):
            return (*self.reference, self.own)
        return (self.own,)

    def is_free(self, taken: frozenset[str]) -> bool:
        """Whether no other block has an identifier of the reference."""
        return taken.isdisjoint(self.reference)


AGGREGATOR = Identity(
    own="peakhold/model_monitoring_inference_aggregator@v1",
    reference=("roboflow_core/model_monitoring_inference_aggregator@v1",),
    pattern=REMOVING_PATTERNS[0],
)
CUSTOM_METADATA = Identity(
    own="peakhold/roboflow_custom_metadata@v1",
    reference=("roboflow_core/roboflow_custom_metadata@v1", "RoboflowCustomMetadata"),
    pattern=REMOVING_PATTERNS[1],
)
AGGREGATOR_OF_FEEDS = "peakhold/model_monitoring_inference_aggregator@v2"
"""Of the block without a reference; it runs under no other identifier."""
IDENTITIES = (AGGREGATOR, CUSTOM_METADATA)


def taken_identifiers(host: Host) -> frozenset[str]:
    """Return the type identifiers of all other blocks, as the host is configured."""
    loader = host.part("execution_engine.introspection.blocks_loader")
    blocks = list(loader.load_core_workflow_blocks())
    # From inference 1.6.1 to 1.7.2 the reference blocks are those of a plugin.
    for plugin in loader.get_plugin_modules():
        if plugin != PLUGIN:
            blocks += loader.load_blocks_from_plugin(plugin_name=plugin)
    return frozenset(
        identifier
        for block in blocks
        for identifier in _identifiers_of(block.manifest_class)
    )


def report(taken: frozenset[str], *, required: bool) -> None:
    """Say, in one line, which blocks are not in place and what would put them there.

    Args:
        taken: The identifiers of all other blocks.
        required: Whether the program asked for in place.

    Raises:
        NotInPlaceError: Instead, if it has to be in place.
        ValueError: If ``PEAKHOLD_IN_PLACE`` is neither on nor off.
    """
    beside = [identity for identity in IDENTITIES if not identity.is_free(taken)]
    required = _in_place_is_required() or required
    if not beside:
        return
    message = (
        f"peakhold runs beside the reference blocks, only as "
        f"{' and '.join(identity.own for identity in beside)}, not as "
        f"{' and '.join(identity.reference[0] for identity in beside)}. To put it in "
        f"their place {remedy(identity.pattern for identity in beside)}"
    )
    if required:
        raise NotInPlaceError(message)
    _logger.warning("%s", message)


def remedy(patterns: Iterable[str]) -> str:
    """Return what to do to have the reference blocks removed, as an imperative."""
    if inference_is_imported():
        return (
            f"add {','.join(patterns)} to the environment variable {PATTERNS_VARIABLE} "
            "before inference is imported"
        )
    return (
        "call peakhold.workflows.configure() before roboflow_workflows is imported "
        f"(it reads no {PATTERNS_VARIABLE}); where inference is installed, too, import "
        f"inference.core first, with {','.join(patterns)} in that variable"
    )


def _in_place_is_required() -> bool:
    return Environment().switch(IN_PLACE_VARIABLE, default=False)


def _identifiers_of(manifest: Any) -> tuple[Any, ...]:
    field = manifest.model_fields.get("type")
    return () if field is None else get_args(field.annotation)
