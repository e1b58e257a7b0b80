"""Count the instructions of the Rust hot paths and compare with what was recorded.

    python scripts/bench_check.py [--record] [--counts DIR]

Counts do not depend on what else the machine does, so a change that costs 5 % is seen
where a timer sees nothing. callgrind makes them, on fixed input and with fixed hash
seeds (`cfg(peakhold_fixed_seeds)`), of `benches/rust/counts.rs`. They do depend on the
compiler: there is a file per version of rustc and target. Where there is none yet, it
is written, to be committed, and a warning printed. `--record` writes it in any case.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_COUNTS = _ROOT / "benches" / "instructions"
HOT_PATHS = (
    "observe_10",
    "observe_10_of_four_models",
    "observe_100",
    "observe_1000",
    "observe_1000_names_alone",
    "observe_10_with_statistics",
    "observe_100_with_statistics",
    "observe_1000_with_statistics",
    "unique_rows_one_of_100",
    "unique_rows_8_of_1000",
    "unique_rows_1000_of_1000",
    "drain_20_classes",
)
MOST_GROWTH = 0.05


def toolchain() -> str:
    """Return the version of rustc and its target, as a file is named."""
    printed = _output("rustc", "--version", "--verbose")
    fields = dict(line.split(": ", 1) for line in printed.splitlines() if ": " in line)
    return f"rustc-{fields['release']}-{fields['host']}"


def build() -> Path:
    """Compile the program that is counted; return the executable."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target")) / "counts"
    manifest = _ROOT / "benches" / "rust" / "Cargo.toml"
    subprocess.run(
        [
            *("cargo", "build", "--release", "--locked", "--quiet"),
            *("--manifest-path", str(manifest), "--bin", "counts"),
        ],
        # Dependencies get the flag as well; a target of its own keeps both builds.
        env=os.environ
        | {
            "RUSTFLAGS": "--cfg peakhold_fixed_seeds",
            "CARGO_TARGET_DIR": str(target),
        },
        check=True,
    )
    return target / "release" / "counts"


def count(executable: Path, hot_path: str) -> int:
    """Return the instructions of one entry into a hot path, rounded."""
    with tempfile.TemporaryDirectory() as scratch:
        printed = Path(scratch) / "callgrind.out"
        entered = _output(
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={printed}"),
            # The function of counts.rs, whatever the compiler made of its type.
            "--toggle-collect=counts::measured*",
            *(str(executable), hot_path),
        )
        totals = re.search(r"^totals: (\d+)$", printed.read_text(), re.MULTILINE)
    if totals is None or totals[1] == "0":
        message = f"callgrind collected nothing of {hot_path}: no counts::measured?"
        raise RuntimeError(message)
    return round(int(totals[1]) / int(entered))


def compare(recorded: dict[str, int], counted: dict[str, int]) -> list[str]:
    """Return what has grown too much, as sentences; print every hot path."""
    faults = []
    for name, now in counted.items():
        before = recorded.get(name)
        if before is None:
            faults.append(f"{name} has no recorded count: --record adds it")
            continue
        growth = now / before - 1
        print(f"{name:26}{before:>10,}{now:>10,}{growth:>+8.1%}")
        if growth > MOST_GROWTH:
            faults.append(
                f"{name} takes {growth:.1%} more instructions than recorded, "
                f"{MOST_GROWTH:.0%} is allowed: make it quicker, or say why in a "
                "commit that records it anew (--record)"
            )
    return faults


def main(arguments: list[str]) -> int:
    """Count, compare or record; the exit code is 1 if a hot path has grown."""
    parser = argparse.ArgumentParser(description="Count instructions")
    parser.add_argument("--record", action="store_true", help="replace what is there")
    parser.add_argument("--counts", type=Path, default=_COUNTS, metavar="DIR")
    options = parser.parse_args(arguments)
    if shutil.which("valgrind") is None:
        print("bench-check: there is no valgrind here; install it (Debian: valgrind)")
        return 1
    executable = build()
    counted = {name: count(executable, name) for name in HOT_PATHS}
    pair = toolchain()
    file = options.counts / f"{pair}.json"
    if file.exists() and not options.record:
        print(f"{pair:26}{'recorded':>10}{'now':>10}")
        faults = compare(json.loads(file.read_text(encoding="utf-8")), counted)
        for fault in faults:
            print(f"bench-check: {fault}")
        return 1 if faults else 0
    options.counts.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(counted, indent=2) + "\n", encoding="utf-8")
    print(*(f"{name:26}{now:>10,}" for name, now in counted.items()), sep="\n")
    if not options.record:
        print(f"bench-check: WARNING: {pair} is new; commit its file, {file.name}")
    return 0


def _output(*command: str) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        message = f"{command[0]} failed:\n{done.stderr}"
        raise RuntimeError(message)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
