"""The figures of ``peakhold.health()`` for OpenTelemetry (extra ``opentelemetry``)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from peakhold import __version__
from peakhold.metrics.figures import FIGURES, Figure, Health, read

try:
    from opentelemetry.metrics import Observation, get_meter
except ImportError as error:
    raise ImportError(
        "peakhold.metrics.opentelemetry needs opentelemetry-api, which is not "
        'installed: pip install "peakhold[opentelemetry]"',
        name=error.name,
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, MeterProvider


class _Readings:
    """What ``health()`` returned: once for all instruments of a collection.

    Each instrument has a callback of its own, and the API does not say when a
    collection begins: one has when an instrument asks that has seen the reading. It is
    made by one thread.
    """

    def __init__(self) -> None:
        # Held, not derived from: a server may replace the class after the import.
        self._thread = threading.local()

    def of(self, name: str) -> Health:
        """Return a reading that the instrument has not seen."""
        mine = self._thread
        if name in getattr(mine, "seen_by", {name}):
            mine.found, mine.seen_by = read(), set()
        mine.seen_by.add(name)
        found: Health = mine.found
        return found


def register(meter_provider: MeterProvider | None = None) -> None:
    """Have ``peakhold.health()`` exported by a provider; call it once for each.

    Args:
        meter_provider: Whose readers are to have the figures; None for the global one,
            which may be set later.
    """
    meter = get_meter("peakhold", __version__, meter_provider)
    create = {
        "counter": meter.create_observable_counter,
        "sum": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }
    readings = _Readings()
    for figure in FIGURES:
        create[figure.kind](
            figure.name,
            [_callback(figure, readings)],
            unit=figure.unit,
            description=figure.description,
        )


def _callback(
    figure: Figure, readings: _Readings
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    names = [f"peakhold.{label}" for label in figure.labels]

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for labels, value in figure.samples(readings.of(figure.name)):
            yield Observation(value, dict(zip(names, labels, strict=True)))

    return observe
