"""What this process is to break in itself, so that a test can be seen to fail."""

from __future__ import annotations

import os

MUTANT = os.environ.get("PEAKHOLD_TEST_MUTANT", "")
