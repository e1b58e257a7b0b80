"""Clean environments to try distributions in, and the interpreters to make them of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

_VERSION = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"


def run(
    *command: str | Path,
    cwd: Path | None = None,
    log: IO[str] | None = None,
    timeout: float | None = None,
) -> None:
    """Run a command, its output going to `log`.

    Raises:
        CalledProcessError: It failed, or was ended after `timeout` seconds.
    """
    words = [str(part) for part in command]
    output = subprocess.STDOUT if log else None
    try:
        subprocess.run(
            words, cwd=cwd, check=True, stdout=log, stderr=output, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise subprocess.CalledProcessError(124, words) from error


def create(directory: Path, python: Path, log: IO[str] | None = None) -> Path:
    """Replace `directory` by a new environment and return its interpreter."""
    shutil.rmtree(directory, ignore_errors=True)
    # --seed: pip is there, as it is in the environment of a user.
    run(*_UV, "venv", "--quiet", "--seed", "--python", python, directory, log=log)
    if sys.platform == "win32":
        return directory / "Scripts" / "python.exe"
    return directory / "bin" / "python"


def install(python: Path, *requirements: str, log: IO[str] | None = None) -> None:
    """Install into the environment of `python`, from wheels where there are any."""
    run(*_UV, "pip", "install", "--quiet", "--python", python, *requirements, log=log)


def find_python(version: str) -> Path | None:
    """Find a CPython `version` ("3.12") on PATH, under pyenv, or where uv looks."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # Newest patch release first.
    installed = sorted(
        (pyenv / "versions").glob(f"{version}.*"),
        key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()],
        reverse=True,
    )
    candidates += [str(path / "bin" / "python") for path in installed]
    for candidate in candidates:
        if candidate and (found := _ask([candidate], version)):
            return found
    # Asked last: uv stops at the first candidate, and a pyenv shim on PATH fails
    # for every version that is not active.
    answer = subprocess.run(
        [*_UV, "python", "find", "--no-project", version],
        capture_output=True,
        text=True,
        check=False,
    )
    return _ask([answer.stdout.strip()], version) if answer.returncode == 0 else None


def _ask(command: list[str], version: str) -> Path | None:
    """Run the interpreter: a shim or a stale link is only a name on PATH."""
    try:
        answer = subprocess.run(
            [*command, "-c", _VERSION], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    found, executable = answer.stdout.splitlines()
    return Path(executable) if found == version else None


_UV = [sys.executable, "-m", "uv"]
