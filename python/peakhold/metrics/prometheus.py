"""The figures of ``peakhold.health()`` for Prometheus (extra ``prometheus``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peakhold.metrics.figures import FIGURES, Health, read

try:
    from prometheus_client import REGISTRY
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "peakhold.metrics.prometheus needs prometheus-client, which is not installed: "
        'pip install "peakhold[prometheus]"',
        name=error.name,
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

_UNITS = {"s": "seconds"}


class HealthCollector(Collector):
    """Reads ``peakhold.health()`` at every scrape, and keeps nothing."""

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without values, so that registering reads nothing."""
        yield from _families({})

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        yield from _families(read())


def register(registry: CollectorRegistry = REGISTRY) -> HealthCollector:
    """Have ``peakhold.health()`` exported by a registry.

    Args:
        registry: Whose scrapes are to have the figures; the library's default one.

    Returns:
        What ``registry.unregister`` takes.

    Raises:
        ValueError: If the registry exports them already.
    """
    collector = HealthCollector()
    registry.register(collector)
    return collector


def _families(found: Health) -> Iterator[Metric]:
    for figure in FIGURES:
        family: CounterMetricFamily | GaugeMetricFamily = (
            CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
        )(
            figure.name.replace(".", "_"),
            figure.description,
            labels=figure.labels,
            unit=_UNITS.get(figure.unit, ""),
        )
        for labels, value in figure.samples(found):
            family.add_metric(labels, value)
        yield family
