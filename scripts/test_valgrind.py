"""Run the stress test of the Rust core under valgrind's memcheck, and prove its power.

    python scripts/test_valgrind.py [--observations 100000]

Nothing may be read that was freed or never written, and nothing may be lost when the
process ends. The controls, `tests/rust/stress/flaws.rs`, do one of these each, and must
be noticed. valgrind runs one thread at a time: the memory is checked here, the
orderings by the model checker. Linux only, with valgrind on the PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_NOTICED = 99
_FLAWS = {
    "memory_that_is_never_freed": "definitely lost in loss record",
    "memory_that_was_never_written": "depends on uninitialised value",
    "memory_that_was_freed": "Invalid read of size",
}


def build() -> Path:
    """Compile the stress test; return the executable."""
    command = ["cargo", "test", "--locked", "--quiet", "--test", "stress", "--no-run"]
    done = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    messages = map(json.loads, done.stdout.splitlines())
    return next(Path(m["executable"]) for m in messages if m.get("executable"))


def memcheck(executable: Path, observations: int, *arguments: str) -> tuple[int, str]:
    """Run tests of the executable under memcheck; return exit code and output."""
    command = [
        *["valgrind", "--leak-check=full", "--errors-for-leak-kinds=definite"],
        # Fair, so that the drains get their turn as well.
        *["--fair-sched=yes", f"--error-exitcode={_NOTICED}"],
        *[str(executable), "--test-threads", "1", *arguments],
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"PEAKHOLD_STRESS_OBSERVATIONS": str(observations)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
    )
    return done.returncode, done.stdout


def main() -> int:
    """Run the stress test and the controls; the exit code is 1 if any disappoints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--observations", type=int, default=100_000)
    chosen = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed; Debian: apt-get install valgrind")
    executable = build()
    code, said = memcheck(executable, chosen.observations)
    summary = re.search(r"ERROR SUMMARY: .*", said)
    tested = re.search(r"test result: ok\. [1-9]", said)
    verdicts = [code == 0 and summary is not None and tested is not None]
    if not verdicts[0]:
        print(said)
    print("stress:", summary[0] if summary else "no verdict", flush=True)
    for flaw, complaint in _FLAWS.items():
        code, said = memcheck(
            executable, chosen.observations, "--ignored", "--exact", f"flaws::{flaw}"
        )
        verdicts.append(code == _NOTICED and complaint in said)
        print(f"{flaw}:", "noticed" if verdicts[-1] else f"NOT NOTICED\n{said}")
    print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
