"""Time the core without Python (criterion), and write what came out as a small file.

python scripts/bench_rust.py [--quick] [--results DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import at, write

_ROOT = Path(__file__).resolve().parent.parent
_MANIFEST = _ROOT / "benches" / "rust" / "Cargo.toml"
_QUICK = ("--warm-up-time", "0.05", "--measurement-time", "0.05")


def measure(target: Path, *, quick: bool) -> None:
    """Run every benchmark of `benches/rust`."""
    command = ["cargo", "bench", "--locked", "--quiet", "--manifest-path", _MANIFEST]
    if quick:
        command += ["--benches", "--", *_QUICK]
    subprocess.run(
        list(map(str, command)),
        env=os.environ | {"CARGO_TARGET_DIR": str(target)},
        check=True,
    )


def collect(criterion: Path) -> list[dict[str, Any]]:
    """Return nanoseconds of an iteration of each benchmark, over its samples."""
    rows = []
    for file in sorted(criterion.rglob("new/sample.json")):
        about = json.loads((file.parent / "benchmark.json").read_text("utf-8"))
        sample = json.loads(file.read_text("utf-8"))
        pairs = zip(sample["times"], sample["iters"], strict=True)
        times = sorted(time / iterations for time, iterations in pairs)
        rows.append(
            {
                "group": about["group_id"],
                "case": about["value_str"],
                "rounds": len(times),
                **{
                    name: round(at(times, share), 1)
                    for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
                },
            }
        )
    return rows


def main() -> int:
    """Measure, write."""
    parser = argparse.ArgumentParser(description="Time the core")
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument("--results", type=Path, metavar="DIR")
    options = parser.parse_args()
    # A target of its own: the core is built here as a dependency, for release.
    target = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target")) / "benches"
    measure(target, quick=options.quick)
    if options.results:
        rows = collect(target / "criterion")
        write(options.results / "rust.json", {"quick": options.quick, "rows": rows})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
