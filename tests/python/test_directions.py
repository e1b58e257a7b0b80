"""Imports point one way: from those who use to what is used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import peakhold

ROOT = Path(peakhold.__file__).parent
MAY_USE = {
    "environment": set(),
    "errors": set(),
    "hosts": set(),
    "interpreter": set(),
    "locks": set(),
    "texts": set(),
    "notices": {"texts"},
    "records": {"_peakhold", "errors"},
    "roboflow": {
        *("_peakhold", "environment", "errors", "interpreter", "locks", "texts"),
    },
    "outbox": {"errors", "locks", "notices", "records", "_peakhold"},
    "delivery": {
        *("_peakhold", "environment", "errors", "interpreter", "locks"),
        *("notices", "texts"),
        *("records", "outbox", "roboflow"),
    },
    "blocks": {
        *("_peakhold", "locks", "notices", "texts"),
        *("records", "outbox", "roboflow", "delivery"),
    },
    "workflows": {"environment", "errors", "hosts", "roboflow", "delivery", "blocks"},
    "metrics": {"peakhold", "notices", "outbox", "roboflow", "delivery"},
    "monitor": {"errors"},
    "testing": set(),
}
USES_ALL = {"__init__", "__main__", "cli"}


def used(source):
    """Parts of the package that a source imports anywhere, for types as well."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            # Of `from peakhold import x`, x may be a part; else it is the whole.
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = {name.split(".")[1] for name in names if name.startswith("peakhold.")}
    known = parts & {*MAY_USE, *USES_ALL, "_peakhold"}
    return known | ({"peakhold"} if parts - known or "peakhold" in names else set())


def uses(part):
    """What the files of a part import of the others, by file."""
    directory = ROOT / part
    files = directory.rglob("*.py") if directory.is_dir() else [ROOT / f"{part}.py"]
    return {path: used(path.read_text("utf-8")) - {part} for path in files}


@pytest.mark.parametrize("part", sorted(MAY_USE))
def test_a_part_uses_only_what_is_below_it(part):
    found = uses(part)
    assert found
    for path, names in found.items():
        assert names <= MAY_USE[part], path


def test_every_part_has_its_place():
    parts = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    parts |= {path.stem for path in ROOT.glob("*.py")}
    assert parts == {*MAY_USE, *USES_ALL}


def test_whatever_a_part_may_use_stands_above_it_in_the_table():
    above = {"_peakhold", "peakhold"}
    for part, below in MAY_USE.items():
        assert below <= above, part
        above.add(part)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("import peakhold.delivery.threads", "delivery"),
        ("from peakhold.delivery import current", "delivery"),
        ("from peakhold import blocks", "blocks"),
        ("from peakhold import PeakAggregator", "peakhold"),
        ("import peakhold", "peakhold"),
        ("def f():\n    from peakhold.cli.errors import CommandError", "cli"),
        ("if TYPE_CHECKING:\n    from peakhold.outbox.store import Store", "outbox"),
    ],
)
def test_the_control_an_import_is_found_wherever_it_stands(source, part):
    assert used(source) == {part}
    assert part not in MAY_USE["records"]


def circles(package):
    """The files of a package that import one another in a circle, for types as well."""
    below = {}
    for path in (ROOT / package).glob("*.py"):
        found = ast.walk(ast.parse(path.read_text("utf-8")))
        modules = {each.module for each in found if isinstance(each, ast.ImportFrom)}
        prefix = f"peakhold.{package}."
        below[path.stem] = {
            module.removeprefix(prefix)
            for module in modules
            if module and module.startswith(prefix)
        }
    del below["__init__"]
    while leaves := [each for each, uses in below.items() if not uses & {*below}]:
        for leaf in leaves:
            del below[leaf]
    return sorted(below)


@pytest.mark.parametrize("package", ["blocks", "delivery", "outbox", "records"])
def test_no_two_files_of_a_package_import_each_other(package):
    assert circles(package) == []
