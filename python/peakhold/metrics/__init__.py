"""Exporters of what ``peakhold.health()`` tells, each with an extra of its own.

Importing this package imports neither library: ``peakhold.metrics.prometheus`` and
``peakhold.metrics.opentelemetry`` do.
"""
