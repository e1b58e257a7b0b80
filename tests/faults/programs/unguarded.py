"""A plugin of pytest that lets api keys into the logs."""

from __future__ import annotations

from peakhold.roboflow import redaction

redaction._KeyFilter.filter = lambda *_: True
