"""Measure every line of the table of targets in one run, and say which hold.

    python speed.py [--quick] [--json FILE]

`--quick` takes few samples: it shows that the harness works, not how fast anything is.
A target that needs what is not here, the floor or the reference blocks, is not judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import footprint
import loopback
import ratios
import reference
import sinks
import streams
from run_info import run_info


@dataclass
class Target:
    """One line of the table.

    Attributes:
        what: What was measured.
        figure: The result; None if it cannot be had here.
        target: What is to be reached.
        unit: Of both.
        at_least: Whether more is better.
        note: What the figure was made of.
    """

    what: str
    figure: float | None
    target: float
    unit: str
    at_least: bool
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
    """

    targets: list[Target] = field(default_factory=list)
    spreads: list[float] = field(default_factory=list)

    def add(
        self,
        what: str,
        figure: float | None,
        target: float,
        *,
        unit: str,
        note: str,
        at_least: bool = False,
    ) -> None:
        """Add a line."""
        made = Target(what, figure, target, unit, at_least, note)
        self.targets.append(made)
        shown = "-" if figure is None else f"{figure:,.2f}"
        sign = ">=" if at_least else "<="
        print(f"{what}: {shown}, to reach {sign} {target:g} {unit}: {made.verdict}")
        if note:
            print(f"    {note}", flush=True)

    def noise(self, one: float, again: float) -> None:
        """Note what one contender took in two columns of the same run."""
        self.spreads.append(abs(one / again - 1))


def measure(line: Line, *, quick: bool) -> None:
    """Measure everything."""
    ratios.against_floor(line, quick=quick)
    with loopback.serving() as server:
        sinks.connect(server.url)
        blocks = sinks.make(server)
        ratios.between_reports(line, blocks, quick=quick)
        streams.sustained(line, blocks, quick=quick)
        ratios.metadata(line, blocks, quick=quick)
        streams.requests(line, blocks, server, quick=quick)
        streams.worst_frame(line, blocks, quick=quick)
        footprint.memory(line, server, quick=quick)
        footprint.start_up(line, quick=quick)
        footprint.interpreter_held(line, server, quick=quick)
        sinks.finish()


def main() -> int:
    """Measure, print, write; a target that is missed is no failure."""
    parser = argparse.ArgumentParser(description="Measure the targets")
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not reference.installed():
        print(f"speed: {reference.MISSING}", file=sys.stderr)
    line = Line()
    measure(line, quick=options.quick)
    noise = max(line.spreads)
    print(f"noise floor: one contender timed twice differs by {noise:.1%} at most")
    if options.json:
        result = {
            "run": run_info(),
            "quick": options.quick,
            "noise": noise,
            "targets": [asdict(t) | {"verdict": t.verdict} for t in line.targets],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
