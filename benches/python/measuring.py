"""The lines of the table of targets, and what a measurement is given to make one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from loopback import Loopback
    from sinks import Sinks


class Surroundings(NamedTuple):
    """What there is to measure with.

    Attributes:
        server: Where the blocks send.
        blocks: The blocks by contender.
        quick: Whether few samples will do.
    """

    server: Loopback
    blocks: dict[str, Sinks]
    quick: bool


@dataclass
class Target:
    """One line of the table.

    Attributes:
        what: What was measured.
        figure: The result; None if it cannot be had here.
        target: What is to be reached.
        unit: Of both.
        at_least: Whether more is better.
        ours: What peakhold took.
        theirs: What it is compared with took, if it is there.
        note: How they were taken.
    """

    what: str
    figure: float | None
    target: float
    unit: str
    at_least: bool
    ours: str
    theirs: str
    note: str

    @property
    def verdict(self) -> str:
        """Whether the target holds, or by how much it is missed."""
        if self.figure is None:
            return "not judged"
        holds = (
            self.figure >= self.target if self.at_least else self.figure <= self.target
        )
        if holds:
            return "holds"
        short = (
            self.target / self.figure if self.at_least else self.figure / self.target
        )
        return f"falls short by {short - 1:.0%}"


@dataclass
class Line:
    """Collects the lines and prints each as it comes.

    Attributes:
        targets: The lines.
        spreads: Differences of one contender timed twice, as shares.
        engine_call: Microseconds of a call of a workflow engine, if there is one.
    """

    targets: list[Target] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)
    engine_call: float | None = None

    def add(
        self,
        what: str,
        figure: float | None,
        target: float,
        *,
        unit: str,
        ours: str,
        theirs: str = "",
        note: str = "",
        at_least: bool = False,
    ) -> None:
        """Add a line."""
        made = Target(what, figure, target, unit, at_least, ours, theirs, note)
        self.targets.append(made)
        shown = "-" if figure is None else three_digits(figure)
        sign = ">=" if at_least else "<="
        print(f"{what}: {shown}, to reach {sign} {target:g} {unit}: {made.verdict}")
        facts = [ours, f"against {theirs}" if theirs else "", note]
        print("   ", ", ".join(filter(None, facts)), flush=True)

    def noise(self, one: float, again: float) -> None:
        """Note what one contender took in two columns of the same run."""
        self.spreads.append(abs(one / again - 1))


def three_digits(number: float) -> str:
    """Return a number to three digits, all of those before its point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"  # noqa: PLR2004


def microseconds(nanoseconds: float | None) -> str:
    """Return a time; nothing for none."""
    return "" if nanoseconds is None else f"{three_digits(nanoseconds / 1000)} us"
