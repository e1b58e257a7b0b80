"""Model-check the lock-free core, then prove that the models notice what they are for.

    python scripts/test_loom.py [--models-only | MUTANT...]

The models are in `rust/loom.rs`. A mutant is a spot of the sources (`ordering!` and
`mutant!`) where an ordering is weakened or a step left out while the environment
variable LOOM_MUTANT names it; no other build than the model checker's contains it.
All models must pass as the sources stand; under each mutant, one must fail.
LOOM_MAX_PREEMPTIONS bounds the preemptions of one thread by another (2 unless set).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_MUTANT = re.compile(r'mutant!\("(\w+)"\)|"(\w+)" => ')
# A mutant may deadlock or never end, which is noticed as well.
_LONGEST = 600


def find_mutants() -> list[str]:
    """Return the names of the mutants in the sources, each once."""
    names = (
        match[1] or match[2]
        for path in sorted((_ROOT / "rust").glob("*.rs"))
        for match in _MUTANT.finditer(path.read_text(encoding="utf-8"))
    )
    return list(dict.fromkeys(names))


def build() -> Path:
    """Compile the models; return the executable."""
    command = ["cargo", "test", "--locked", "--quiet", "--lib", "--no-run"]
    target = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target"))
    # Dependencies are compiled with the flag as well; a target of its own keeps both.
    flags = {
        "RUSTFLAGS": "--cfg peakhold_loom",
        "CARGO_TARGET_DIR": str(target / "loom"),
    }
    done = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"],
        cwd=_ROOT,
        env=os.environ | flags,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    messages = map(json.loads, done.stdout.splitlines())
    return next(Path(m["executable"]) for m in messages if m.get("executable"))


def failing_models(executable: Path, mutant: str, *selection: str) -> list[str]:
    """Run the selected models; return the names of those that fail."""
    command = [str(executable), "--test-threads", "2", *selection]
    environment = os.environ | {"RUST_BACKTRACE": "0", "LOOM_MUTANT": mutant}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LONGEST,
            check=False,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return [f"no end after {_LONGEST} s"]
    if done.returncode == 0:
        if not re.search(r"^test result: ok\. [1-9]", done.stdout, re.MULTILINE):
            message = f"no model was run: {' '.join(command)}"
            raise RuntimeError(message)
        return []
    failed = re.findall(r"^test (loom::\S+) \.\.\. FAILED$", done.stdout, re.MULTILINE)
    # A race that the mutant makes real may end the process before a verdict.
    return failed or [f"exit code {done.returncode}"]


def check_models(executable: Path) -> bool:
    """Check that every model passes."""
    failed = failing_models(executable, "", "loom::")
    print("models:", f"FAILED: {', '.join(failed)}" if failed else "pass", flush=True)
    return not failed


def check_mutant(executable: Path, name: str) -> bool:
    """Check that a model fails for a mutant; those of parts are tried first."""
    windows = "loom::window::"
    caught = failing_models(executable, name, "loom::", "--skip", windows)
    caught = caught or failing_models(executable, name, windows)
    models = ", ".join(model.removeprefix("loom::") for model in caught)
    print(f"{name}:", f"caught by {models}" if caught else "SURVIVES", flush=True)
    return bool(caught)


def main(arguments: list[str]) -> int:
    """Run the models and the mutants; the exit code is 1 if any disappoints."""
    began = time.monotonic()
    known = find_mutants()
    if unknown := [name for name in arguments if name not in [*known, "--models-only"]]:
        print(f"no such mutant: {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    executable = build()
    only = arguments == ["--models-only"]
    verdicts = [check_models(executable)]
    verdicts += [
        check_mutant(executable, name) for name in ([] if only else arguments or known)
    ]
    print(f"{len(verdicts) - 1} mutants, {time.monotonic() - began:.0f} s")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
