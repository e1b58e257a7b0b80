"""Time the wheel beside the reference blocks, as users install both.

    python scripts/bench.py dist [--quick] [--only tables|targets] [--results DIR]
                            [--plot FILE]

The first argument is the directory that holds the wheel. It goes into the environment
of the newest `roboflow-workflows` that `make test-hosts` uses, too; where that cannot
be installed, into one of its own, and the reference's columns are missing. There,
`benches/python` fills the tables (pytest-benchmark) and `speed.py` judges the targets.
`--results` writes both as small files, `--quick` shows that all of it works, in about
a minute, and its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from environments import create, find_python, install, run
from test_hosts import PYTHONS, Host, missing_space, prepare_environment

_ROOT = Path(__file__).resolve().parent.parent
_BENCHES = _ROOT / "benches" / "python"
_BUILD = _ROOT / "build" / "bench"
_LONGEST = 1800.0
TOOLS = ("pytest>=8", "pytest-benchmark>=5")
_QUICK = (
    *("--quick", "--benchmark-disable-gc", "--benchmark-min-rounds=2"),
    *("--benchmark-max-time=0.005", "--benchmark-calibration-precision=1"),
)
_WHOLE = (
    *("--benchmark-disable-gc", "--benchmark-warmup=on"),
    *("--benchmark-max-time=0.5", "--benchmark-min-rounds=20"),
)
_COLUMNS = "--benchmark-columns=min,median,max,rounds"


def prepare(wheel: Path) -> Path:
    """Return the interpreter of an environment with the wheel and the reference.

    Without the reference, where that cannot be installed; it says why.
    """
    found = (find_python(version) for version in PYTHONS)
    interpreter = next(filter(None, found), None)
    if interpreter is None:
        print(f"bench: no Python {', '.join(PYTHONS)} for a host", file=sys.stderr)
        return alone(wheel, Path(sys.executable))
    hosts = _ROOT / "build" / "hosts"
    prepare_environment(hosts)
    host = Host("workflows", hosts / "workflows", [])
    try:
        if not host.is_ready():
            if message := missing_space(hosts):
                print(f"bench: {message}", file=sys.stderr)
                return alone(wheel, interpreter)
            host.build(interpreter, upgrade=False)
        host.install_wheel(wheel)
        install(host.python, *TOOLS)
    except CalledProcessError as error:
        print(f"bench: no environment with the reference: {error}", file=sys.stderr)
        return alone(wheel, interpreter)
    return host.python


def alone(wheel: Path, interpreter: Path) -> Path:
    """Return the interpreter of an environment with the wheel, without a host."""
    python = create(_BUILD / "alone", interpreter)
    install(python, f"{wheel}[monitor]", *TOOLS)
    return python


def let_numpy_be_fast() -> None:
    """Forget the kernels that a machine prescribes for old builds of OpenBLAS.

    They slow down a new one.
    """
    for name in [name for name in os.environ if name.startswith("OPENBLAS_")]:
        del os.environ[name]


def condense(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of pytest-benchmark's file, nanoseconds of a frame each."""
    rows = []
    for benchmark in raw["benchmarks"]:
        info = benchmark["extra_info"]
        times = sorted(benchmark["stats"]["data"])
        frames = info.pop("frames")
        rows.append(
            {
                **info,
                "rounds": len(times),
                **{
                    name: round(at(times, share) / frames * 1e9, 1)
                    for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
                },
            }
        )
    return {"run": raw["machine_info"]["run"], "rows": rows}


def at(times: list[float], share: float) -> float:
    """Return the time that this share of sorted times does not exceed."""
    return times[min(len(times) - 1, int(len(times) * share))]


def tables(python: Path, *, quick: bool) -> dict[str, Any]:
    """Fill the tables; prints them."""
    file = _BUILD / "tables.json"
    run(
        *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", _BENCHES),
        *(_QUICK if quick else _WHOLE),
        *(_COLUMNS, "--benchmark-sort=name", "--benchmark-save-data"),
        f"--benchmark-json={file}",
        cwd=_BENCHES,
        timeout=_LONGEST,
    )
    condensed = condense(json.loads(file.read_text(encoding="utf-8")))
    for row in condensed["rows"]:
        if not row["correct"]:
            print("WRONG: {contender}, {table}, {scenario}".format(**row))
    return condensed | {"quick": quick}


def targets(python: Path, *, quick: bool) -> dict[str, Any]:
    """Judge the targets; prints each."""
    file = _BUILD / "targets.json"
    run(
        *(python, _BENCHES / "speed.py", "--json", file),
        *(["--quick"] if quick else []),
        cwd=_BENCHES,
        timeout=_LONGEST,
    )
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


MEASURED = {"tables": tables, "targets": targets}


def main() -> int:
    """Install, measure, write."""
    parser = argparse.ArgumentParser(description="Time the wheel")
    parser.add_argument("directory", type=Path, help="where the wheel is")
    parser.add_argument("--quick", action="store_true", help="few samples")
    parser.add_argument("--only", choices=sorted(MEASURED))
    parser.add_argument("--results", type=Path, metavar="DIR")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a stream, too")
    options = parser.parse_args()
    wheels = list(options.directory.resolve().glob("peakhold-*.whl"))
    if len(wheels) != 1:
        print(f"one wheel expected in {options.directory}; `make wheel` builds it")
        return 1
    let_numpy_be_fast()
    _BUILD.mkdir(parents=True, exist_ok=True)
    python = prepare(wheels[0])
    results = {
        name: measure(python, quick=options.quick)
        for name, measure in MEASURED.items()
        if options.only in (None, name)
    }
    # Last: a run names the commit it is of, which a file that changed makes "dirty".
    for name, result in results.items() if options.results else ():
        write(options.results / f"{name}.json", result)
    if options.plot:
        seconds = "3" if options.quick else "10"
        run(
            *(python, "-m", "peakhold", "bench", "--seconds", seconds),
            *("--plot", options.plot.resolve()),
            cwd=_BUILD,
        )
    return 0


def write(file: Path, result: dict[str, Any]) -> None:
    """Write a result so that a change of one number is a change of one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CalledProcessError as error:
        sys.exit(str(error))
