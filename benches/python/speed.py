"""Measure every line of the table of targets in one run, and say which hold.

    python speed.py [--quick] [--json FILE] [--only NAME]

`--quick` takes few samples: it shows that the harness works, not how fast anything is.
A target that needs what is not here, the floor or the reference blocks, is not judged.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import durability
import engine
import footprint
import loopback
import ratios
import reference
import sinks
import streams
from measuring import Line, Surroundings
from run_info import run_info

if TYPE_CHECKING:
    from collections.abc import Iterable


MEASUREMENTS = {
    "floor": ratios.against_floor,
    "models": ratios.models_in_turn,
    "statistics": ratios.statistics,
    "between": ratios.between_reports,
    "sustained": streams.sustained,
    "durability": durability.durability,
    "metadata": ratios.metadata,
    "requests": streams.requests,
    "tail": streams.worst_frame,
    "memory": footprint.memory,
    "import": footprint.start_up,
    "interpreter": footprint.interpreter_held,
    "engine": engine.engine_call,
}


def measure(line: Line, names: Iterable[str], *, quick: bool) -> None:
    """Measure what is named."""
    with loopback.serving() as server, sinks.scratch() as state:
        sinks.connect(server.url, state)
        for name in names:
            # New blocks: the reference reports all frames that a block has ever seen.
            MEASUREMENTS[name](line, Surroundings(server, sinks.make(server), quick))
        sinks.finish()


def main() -> int:
    """Measure, print, write; a target that is missed is no failure."""
    parser = argparse.ArgumentParser(description="Measure the targets")
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS)
    options = parser.parse_args()
    if not reference.installed():
        print(f"speed: {reference.MISSING}", file=sys.stderr)
    line = Line()
    measure(line, options.only or MEASUREMENTS, quick=options.quick)
    noise = max(line.spreads, default=None)
    if noise is not None:
        print(f"noise floor: one contender timed twice differs by {noise:.1%} at most")
    if options.json:
        result = {
            "run": run_info(),
            "quick": options.quick,
            "noise": noise,
            "engine_call": line.engine_call,
            "targets": [asdict(t) | {"verdict": t.verdict} for t in line.targets],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
