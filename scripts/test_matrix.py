"""Test the built wheel under every supported corner of Python, NumPy and supervision.

    python scripts/test_matrix.py DIRECTORY [--skip-missing]

DIRECTORY holds the wheel. Each row below gets a new environment under build/matrix
with the wheel and its `monitor` extra, runs the tests of the core against it and
sends one real frame through both blocks. A missing interpreter is an error, named
before anything runs, unless --skip-missing is given.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from subprocess import CalledProcessError
from typing import NamedTuple

from environments import create, find_python, install, run

_ROOT = Path(__file__).resolve().parent.parent

_AT_ONCE = 2
"""Rows at one time. Their tests have threads of their own, and some look at memory."""


class Row(NamedTuple):
    """One combination; None stands for the newest release there is."""

    python: str
    numpy: str | None
    supervision: str | None

    def requirements(self) -> list[str]:
        """Return what is installed beside the wheel."""
        pins = {"numpy": self.numpy, "supervision": self.supervision}
        return [name + (f"=={pin}" if pin else "") for name, pin in pins.items()]

    def __str__(self) -> str:
        """Name the row as the log shows it."""
        return f"Python {self.python}, {', '.join(self.requirements())}"


ROWS = (
    Row("3.10", "1.26.4", "0.26.1"),
    Row("3.10", "1.26.4", None),
    Row("3.12", "1.26.4", "0.26.1"),
    Row("3.13", None, "0.26.1"),
    Row("3.13", None, None),
    Row("3.11", None, None),
)


def test(row: Row, interpreter: Path, wheel: Path) -> tuple[bool, str]:
    """Run one row; returns whether it passed, and everything that it printed."""
    name = "-".join(filter(None, (row.python, row.numpy, row.supervision)))
    directory = _ROOT / "build" / "matrix" / name
    directory.parent.mkdir(parents=True, exist_ok=True)
    printed = directory.with_suffix(f"{directory.suffix}.log")
    start = time.monotonic()
    with printed.open("w", encoding="utf-8") as log:
        try:
            python = create(directory, interpreter, log)
            tools = ("pytest", "hypothesis")
            install(python, f"{wheel}[monitor]", *tools, *row.requirements(), log=log)
            run(python, _ROOT / "scripts" / "smoke.py", log=log)
            run(
                *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("--rootdir", _ROOT, _ROOT / "tests" / "python" / "core"),
                log=log,
            )
        except CalledProcessError as error:
            passed, outcome = False, f"FAILED: {error}"
        else:
            passed, outcome = True, "passed"
    seconds = time.monotonic() - start
    text = printed.read_text(encoding="utf-8")
    return passed, f"== {row}\n{text}== {outcome} in {seconds:.0f} s\n"


def main() -> int:
    """Run every row and print which passed; exit code 1 if one did not."""
    arguments = argparse.ArgumentParser(description="Test the wheel in clean rooms")
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--skip-missing", action="store_true")
    options = arguments.parse_args()
    (wheel,) = options.directory.resolve().glob("peakhold-*.whl")

    interpreters = {row.python: find_python(row.python) for row in ROWS}
    missing = sorted(version for version, path in interpreters.items() if not path)
    if missing:
        print(f"no interpreter found for Python {', '.join(missing)}", file=sys.stderr)
        if not options.skip_missing:
            return 1

    results = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {
            pool.submit(test, row, interpreter, wheel): row
            for row in ROWS
            if (interpreter := interpreters[row.python])
        }
        for future in as_completed(running):
            passed, text = future.result()
            print(text, flush=True)
            results.append((passed, running[future]))
    print("== Matrix")
    for passed, row in results:
        print("passed " if passed else "FAILED ", row)
    for version in missing:
        print("skipped", f"Python {version}, which is not installed")
    return 0 if all(passed for passed, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
