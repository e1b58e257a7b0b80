"""Model-check the lock-free core, then prove that each model notices what it is for.

    python scripts/test_loom.py [MODEL...]

The models are in `rust/loom/`. Each names mutants: spots of the sources (`ordering!`
and `mutant!`) where an ordering is weakened or a step left out while the environment
variable PEAKHOLD_MUTANT says so; only the model checker's build contains them. Every
model must pass as the sources stand, and fail under each of its mutants; every mutant
in the sources must be some model's. MODEL selects models by a part of their name.
LOOM_MAX_PREEMPTIONS bounds the preemptions of one thread by another (3 unless set, and
fewer in the largest models).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_MUTANT = re.compile(r'mutant!\("(?!misread_)(\w+)"\)|"(\w+)" => [A-Z]')
_CLAIM = re.compile(r"catches (.+)$", re.MULTILINE)
# The longest takes a minute or so; what never ends is no verdict.
_LONGEST = 900


def find_mutants() -> set[str]:
    """Return the names of the mutants in the sources."""
    sources = [path.read_text(encoding="utf-8") for path in _ROOT.glob("rust/*.rs")]
    return {
        match[1] or match[2] for text in sources for match in _MUTANT.finditer(text)
    }


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


def run(
    executable: Path, mutant: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run the executable while it contains a mutant, or none."""
    return subprocess.run(
        [str(executable), *arguments],
        env=os.environ | {"RUST_BACKTRACE": "0", "PEAKHOLD_MUTANT": mutant},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_LONGEST,
        check=False,
        text=True,
        errors="replace",
    )


def find_models(executable: Path) -> dict[str, list[str]]:
    """Return the models, each with the mutants that it catches."""
    listed = run(executable, "", "loom::", "--list").stdout
    claims: dict[str, list[str]] = {}
    for model in re.findall(r"^(loom::\S+): test$", listed, re.MULTILINE):
        claim = _CLAIM.search(
            run(executable, "list", "--exact", model, "--nocapture").stdout
        )
        if claim is None:
            sys.exit(f"a model that no mutant tests: {model}")
        claims[model] = claim[1].split()
    claimed = {mutant for mutants in claims.values() for mutant in mutants}
    if odd := claimed ^ find_mutants():
        sys.exit(f"mutants that no model or no source names: {', '.join(sorted(odd))}")
    return claims


def check(executable: Path, model: str, mutant: str) -> bool:
    """Check that a model passes, or that it fails under a mutant."""
    began = time.monotonic()
    name = model.removeprefix("loom::") + (f", {mutant}" if mutant else "")
    try:
        done = run(executable, mutant, "--exact", model)
    except subprocess.TimeoutExpired:
        print(f"{name}: NO END after {_LONGEST} s", flush=True)
        return False
    passed = "test result: ok. 1 passed" in done.stdout and done.returncode == 0
    # A race that a mutant makes real may end the process before its verdict.
    failed = "1 failed" in done.stdout or done.returncode < 0
    good = failed if mutant else passed
    verdict = ("caught" if mutant else "passes") if good else "DISAPPOINTS"
    print(f"{name}: {verdict}, {time.monotonic() - began:.1f} s", flush=True)
    if not good:
        print(done.stdout, flush=True)
    return good


def main(arguments: list[str]) -> int:
    """Run the models and their mutants; the exit code is 1 if any disappoints."""
    began = time.monotonic()
    executable = build()
    models = find_models(executable)
    chosen = [
        model
        for model in models
        if not arguments or any(part in model for part in arguments)
    ]
    if not chosen:
        sys.exit(f"no such model; there are {', '.join(models)}")
    pairs = [(model, "") for model in chosen]
    pairs += [(model, mutant) for model in chosen for mutant in models[model]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda pair: check(executable, *pair), pairs))
    good = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict]
    mutants = {mutant for _, mutant in pairs if mutant}
    caught = {mutant for _, mutant in good if mutant}
    print(
        f"models: {sum(not mutant for _, mutant in good)} of {len(chosen)} pass;"
        f" mutants: {len(caught)} of {len(mutants)} caught;"
        f" {time.monotonic() - began:.0f} s"
    )
    print(f"{len(good)} passed, {len(pairs) - len(good)} failed")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
