"""The root of peakhold's own exceptions."""

from __future__ import annotations


class PeakholdError(Exception):
    """Root of every exception that peakhold defines; misuse is a ValueError or TypeError."""
