"""The process that the chaos demo kills: both sinks, on what the environment says.

Writes the number of frames to standard output after each one that both sinks have
taken, so that whoever killed it knows what it had promised.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from dataclasses import replace
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from peakhold.blocks import (
    ModelMonitoringInferenceAggregatorBlockV1,
    RoboflowCustomMetadataBlockV1,
)
from peakhold.cli.player import Player
from peakhold.cli.predictions import supervision
from peakhold.cli.recording import Frame, load_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDING = "recordings/cascades.jsonl.gz"
_STRIDE = 300
"""Frames between the beginnings of two lives, so that each sees something else."""


def frames_of(life: int) -> Iterator[Frame]:
    """Yield the frames of a worker's life, for ever; its models are its own."""
    with as_file(files("peakhold.cli").joinpath(RECORDING)) as path:
        frames = load_frames([str(path)], default_model="")
    for frame in itertools.islice(itertools.cycle(frames), life * _STRIDE, None):
        yield Frame(
            tuple(
                replace(each, model_id=f"{each.model_id.partition('/')[0]}/{life}")
                for each in frame.predictions
            )
        )


def main(life: int, fps: float) -> None:
    """Play until killed."""
    # What goes wrong is wanted, and told by the demo.
    logging.getLogger("peakhold").setLevel(logging.ERROR)
    supervision()  # takes a second to import, which is not the first frame's
    player = Player(
        ModelMonitoringInferenceAggregatorBlockV1(),
        RoboflowCustomMetadataBlockV1(),
        frequency=1,
        aggregator_key="peakhold-chaos",
        field_name="source",
        field_value="peakhold demo --chaos",
    )
    player.play(frames_of(life), fps, _tell)


def _tell(taken: int) -> None:
    # A whole line at once: it is there, or it is not.
    os.write(1, b"%d\n" % taken)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
