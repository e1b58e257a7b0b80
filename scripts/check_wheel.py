"""Say what is wrong with a built wheel: its tag, its symbols, its files."""

from __future__ import annotations

import re
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

_REQUIRED = (
    "peakhold/__init__.py",
    "peakhold/_peakhold.pyi",
    "peakhold/py.typed",
    "peakhold/cli/recordings/*",
    "peakhold/monitor/dashboard.py",
    "peakhold/testing/localhost.pem",
)
_FORBIDDEN = (
    *("tests/*", "*/tests/*", "*/test_*", "*/conftest.py"),
    *("*.rs", "*.pyc", "benches/*", "scripts/*"),
)
_NEWEST_GLIBC = (2, 28)


def find_faults(wheel: Path) -> list[str]:
    """Return every fault of the wheel, one line each."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        extensions = {
            name: archive.read(name)
            for name in names
            if name.endswith((".so", ".pyd", ".dylib"))
        }
    faults = [
        f"{pattern} is missing"
        for pattern in _REQUIRED
        if not any(fnmatch(name, pattern) for name in names)
    ]
    faults += [
        f"{name} does not belong in a wheel"
        for name in names
        if any(fnmatch(name, pattern) for pattern in _FORBIDDEN)
    ]
    if len(extensions) != 1:
        faults.append(f"one extension expected, found {sorted(extensions)}")
    faults += _find_tag_faults(wheel.name, b"".join(extensions.values()))
    return faults


def _find_tag_faults(name: str, extension: bytes) -> list[str]:
    """Compare the file name with the ABI, and with the glibc the symbols ask for."""
    _, _, python, abi, platform = name.removesuffix(".whl").split("-")
    faults = []
    if (python, abi) != ("cp310", "abi3"):
        faults.append(f"tagged {python}-{abi}; one cp310-abi3 wheel serves all")
    if "linux" not in platform:
        return faults
    promised = [
        (int(major), int(minor))
        for major, minor in re.findall(r"manylinux_(\d+)_(\d+)", platform)
    ]
    if not promised:
        return [*faults, f"tagged {platform}; PyPI takes manylinux only"]
    oldest = min(promised)
    if oldest > _NEWEST_GLIBC:
        faults.append(f"tagged {platform}; manylinux_2_28 is the newest allowed")
    # The same evidence auditwheel goes by: versions of the symbols that are imported.
    needed = max(
        (int(major), int(minor))
        for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", extension)
        or [(b"0", b"0")]
    )
    if needed > oldest:
        faults.append(f"needs glibc {needed[0]}.{needed[1]}, tagged {platform}")
    return faults


def main() -> int:
    """Check the wheels named on the command line."""
    failed = False
    for wheel in map(Path, sys.argv[1:]):
        for fault in find_faults(wheel):
            failed = True
            print(f"{wheel.name}: {fault}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
