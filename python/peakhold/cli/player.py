"""Pushes recorded frames through both sinks, as a pipeline would."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peakhold.cli.latency import Latencies
from peakhold.cli.pacing import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peakhold.blocks import (
        ModelMonitoringInferenceAggregatorBlockV1,
        RoboflowCustomMetadataBlockV1,
    )
    from peakhold.cli.recording import Frame
    from peakhold.cli.terminal import Progress


@dataclass
class Tally:
    """What was pushed, and what the sinks answered.

    Attributes:
        frames: Frames pushed.
        predictions: Predictions in them, one per model and frame.
        detections: Detections, or classes of classifications, in them.
        seconds: How long that took.
        errors: Answers with an error status, by their message.
    """

    frames: int = 0
    predictions: int = 0
    detections: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)


class Player:
    """Both sinks, and the settings they are run with.

    Attributes:
        tally: What happened so far.
        reporting: Durations of the run() of Model Monitoring.
        registering: Durations of the run() of Custom Metadata.
    """

    def __init__(
        self,
        aggregator: ModelMonitoringInferenceAggregatorBlockV1,
        metadata: RoboflowCustomMetadataBlockV1,
        *,
        frequency: int,
        aggregator_key: str,
        field_name: str,
        field_value: str,
    ) -> None:
        self._aggregator = aggregator
        self._metadata = metadata
        self._frequency = frequency
        self._aggregator_key = aggregator_key
        self._field_name = field_name
        self._field_value = field_value
        self.tally = Tally()
        self.reporting = Latencies()
        self.registering = Latencies()

    def play(
        self,
        frames: Iterable[Frame],
        fps: float,
        progress: Progress,
        seconds: float | None = None,
    ) -> None:
        """Push frames until there are no more, or the time is over.

        The tally is right whenever this returns or raises.

        Args:
            frames: Where they come from.
            fps: Frames per second; 0 for as fast as possible.
            progress: Told after every frame.
            seconds: When to stop at the latest.
        """
        schedule = Schedule(fps)
        tally = self.tally
        start = time.perf_counter()
        try:
            for frame in frames:
                schedule.wait()
                if seconds is not None and time.perf_counter() - start >= seconds:
                    break
                self._push(frame)
                progress(tally.frames)
        finally:
            tally.seconds += time.perf_counter() - start

    @property
    def rejected(self) -> dict[str, int]:
        """Rows that the window did not take, by reason."""
        return self._aggregator.rejected

    def _push(self, frame: Frame) -> None:
        clock = time.perf_counter_ns
        for prediction in frame.predictions:
            made = prediction.make(prediction.inference_id or str(uuid.uuid4()))
            begin = clock()
            report = self._aggregator.run(
                fire_and_forget=True,
                predictions=made,
                frequency=self._frequency,
                unique_aggregator_key=self._aggregator_key,
                model_id=prediction.model_id,
            )
            middle = clock()
            registration = self._metadata.run(
                fire_and_forget=True,
                field_name=self._field_name,
                field_value=self._field_value,
                predictions=made,
            )
            end = clock()
            self.reporting.add(middle - begin)
            self.registering.add(end - middle)
            self.tally.predictions += 1
            self.tally.detections += prediction.rows
            for answer in (report, registration):
                if answer["error_status"]:
                    self.tally.errors[str(answer["message"])] += 1
        self.tally.frames += 1
