"""Call a function of `frames` in an exit handler that runs after all of peakhold's."""

from __future__ import annotations

import atexit
import sys

# Registered first, so that it runs last.
atexit.register(lambda: getattr(frames, sys.argv[1])("late"))

import frames  # noqa: E402 - see above

getattr(frames, sys.argv[1])("early")
