"""`python -m peakhold.cli`."""

from __future__ import annotations

import sys

from peakhold.cli import main

sys.exit(main())
