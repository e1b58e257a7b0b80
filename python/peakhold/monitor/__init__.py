"""A Model Monitoring endpoint that runs on this machine (extra `monitor`)."""

from __future__ import annotations

from peakhold.monitor.errors import InvalidRequestError, MonitorError, StoreError
from peakhold.monitor.server import MonitorServer, serve
from peakhold.monitor.store import Store, StoredRequest

__all__ = [
    "InvalidRequestError",
    "MonitorError",
    "MonitorServer",
    "Store",
    "StoreError",
    "StoredRequest",
    "serve",
]
