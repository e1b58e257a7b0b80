"""Test the built wheel inside real workflow hosts, each in an environment of its own.

    python scripts/test_hosts.py dist [--full] [--only NAME] [-- PYTEST-ARGUMENTS]

The first argument is the directory that holds the wheel. Each file in
tests/hosts/requirements is a host: it gets an environment under build/hosts, which is
used again as long as its requirements stay the same; the wheel is always installed
anew. The hosts bring torch, so that the first environment is large; the others share
its files through uv's cache if that is on the same file system. The newest host runs
every test, the others those of the contract and of the differences from the reference;
`--full` or `--only` makes them run every test, too.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

from environments import create, find_python, install, run

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parent.parent
_TESTS = _ROOT / "tests" / "hosts"
_REQUIREMENTS = _TESTS / "requirements"
PYTHONS = ("3.11", "3.12", "3.10")
"""In this order: 3.11 has wheels of everything that the hosts of all ages need."""

NEWEST = "inference"
ESSENTIAL = (
    "test_plugin.py",
    "test_plugin_clients.py",
    "test_differential.py",
    "test_feeds.py",
)
"""What the other hosts run: the contract, and the differences from the reference."""

_ATTEMPTS = 3
_PAUSE = 10.0
_LONGEST_TEST = 1800.0
"""Seconds for all tests of one host, which take 3 to 7 minutes on two idle cores."""

_GIB = 1 << 30
_SHARED_SPACE = 16 * _GIB
"""Cache and three environments that are linked to it, with room for the downloads."""

_COPIED_SPACE = 30 * _GIB
"""The same if each environment gets copies."""


@dataclass
class Host:
    """One environment.

    Attributes:
        name: Of its file of requirements.
        directory: The environment.
        extra: Requirements from the command line, beside those of the file.
        full: Whether it runs every test.
        seconds: How long which step took.
        passed: Whether all its tests passed.
    """

    name: str
    directory: Path
    extra: list[str]
    full: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    passed: bool = False

    @property
    def requirements(self) -> Path:
        """The file of requirements."""
        return _REQUIREMENTS / f"{self.name}.txt"

    @property
    def tests(self) -> list[Path]:
        """What pytest is given: the directory, or the essential files in it."""
        return [_TESTS] if self.full else [_TESTS / name for name in ESSENTIAL]

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        if sys.platform == "win32":
            return self.directory / "Scripts" / "python.exe"
        return self.directory / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """Says of which requirements the environment was made."""
        return self.directory / "peakhold-requirements"

    def wanted(self) -> str:
        """Return what the stamp holds if the environment is up to date."""
        text = "\n".join([self.requirements.read_text(encoding="utf-8"), *self.extra])
        return hashlib.sha256(text.encode()).hexdigest()

    def is_ready(self) -> bool:
        """Whether the host is installed as it should be."""
        return (
            self.python.exists()
            and self.stamp.exists()
            and self.stamp.read_text(encoding="utf-8") == self.wanted()
        )

    def build(self, interpreter: Path, *, upgrade: bool) -> None:
        """Install the host, into a new environment unless one is there."""
        if not self.python.exists():
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            create(self.directory, interpreter)
        newest = ["--upgrade"] if upgrade else []
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                install(self.python, *newest, "-r", str(self.requirements), *self.extra)
                break
            except CalledProcessError:
                # What was downloaded is in uv's cache; the next attempt goes on there.
                if attempt == _ATTEMPTS:
                    raise
                print(f"installing {self.name} failed, trying again", flush=True)
                time.sleep(_PAUSE)
        self.stamp.write_text(self.wanted(), encoding="utf-8")

    def install_wheel(self, wheel: Path) -> None:
        """Install the package with its monitor; the host's own versions stay."""
        install(
            self.python,
            *("--reinstall-package", "peakhold"),
            f"{wheel}[monitor]",
            "pytest>=8",
        )

    def test(self, arguments: list[str]) -> None:
        """Run the tests, all of them or the essential ones.

        Raises:
            CalledProcessError: One failed.
        """
        pytest = ("-m", "pytest", "-p", "no:cacheprovider", "--durations", "5")
        # Elsewhere than in the checkout, so that nothing of it is importable.
        run(
            self.python,
            *pytest,
            *arguments,
            *self.tests,
            cwd=self.directory,
            timeout=_LONGEST_TEST,
        )


def prepare_environment(directory: Path) -> None:
    """Set what uv and the hosts read, where the user has not."""
    os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
    os.environ.setdefault("UV_HTTP_TIMEOUT", "300")
    # uv does not read pip's variables; a mirror that is named only there is meant too.
    for theirs, ours in (
        ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
        ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ):
        if os.environ.get(theirs):
            os.environ.setdefault(ours, os.environ[theirs])
    # The default is a directory outside of the checkout.
    os.environ.setdefault("MODEL_CACHE_DIR", str(directory / "model-cache"))
    # The wheel is tested, not what this process can import.
    os.environ.pop("PYTHONPATH", None)


def missing_space(directory: Path) -> str | None:
    """Return what to tell the user if the disk has no room for the environments."""
    cache = Path(
        subprocess.run(
            [sys.executable, "-m", "uv", "cache", "dir"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    target, source = _existing(directory), _existing(cache)
    linked = target.stat().st_dev == source.stat().st_dev
    needed = _SHARED_SPACE if linked else _COPIED_SPACE
    free = shutil.disk_usage(target).free
    if free >= needed:
        return None
    advice = (
        "free some"
        if linked
        else "put both on one file system, where files are shared (UV_CACHE_DIR)"
    )
    return (
        f"the hosts need about {needed // _GIB} GiB for {target} and uv's cache "
        f"{cache}, and {free / _GIB:.1f} GiB are free: {advice}, name another place "
        "with --environments, or use --ignore-space if the cache is filled already"
    )


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what follows `--` goes to pytest."""
    names = sorted(path.stem for path in _REQUIREMENTS.glob("*.txt"))
    parser = argparse.ArgumentParser(description="Test the wheel in workflow hosts")
    parser.add_argument("directory", type=Path, help="where the wheel is")
    parser.add_argument("--full", action="store_true", help="every test in every host")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME")
    parser.add_argument(
        "--environments", type=Path, default=_ROOT / "build" / "hosts", metavar="DIR"
    )
    parser.add_argument("--python", type=Path, help="interpreter for the environments")
    parser.add_argument("--upgrade", action="store_true", help="newest releases anew")
    parser.add_argument("--ignore-space", action="store_true")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="extra",
        metavar="NAME=REQUIREMENT",
        help="install a host with a further requirement, such as a version",
    )
    ours, rest = sys.argv[1:], []
    if "--" in ours:
        ours, rest = ours[: ours.index("--")], ours[ours.index("--") + 1 :]
    options = parser.parse_args(ours)
    options.names = [name for name in names if not options.only or name in options.only]
    options.extra = [text.partition("=")[::2] for text in options.extra]
    for name, requirement in options.extra:
        if name not in names or not requirement:
            parser.error(f"--with takes one of {', '.join(names)}, = and a requirement")
    return options, rest


def main() -> int:
    """Build what is missing, test every host, print which passed."""
    options, pytest_arguments = parse()
    wheels = list(options.directory.resolve().glob("peakhold-*.whl"))
    if len(wheels) != 1:
        print(f"one wheel expected in {options.directory}; `make wheel` builds it")
        return 1
    directory = options.environments.resolve()
    prepare_environment(directory)
    hosts = [
        Host(
            name,
            directory / name,
            [text for key, text in options.extra if key == name],
            full=options.full or bool(options.only) or name == NEWEST,
        )
        for name in options.names
    ]
    missing = [host for host in hosts if options.upgrade or not host.is_ready()]
    if missing and not options.ignore_space and (message := missing_space(directory)):
        print(message, file=sys.stderr)
        return 1
    found = (find_python(version) for version in PYTHONS)
    interpreter: Path | None = options.python or next(filter(None, found), None)
    if interpreter is None:
        print(f"no Python {', '.join(PYTHONS)} found; name one with --python")
        return 1
    for host in hosts:
        print(f"== {host.name}", flush=True)
        try:
            with timed(host, "install"):
                if host in missing:
                    host.build(interpreter, upgrade=options.upgrade)
                host.install_wheel(wheels[0])
            with timed(host, "test"):
                host.test(pytest_arguments)
        except CalledProcessError as error:
            print(f"{host.name}: {error}", file=sys.stderr, flush=True)
        else:
            host.passed = True
    print("== Hosts")
    for host in hosts:
        times = ", ".join(f"{what} {took:.0f} s" for what, took in host.seconds.items())
        print("passed " if host.passed else "FAILED ", f"{host.name}: {times}")
    return 0 if all(host.passed for host in hosts) else 1


@contextmanager
def timed(host: Host, step: str) -> Iterator[None]:
    """Note how long a step takes, also if it fails."""
    start = time.monotonic()
    try:
        yield
    finally:
        host.seconds[step] = time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())
