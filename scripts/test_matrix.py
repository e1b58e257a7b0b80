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
from pathlib import Path
from subprocess import CalledProcessError
from typing import NamedTuple

from environments import create, find_python, install, run

_ROOT = Path(__file__).resolve().parent.parent


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
    Row("3.10", "1.26.4", "0.31.2"),
    Row("3.12", "1.26.4", "0.26.1"),
    Row("3.13", None, "0.26.1"),
    Row("3.13", None, "0.31.2"),
    Row("3.11", None, None),
)


def test(row: Row, interpreter: Path, wheel: Path) -> None:
    """Run the row; CalledProcessError if any part of it fails."""
    name = "-".join(filter(None, (row.python, row.numpy, row.supervision)))
    python = create(_ROOT / "build" / "matrix" / name, interpreter)
    install(python, f"{wheel}[monitor]", "pytest", "hypothesis", *row.requirements())
    run(python, _ROOT / "scripts" / "smoke.py")
    run(
        *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("--rootdir", _ROOT, _ROOT / "tests" / "python" / "core"),
    )


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

    failed = False
    results = []
    for row in ROWS:
        if (interpreter := interpreters[row.python]) is None:
            results.append(f"skipped  {row}")
            continue
        print(f"== {row}", flush=True)
        start = time.monotonic()
        try:
            test(row, interpreter, wheel)
        except CalledProcessError as error:
            failed = True
            results.append(f"FAILED   {row}: {error}")
        else:
            results.append(f"passed   {row} ({time.monotonic() - start:.0f} s)")
    print("== Matrix", *results, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
