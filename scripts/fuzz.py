"""Fuzz the column readers of the Rust core, and prove that the fuzzer notices mistakes.

    python scripts/fuzz.py [--seconds 30] [--corpus-out DIRECTORY] [TARGET...]

The targets are in `fuzz/targets/`. Each first has to find the mistakes that are seeded
in the core for it: `mutant!("misread_...")` in `rust/`, chosen by the environment
variable PEAKHOLD_MUTANT and absent from every other build. Then it runs for the given
time on the core as it stands, from the inputs in `fuzz/corpus/`; any panic, any
disagreement with the plain readers, and any access beyond a column is a finding.

Coverage is LLVM's own, switched on by stable flags of the compiler; libFuzzer comes
with its crate and needs a C++ compiler. Linux only: it is where the columns' memory can
be put between guard pages.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BUILD = _ROOT / "target" / "fuzz"
_CORPUS = _ROOT / "fuzz" / "corpus"
# What `cargo fuzz` passes, without the sanitizers, which need a nightly compiler.
_COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
_MISTAKES = {
    "texts": ["misread_length"],
    "numbers": ["misread_number_order"],
    "uniques": ["misread_stride"],
    "frames": ["misread_class_id"],
    "snapshots": ["misread_confidence"],
}
# A mistake that takes longer is not found by a run of 30 seconds either.
_LONGEST_SEARCH = 60
_MUTANT = re.compile(r'mutant!\("(misread_\w+)"\)')


def check_mistakes() -> None:
    """Check that every mistake in the sources is some target's to find."""
    sources = (path.read_text(encoding="utf-8") for path in _ROOT.glob("rust/*.rs"))
    seeded = {name for source in sources for name in _MUTANT.findall(source)}
    claimed = {name for names in _MISTAKES.values() for name in names}
    if seeded != claimed:
        sys.exit(f"seeded mistakes and those looked for differ: {seeded ^ claimed}")


def build() -> Path:
    """Compile the targets; return the directory of the executables."""
    told = subprocess.run(
        ["rustc", "-vV"], capture_output=True, check=True, text=True
    ).stdout
    host = next(
        line.removeprefix("host: ")
        for line in told.splitlines()
        if line.startswith("host: ")
    )
    flags = {"RUSTFLAGS": " ".join(_COVERAGE), "CARGO_TARGET_DIR": str(_BUILD)}
    # Naming the target keeps the flags away from build scripts and macros.
    subprocess.run(
        ["cargo", "build", "--locked", "--quiet", "--release", "--target", host],
        cwd=_ROOT / "fuzz",
        env=os.environ | flags,
        check=True,
    )
    return _BUILD / host / "release"


def fuzz(
    executable: Path, seconds: int, found: Path, mistake: str = ""
) -> tuple[bool, str]:
    """Run a target; return whether it ended without a finding, and what it said."""
    artifacts = _BUILD / "findings" / executable.name
    artifacts.mkdir(parents=True, exist_ok=True)
    command = [
        *[executable, found, _CORPUS / executable.name],
        *[f"-max_total_time={seconds}", f"-artifact_prefix={artifacts}/"],
        *["-timeout=60", "-max_len=512", "-use_value_profile=1"],
        "-print_final_stats=1",
    ]
    environment = os.environ | {"PEAKHOLD_MUTANT": mistake, "RUST_BACKTRACE": "0"}
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        errors="replace",
    )
    return done.returncode == 0, done.stdout


def finds(executable: Path, mistake: str) -> bool:
    """Check that a target finds a seeded mistake."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as found:
        clean, said = fuzz(executable, _LONGEST_SEARCH, Path(found), mistake)
    # Anything but a finding, such as a target that did not start, is a failure.
    noticed = not clean and "SUMMARY: libFuzzer" in said
    verdict = f"found in {time.monotonic() - began:.1f} s" if noticed else "NOT FOUND"
    print(f"{executable.name}, {mistake}: {verdict}", flush=True)
    return noticed


def holds(executable: Path, seconds: int, found: Path) -> bool:
    """Check that a target finds nothing in the core as it stands."""
    clean, said = fuzz(executable, seconds, found)
    runs = re.search(r"^stat::number_of_executed_units:\s*(\d+)", said, re.MULTILINE)
    coverage = re.findall(r" cov: (\d+) ft: (\d+)", said)
    if not clean or runs is None or int(runs[1]) == 0 or not coverage:
        print(said, f"{executable.name}: FINDING", sep="\n", flush=True)
        return False
    edges, features = coverage[-1]
    print(
        f"{executable.name}: {int(runs[1]):,} inputs in {seconds} s, {edges} edges and"
        f" {features} features covered, no finding",
        flush=True,
    )
    return True


def main() -> int:
    """Run the targets; the exit code is 1 if any disappoints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", metavar="TARGET", nargs="*")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--corpus-out", type=Path, help="keep new inputs in here")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.targets if name not in _MISTAKES]:
        parser.error(f"no such target: {unknown[0]}; there are {', '.join(_MISTAKES)}")
    check_mistakes()
    directory = build()
    passed = failed = 0
    for name in chosen.targets or _MISTAKES:
        executable = directory / name
        verdicts = [finds(executable, mistake) for mistake in _MISTAKES[name]]
        with tempfile.TemporaryDirectory() as scratch:
            found = chosen.corpus_out / name if chosen.corpus_out else Path(scratch)
            found.mkdir(parents=True, exist_ok=True)
            verdicts.append(holds(executable, chosen.seconds, found))
        passed += sum(verdicts)
        failed += len(verdicts) - sum(verdicts)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
