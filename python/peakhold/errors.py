"""The root of peakhold's own exceptions."""

from __future__ import annotations


class PeakholdError(Exception):
    """Root of peakhold's exceptions; misuse is a ValueError or TypeError instead."""
