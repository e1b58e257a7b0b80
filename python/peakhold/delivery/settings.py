"""How to deliver, and the environment variables that say so."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Durability = Literal["memory", "process", "power"]

METADATA_RATE_VARIABLE = "PEAKHOLD_METADATA_REQUESTS_PER_SECOND"

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", ""})


@dataclass(frozen=True)
class DeliverySettings:
    """How to deliver; `docs/environment.md` tells the variables.

    Attributes:
        state_dir: Where outbox and journals are; None for the user's own directory.
        durability: What reports outlive: nothing, the process, or a loss of power.
        outbox_mib: Size of the outbox.
        ttl: Seconds until a record expires.
        rate: Requests a second and destination.
        metadata_rate: Of these, requests with metadata.
        exit_seconds: Wait for deliveries at the end of the process.
        disabled: Whether the sinks do nothing.
    """

    state_dir: Path | None = None
    durability: Durability = "process"
    outbox_mib: float = 256.0
    ttl: float = 7 * 24 * 3600.0
    rate: float = 10.0
    metadata_rate: float = 4.0
    exit_seconds: float = 2.0
    disabled: bool = False

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None
    ) -> DeliverySettings:
        """Read them.

        Raises:
            ValueError: If a value cannot be used.
        """
        read = _Reader(os.environ if environ is None else environ)
        directory = read.text("PEAKHOLD_STATE_DIR")
        return cls(
            Path(directory).expanduser() if directory else None,
            read.durability("PEAKHOLD_DURABILITY"),
            read.number("PEAKHOLD_OUTBOX_MIB", cls.outbox_mib, "MiB"),
            read.number("PEAKHOLD_OUTBOX_TTL", cls.ttl, "seconds"),
            read.number(
                "PEAKHOLD_REQUESTS_PER_SECOND",
                cls.rate,
                "the requests a second and destination",
            ),
            read.number(
                METADATA_RATE_VARIABLE,
                cls.metadata_rate,
                "the metadata requests a second and destination",
            ),
            read.number("PEAKHOLD_EXIT_SECONDS", cls.exit_seconds, "seconds", least=0),
            read.flag("PEAKHOLD_DISABLED"),
        )

    def directory(self) -> Path:
        """Return the state directory."""
        if self.state_dir is not None:
            return self.state_dir
        from platformdirs import user_state_path

        return user_state_path("peakhold", appauthor=False)


class _Reader:
    """Values of environment variables, checked."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def number(
        self, name: str, default: float, unit: str, least: float | None = None
    ) -> float:
        text = self.text(name)
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        fits = value > 0 if least is None else value >= least
        if not (fits and value < math.inf):
            bound = "above 0" if least is None else f"of at least {least:g}"
            raise ValueError(f"{name} must be a number {bound}, {unit}, not {text!r}")
        return value

    def flag(self, name: str) -> bool:
        text = self.text(name)
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise ValueError(f"{name} must be True or False, not {text!r}")

    def durability(self, name: str) -> Durability:
        text = self.text(name).lower()
        for durability in get_args(Durability):
            if text == durability:
                return durability  # type: ignore[no-any-return] # mypy sees Any
        if text:
            names = ", ".join(get_args(Durability))
            raise ValueError(f"{name} must be one of {names}, not {text!r}")
        return DeliverySettings.durability
