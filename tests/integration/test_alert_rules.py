"""The alert rules of the documentation are rules, about metrics that there are."""

import re
from pathlib import Path

import pytest
import yaml

from peakhold.metrics.figures import FIGURES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
BLOCK = re.compile(r"^```yaml$\n(.*?)^```$", re.MULTILINE | re.DOTALL)
METRIC = re.compile(r"\bpeakhold_\w+")


@pytest.fixture(scope="module")
def rules():
    (block,) = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    (group,) = yaml.safe_load(block)["groups"]
    return group["rules"]


def names():
    """The names of the metrics as Prometheus has them, and the labels of each."""
    suffixes = {"counter": "_total"}
    return {
        figure.name.replace(".", "_") + suffixes.get(figure.kind, ""): {*figure.labels}
        for figure in FIGURES
    }


def test_each_rule_has_what_prometheus_asks_for(rules):
    assert len({rule["alert"] for rule in rules}) == len(rules) == 4
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]


def test_each_rule_is_about_metrics_and_labels_that_there_are(rules):
    known = names()
    for rule in rules:
        (metric,) = METRIC.findall(rule["expr"])
        assert metric in known
        grouped = re.search(r"by \(([\w, ]+)\)", rule["expr"])[1].split(", ")
        shown = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
        assert {*grouped, *shown} - {"instance"} <= known[metric]
        assert {*shown} <= {*grouped}


def test_the_control_a_name_with_a_mistake_is_none(rules):
    assert "peakhold_destination_behinds" not in names()


def test_falling_behind_is_among_them(rules):
    assert any("peakhold_destination_behind)" in rule["expr"] for rule in rules)
