"""What the doctor says of all that is installed and configured, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from peakhold.cli import installation
from peakhold.hosts import Host

PATTERNS = "ModelMonitoringInferenceAggregator,RoboflowCustomMetadata"
IN_PLACE = {
    "WORKFLOWS_PLUGINS": "peakhold.workflows",
    "WORKFLOW_DISABLED_BLOCK_PATTERNS": PATTERNS,
}
UNSET = dict.fromkeys(["WORKFLOW_DISABLED_BLOCK_TYPES", "PEAKHOLD_IN_PLACE"], "")


@pytest.fixture
def look_here(monkeypatch):
    """Run the checks of the installation in this process, with a host of no files."""
    host = Host("inference", "inference-core", "1.8.3")

    def look(**variables):
        monkeypatch.setattr(installation, "find_host", lambda: host)
        for name, value in {**UNSET, **IN_PLACE, **variables}.items():
            monkeypatch.setenv(name, value)
        return {finding.check: finding for finding in installation.check_installation()}

    return look


@pytest.mark.parametrize(
    "plugins",
    ["mine, peakhold.workflows", "peakhold.workflows,", ",peakhold.workflows"],
)
def test_blanks_in_the_list_of_plugins_fail(look_here, plugins):
    finding = look_here(WORKFLOWS_PLUGINS=plugins)["plugin"]

    assert (finding.status, "blank or an empty" in finding.text) == ("fail", True)
    assert look_here()["plugin"].status == "ok"


@pytest.mark.parametrize(
    ("required", "status"), [("", "warn"), ("0", "warn"), ("1", "fail"), ("on", "fail")]
)
def test_references_that_stay_are_told(look_here, required, status):
    finding = look_here(
        WORKFLOW_DISABLED_BLOCK_PATTERNS="aggregator,onvif",
        PEAKHOLD_IN_PLACE=required,
    )["in place"]

    assert finding.status == status
    assert "the reference RoboflowCustomMetadata not removed" in finding.text
    assert "PATTERNS=aggregator,onvif,ModelMonitoring" in finding.remedy


def test_a_switch_that_is_neither_on_nor_off_is_told_with_the_remedy(look_here):
    finding = look_here(PEAKHOLD_IN_PLACE="maybe")["in place"]

    assert finding.status == "fail"
    assert "PEAKHOLD_IN_PLACE must be True or False" in finding.text
    assert "maybe" not in finding.text


@pytest.mark.parametrize(
    ("patterns", "types", "status"),
    [
        (PATTERNS.lower(), "", "ok"),
        ("sinks.roboflow", "", "ok"),
        ("roboflow_workflows.core_steps.sinks, none", "", "ok"),
        ("inference aggregator,CUSTOM METADATA", "", "ok"),
        ("", " Sink,model", "ok"),
        ("", "model", "warn"),
        ("Monitoring Aggregator,Metadata2", "", "warn"),
    ],
)
def test_whatever_removes_the_references_counts(look_here, patterns, types, status):
    finding = look_here(
        WORKFLOW_DISABLED_BLOCK_PATTERNS=patterns,
        WORKFLOW_DISABLED_BLOCK_TYPES=types,
    )["in place"]

    assert finding.status == status


@pytest.mark.parametrize(
    ("name", "version", "status"),
    [
        ("numpy", "1.25.9", "warn"),
        ("numpy", "1.26", "ok"),
        ("numpy", "3.0.0rc1", "warn"),
        ("supervision", "0.25.1", "warn"),
        ("supervision", "0.26.0rc5", "ok"),
        ("supervision", "0.99.0", "ok"),
        ("supervision", "unknown", "warn"),
        ("supervision", None, "fail"),
    ],
)
def test_versions_out_of_range_are_told(look_here, monkeypatch, name, version, status):
    monkeypatch.setattr(installation, "installed_version", lambda _: version)
    finding = look_here()[name]

    assert finding.status == status
    assert (f'pip install "{name}>=' in finding.remedy) == (status != "ok")


def test_the_versions_are_those_of_the_package():
    pyproject = Path(__file__).resolve().parents[3] / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    for name, (lowest, too_high) in installation.SUPPORTED.items():
        wanted = f"{name}>={'.'.join(map(str, lowest))}"
        if too_high is not None:
            wanted += f",<{'.'.join(map(str, too_high))}"
        assert f'"{wanted}"' in text


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("build_profile", "debug"), ("__version__", "0.0.1")],
)
def test_an_extension_that_does_not_fit_is_told(
    look_here, monkeypatch, attribute, value
):
    monkeypatch.setattr(installation, "installed_version", lambda _: "9.9.9")
    monkeypatch.setattr(installation, attribute, value)
    finding = look_here()["extension"]

    assert (finding.status, value in finding.text) == ("warn", True)
