"""A WSGI application that calls both sinks for every request."""

from __future__ import annotations

import itertools
import os

from frames import aggregate, attach

numbers = itertools.count()


def application(_environ, start_response):
    """Answer with the name that both sinks were called with."""
    name = f"worker-{os.getpid()}-{next(numbers)}"
    aggregate(name)
    attach(name)
    start_response("200 OK", [("Content-Length", str(len(name)))])
    return [name.encode()]
