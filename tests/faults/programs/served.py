"""A WSGI application whose sink is made, and used, before the workers are forked."""

from __future__ import annotations

import os

from common import observe, sink

aggregator = sink()
observe(aggregator, "parent-once", unique_aggregator_key="parent-once")


def application(_environ, start_response):
    """Observe a frame in the worker that takes the request."""
    observe(aggregator, f"worker-{os.getpid()}")
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
