"""What the hosts must be told to run these blocks, and which host is installed.

The one place that knows the names of the variables. No host is imported here: that
takes seconds, and fixes the very configuration that is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PLUGIN = "peakhold.workflows"
"""The module that a host loads as its plugin."""

PLUGINS_VARIABLE = "WORKFLOWS_PLUGINS"
"""Names the plugins of a host, separated by commas. Every host reads it."""

PATTERNS_VARIABLE = "WORKFLOW_DISABLED_BLOCK_PATTERNS"
"""Names the core blocks that a host leaves out, separated by commas."""

BLOCK_TYPES_VARIABLE = "WORKFLOW_DISABLED_BLOCK_TYPES"
"""Names whole types of core blocks that a host leaves out, separated by commas."""

REMOVING_PATTERNS = ("ModelMonitoringInferenceAggregator", "RoboflowCustomMetadata")
"""What `PATTERNS_VARIABLE` must hold to remove the reference blocks, and only these."""

IN_PLACE_VARIABLE = "PEAKHOLD_IN_PLACE"
"""Set to 1, not taking the place of the reference blocks is an error at load."""

_INFERENCE_DISTRIBUTIONS = (
    "inference-core",
    "inference-gpu",
    "inference-cpu",
    "inference",
)


@dataclass(frozen=True)
class Host:
    """An installed host.

    Attributes:
        package: Its Python package: `inference` or `roboflow_workflows`.
        distribution: The name under which it was installed.
        version: Its version.
        reads_environment: Whether `PATTERNS_VARIABLE` removes its reference blocks; if
            not, `peakhold.workflows.configure()` does.
    """

    package: str
    distribution: str
    version: str
    reads_environment: bool


def find_host() -> Host | None:
    """Return the host that is installed, the one that configures the other if both."""
    for distribution in _INFERENCE_DISTRIBUTIONS:
        host = _installed("inference", distribution, reads_environment=True)
        if host:
            return host
    return _installed(
        "roboflow_workflows", "roboflow-workflows", reads_environment=False
    )


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a host that reads them, with what they hold already.

    Args:
        environ: What is set so far; other plugins and patterns in there stay.
    """
    return {
        PLUGINS_VARIABLE: _extended(environ.get(PLUGINS_VARIABLE, ""), [PLUGIN]),
        PATTERNS_VARIABLE: _extended(
            environ.get(PATTERNS_VARIABLE, ""), REMOVING_PATTERNS
        ),
    }


def entries(value: str) -> list[str]:
    """Split the value of a variable that lists names."""
    return [entry for entry in map(str.strip, value.split(",")) if entry]


def _extended(value: str, wanted: list[str] | tuple[str, ...]) -> str:
    present = entries(value)
    known = {entry.lower() for entry in present}
    return ",".join([*present, *(name for name in wanted if name.lower() not in known)])


def _installed(
    package: str, distribution: str, *, reads_environment: bool
) -> Host | None:
    # A directory of the same name in the working directory would be found as a
    # package, so that only what was installed counts.
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
    if util.find_spec(package) is None:
        return None
    return Host(package, distribution, version, reads_environment)
