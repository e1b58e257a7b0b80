"""Test how the wheel ends in servers and job queues, in an environment of its own.

    python scripts/test_endings.py dist [PYTEST-ARGUMENTS]

The first argument is the directory that holds the wheel. The environment is made anew
under build/endings.
"""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CalledProcessError

from environments import create, install, run

_ROOT = Path(__file__).resolve().parent.parent
_TESTS = _ROOT / "tests" / "endings"
_LONGEST = 900.0
"""Seconds for all tests, which take two to four minutes on two idle cores."""


def main() -> int:
    """Make the environment and run the tests in it; exit code 1 if one failed."""
    (wheel,) = Path(sys.argv[1]).resolve().glob("peakhold-*.whl")
    directory = _ROOT / "build" / "endings"
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        python = create(directory, Path(sys.executable))
        install(python, str(wheel), "-r", str(_TESTS / "requirements.txt"))
        # Elsewhere than in the checkout, so that nothing of it is importable.
        pytest = ("-m", "pytest", "-p", "no:cacheprovider")
        run(python, *pytest, *sys.argv[2:], _TESTS, cwd=directory, timeout=_LONGEST)
    except CalledProcessError as error:
        print(f"endings: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
