"""Write BENCHMARKS.md, and the results in the README, from the committed results.

    python scripts/write_benchmarks.py [--check]

`--check` writes nothing and fails if what is written is not what the results say.
The text is benches/template.md, the numbers are benches/results/*.json and
benches/instructions/*.json; `make benchmarks` measures them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_CONTENDERS = ("peakhold", "reference", "NumPy", "plain Python")
# Of the lines about closing, the one with the longest pause before it.
_CLOSE = "`run()` that closes 15,000 detections, 20 classes, after 20 ms"
_HIGHS = "`run()`, frames of record highs, 10 "
_README_LINES = {
    "run() that closes 15,000 detections": _CLOSE,
    "sustained run(), 100 detections": "sustained `run()`, closes included, 100 ",
    "custom metadata run(), 100 detections": "custom metadata `run()`, 100 ",
    "worst frame of a stream at 500 FPS": "worst frame ",
}
_NUMBER = re.compile(r"\d+")
_README_ROWS = re.compile(
    r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL
)
_QUICK = (
    "**Of a quick run, which only shows that the harness works, and whose numbers mean "
    "nothing: {}.**\n\n"
)
_PARTS = {"targets": "the targets", "tables": "the tables", "rust": "the core"}


class Results:
    """What was measured.

    Attributes:
        tables: Of pytest-benchmark.
        targets: Of speed.py.
        rust: Of criterion.
        instructions: Of callgrind, by rustc and target.
    """

    def __init__(self, benches: Path) -> None:
        """Read the files below `benches`."""
        self.tables, self.targets, self.rust = (
            json.loads((benches / "results" / f"{name}.json").read_text("utf-8"))
            for name in ("tables", "targets", "rust")
        )
        self.instructions = {
            file.stem: json.loads(file.read_text("utf-8"))
            for file in sorted((benches / "instructions").glob("*.json"))
        }

    @property
    def warning(self) -> str:
        """What was measured with few samples."""
        quick = [said for name, said in _PARTS.items() if getattr(self, name)["quick"]]
        return _QUICK.format(", ".join(quick)) if quick else ""

    def row(self, table: str, scenario: str, contender: str) -> dict[str, Any] | None:
        """Return one row of a table, if it was measured."""
        wanted = {"table": table, "scenario": scenario, "contender": contender}
        rows: list[dict[str, Any]] = self.tables["rows"]
        return next((row for row in rows if wanted.items() <= row.items()), None)

    def target(self, beginning: str) -> dict[str, Any]:
        """Return the target whose name begins so."""
        targets: list[dict[str, Any]] = self.targets["targets"]
        return next(line for line in targets if line["what"].startswith(beginning))


def page(results: Results, template: str) -> str:
    """Return BENCHMARKS.md."""

    def median(table: str, scenario: str, contender: str) -> str:
        row = results.row(table, scenario, contender)
        return f"{microseconds(row['p50'])} us" if row else "(not measured)"

    close = results.target(_CLOSE)
    highs = results.target(_HIGHS)
    call = results.targets["engine_call"]
    between, ten = "run between reports", "10 detections"
    blocks = (between, "run that closes a window", "custom metadata run")
    fields = {
        "warning": results.warning,
        "run": run_table(results),
        "targets": targets_table(results.targets["targets"]),
        "noise": f"{results.targets['noise']:.1%}",
        "observe": contenders_table(results, "observe", "drain"),
        "unique": contenders_table(results, "unique ids"),
        "blocks": contenders_table(results, *blocks, contenders=_CONTENDERS[:2]),
        "core": core_table(results.rust["rows"]),
        "contention": contention_table(results.rust["rows"]),
        "instructions": instructions_table(results.instructions),
        "engine_call": f"{call:,.0f} us" if call else "(not measured)",
        "run_10": median(between, ten, "peakhold"),
        "run_10_reference": median(between, ten, "reference"),
        "close": close["ours"],
        "close_reference": close["theirs"] or "(not measured)",
        "highs": highs["ours"],
        "highs_memory": highs["theirs"],
        "append": median("observe", "1 detection", "reference"),
        "observe_1": median("observe", "1 detection", "peakhold"),
        "plain_1": median("observe", "1 detection", "plain Python"),
        **{
            f"{contender}_{threads}": f"{microseconds(row['p50'])} us"
            for contender in ("peakhold", "mutex")
            for threads in (1, 8)
            for row in results.rust["rows"]
            if (row["group"], row["case"]) == (f"contention/{contender}", str(threads))
        },
        "cpu": results.targets["run"]["CPU"],
    }
    return template.format_map(fields)


def run_table(results: Results) -> str:
    """Return what the numbers depend on, as a table."""
    run = results.targets["run"]
    method = "contenders in turn in one interpreter"
    facts = {**run, "method": method, "noise floor": f"{results.targets['noise']:.1%}"}
    return table(["", ""], [[name, value] for name, value in facts.items()])


def targets_table(targets: list[dict[str, Any]]) -> str:
    """Return the targets and their verdicts, as a table."""
    head = ["what", "result", "to reach", "", "peakhold", "against", "how"]
    return table(
        head,
        [
            [
                line["what"],
                "-" if line["figure"] is None else three_digits(line["figure"]),
                target(line),
                line["verdict"],
                line["ours"],
                line["theirs"],
                line["note"],
            ]
            for line in targets
        ],
    )


def target(line: dict[str, Any]) -> str:
    """Return what is to be reached."""
    sign = ">=" if line["at_least"] else "<="
    return f"{sign} {line['target']:,g} {line['unit']}"


def contenders_table(
    results: Results, *tables: str, contenders: tuple[str, ...] = _CONTENDERS
) -> str:
    """Return scenarios by contenders, as a table."""
    scenarios = dict.fromkeys(
        (row["table"], row["scenario"])
        for row in results.tables["rows"]
        if row["table"] in tables
    )
    lines = []
    for name, scenario in scenarios:
        rows = [results.row(name, scenario, contender) for contender in contenders]
        title = scenario if name == tables[0] == tables[-1] else f"{name}, {scenario}"
        lines.append([title, *(cell(row, rows[0]) for row in rows)])
    return table(["", *contenders], lines)


def cell(row: dict[str, Any] | None, ours: dict[str, Any] | None) -> str:
    """Return times, ratio, and whether the result was right."""
    if row is None:
        return ""
    ratio = (
        f" ({three_digits(row['p50'] / ours['p50'])}x)"
        if ours and row is not ours
        else ""
    )
    return times(row) + ratio + ("" if row["correct"] else " **wrong**")


def core_table(rows: list[dict[str, Any]]) -> str:
    """Return what criterion measured of the core alone, as a table."""
    chosen = [row for row in rows if not row["group"].startswith("contention/")]
    chosen.sort(
        key=lambda row: (row["group"], [int(n) for n in _NUMBER.findall(row["case"])])
    )
    return table(
        ["", "us"], [[f"{row['group']}, {row['case']}", times(row)] for row in chosen]
    )


def contention_table(rows: list[dict[str, Any]]) -> str:
    """Return threads by contenders, as a table."""
    cells: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows:
        group, _, contender = row["group"].partition("/")
        if group == "contention":
            cells[int(row["case"])][contender] = times(row)
    names = {"peakhold": "peakhold", "mutex": "mutex", "sharded": "shards"}
    return table(
        ["threads", *names.values()],
        [
            [str(threads), *(cells[threads].get(name, "") for name in names)]
            for threads in sorted(cells)
        ],
    )


def instructions_table(counts: dict[str, dict[str, int]]) -> str:
    """Return instructions by compiler, as a table."""
    names = dict.fromkeys(name for counted in counts.values() for name in counted)
    return table(
        ["", *counts],
        [
            [name, *(f"{counted.get(name, 0):,}" for counted in counts.values())]
            for name in names
        ],
    )


def times(row: dict[str, Any]) -> str:
    """Return p50, p95 and max."""
    return " / ".join(microseconds(row[name]) for name in ("p50", "p95", "max"))


def microseconds(nanoseconds: float) -> str:
    """Return a time."""
    return three_digits(nanoseconds / 1000)


def three_digits(number: float) -> str:
    """Return a number to three digits, all of those before its point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"  # noqa: PLR2004


def table(head: list[str], lines: list[list[str]]) -> str:
    """Return a table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def readme_rows(results: Results) -> str:
    """Return the four rows of the README, and where they were measured."""
    lines = []
    for title, beginning in _README_LINES.items():
        line = results.target(beginning)
        lines.append([title, line["ours"], line["theirs"]])
    run = results.targets["run"]
    return (
        f"{table(['what', 'peakhold', 'reference'], lines)}\n\n"
        f"{run['CPU']}; {run['date']}, commit {run['commit']}.\n"
    )


def readme(results: Results, text: str) -> str:
    """Return the README with the rows of these results.

    Raises:
        ValueError: If it has no place for them.
    """
    written, places = _README_ROWS.subn(lambda _: readme_rows(results), text)
    if places != 1:
        raise ValueError("README.md has no `<!-- results -->` line, or several")
    return written


def main() -> int:
    """Write, or check what is written."""
    parser = argparse.ArgumentParser(description="Write BENCHMARKS.md")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    results = Results(_ROOT / "benches")
    template = (_ROOT / "benches" / "template.md").read_text("utf-8")
    front = _ROOT / "README.md"
    written = {
        _ROOT / "BENCHMARKS.md": page(results, template),
        front: readme(results, front.read_text("utf-8")),
    }
    stale = [
        file.name
        for file, text in written.items()
        if not file.exists() or file.read_text("utf-8") != text
    ]
    if options.check:
        for name in stale:
            print(f"{name} is not what benches/results say; {Path(__file__)} mends it")
        return 1 if stale else 0
    for file, text in written.items():
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
