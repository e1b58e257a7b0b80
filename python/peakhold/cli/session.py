"""Both sinks on one client, from the first frame to the last acknowledgement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peakhold.blocks import (
    ModelMonitoringInferenceAggregatorBlockV1,
    RoboflowCustomMetadataBlockV1,
)
from peakhold.blocks.windows import REGISTRY
from peakhold.cli.player import Player
from peakhold.cli.predictions import supervision
from peakhold.delivery import current

if TYPE_CHECKING:
    from peakhold.cli.metering import MeteredClient
    from peakhold.outbox import Counts
    from peakhold.roboflow import ApiKey

_PATIENCE = 5.0
"""Seconds without a delivery after which what is pending counts as failed."""


@dataclass(frozen=True)
class Settled:
    """What became of everything that was pushed.

    Attributes:
        complete: Whether all of it was delivered.
        counts: Reports and metadata requests: delivered, pending, given up.
    """

    complete: bool
    counts: Counts


def open_player(
    client: MeteredClient,
    api_key: ApiKey | str,
    frequency: int,
    field: tuple[str, str],
    aggregator_key: str,
) -> Player:
    """Construct both sinks on one client.

    Args:
        client: Sends, and keeps the ledger.
        api_key: The key.
        frequency: Seconds from one report to the next.
        field: Name and value of the metadata of every inference.
        aggregator_key: Names the window.
    """
    supervision()  # takes a second to import, which is not the first frame's
    return Player(
        ModelMonitoringInferenceAggregatorBlockV1(
            api_key=api_key, platform_client=client
        ),
        RoboflowCustomMetadataBlockV1(api_key=api_key, platform_client=client),
        frequency=frequency,
        aggregator_key=aggregator_key,
        field_name=field[0],
        field_value=field[1],
    )


def settle() -> Settled:
    """Close the window and wait for what is pending, as long as some of it goes out."""
    dispatcher = current()
    REGISTRY.flush_all()
    delivered = -1
    while not (complete := dispatcher.flush(_PATIENCE)):
        before, delivered = delivered, dispatcher.counts().delivered
        if delivered == before:
            break
    counts = dispatcher.counts()
    dispatcher.close(0.0)  # or the exit would try again
    given_up = counts.parked or counts.dead or counts.dropped
    return Settled(complete and not given_up, counts)
