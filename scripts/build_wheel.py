"""Build the wheel and the sdist, check them, and import both from clean environments.

    python scripts/build_wheel.py DIRECTORY

On Linux the wheel is linked by zig against glibc 2.17 (manylinux2014) whatever the
machine has; maturin refuses the tag if a symbol is newer. Elsewhere the platform's
own linker serves.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from subprocess import CalledProcessError

from check_wheel import find_faults
from environments import create, install, run

_IMPORT = """
import peakhold, peakhold._peakhold as extension
assert extension.build_profile == "release", extension.build_profile
window = peakhold.PeakAggregator()
assert window.drain() == []
print("imported", extension.__file__)
"""


def build(directory: Path) -> tuple[Path, Path]:
    """Build both distributions into `directory`, which holds no others afterwards."""
    for old in directory.glob("peakhold-*"):
        old.unlink()
    linux = ["--zig", "--compatibility", "manylinux2014"]
    run(
        *(sys.executable, "-m", "maturin", "build", "--release", "--locked"),
        *("--out", directory),
        *(linux if sys.platform == "linux" else []),
    )
    run(sys.executable, "-m", "maturin", "sdist", "--out", directory)
    (wheel,) = directory.glob("peakhold-*.whl")
    (sdist,) = directory.glob("peakhold-*.tar.gz")
    return wheel, sdist


def main() -> int:
    """Build and check; a fault is printed and makes the exit code 1."""
    directory = Path(sys.argv[1]).resolve()
    wheel, sdist = build(directory)
    if faults := find_faults(wheel):
        print(*(f"{wheel.name}: {fault}" for fault in faults), sep="\n")
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        for distribution in (wheel, sdist):
            python = create(Path(scratch) / "clean", Path(sys.executable))
            install(python, str(distribution))
            # Elsewhere than in the checkout, so that nothing of it is importable.
            run(python, "-c", _IMPORT, cwd=Path(scratch))
            print(f"{distribution.name}: installs and imports")
    return 0


if __name__ == "__main__":
    # maturin looks for zig under the python3 that it finds on PATH.
    beside = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join((beside, os.environ["PATH"]))
    try:
        sys.exit(main())
    except CalledProcessError as error:
        sys.exit(str(error))
