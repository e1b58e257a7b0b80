"""What the hosts must be told to run these blocks, and which host is installed.

The one place that knows the names of the variables. No host is imported here: that
takes seconds, and fixes the very configuration that is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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

CONFIGURE_CALL = "peakhold.workflows.configure()"
"""What a program calls on a host that reads no `PATTERNS_VARIABLE`."""

_DISTRIBUTIONS = {
    "inference": ("inference-core", "inference-gpu", "inference-cpu", "inference"),
    "roboflow_workflows": ("roboflow-workflows",),
}

_ROOTS = (
    "roboflow_workflows.core_steps",
    "inference.core.workflows.core_steps",
    "inference.roboflow_workflows_plugin",
)
_SINKS = "sinks.roboflow"

_MATCHED_NAMES = {
    pattern: (
        f"{pattern}BlockV1",
        title,
        *(f"{root}.{_SINKS}.{module}.v1" for root in _ROOTS),
    )
    for pattern, title, module in (
        (
            REMOVING_PATTERNS[0],
            "Model Monitoring Inference Aggregator",
            "model_monitoring_inference_aggregator",
        ),
        (REMOVING_PATTERNS[1], "Roboflow Custom Metadata", "custom_metadata"),
    )
}
"""What the hosts match a pattern with, for each of the reference blocks."""


@dataclass(frozen=True)
class Host:
    """An installed host.

    Attributes:
        package: Its Python package: `inference` or `roboflow_workflows`.
        distribution: The name under which it was installed; that of its package if it
            was not installed by an installer.
        version: Its version, None if that is not known.
    """

    package: str
    distribution: str
    version: str | None

    @property
    def reads_environment(self) -> bool:
        """Whether `PATTERNS_VARIABLE` removes its reference blocks.

        If not, `peakhold.workflows.configure()` does.
        """
        return self.package == "inference"

    def __str__(self) -> str:
        """Name it as an installer does."""
        return f"{self.distribution} {self.version or 'of unknown version'}"


def find_host() -> Host | None:
    """Return the host that is installed; of both, the one that configures the other."""
    if _has("inference", "core", "env.py"):
        return _host("inference")
    if _has("roboflow_workflows", "__init__.py"):
        return _host("roboflow_workflows")
    return None


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a host that reads them.

    Args:
        environ: What is set so far; other plugins and patterns in there stay.
    """
    plugins = entries(environ.get(PLUGINS_VARIABLE, ""))
    patterns = entries(environ.get(PATTERNS_VARIABLE, ""))
    known = {pattern.lower() for pattern in patterns}
    if PLUGIN not in plugins:
        plugins.append(PLUGIN)
    patterns += [name for name in REMOVING_PATTERNS if name.lower() not in known]
    return {PLUGINS_VARIABLE: ",".join(plugins), PATTERNS_VARIABLE: ",".join(patterns)}


def remaining_references(environ: Mapping[str, str]) -> list[str]:
    """Return which of `REMOVING_PATTERNS` a host with these variables still needs.

    Args:
        environ: The variables, as a host that reads them will find them.
    """
    if "sink" in _lowered(entries(environ.get(BLOCK_TYPES_VARIABLE, ""))):
        return []
    patterns = _lowered(entries(environ.get(PATTERNS_VARIABLE, "")))
    return [
        wanted
        for wanted, names in _MATCHED_NAMES.items()
        if not any(found in name for found in patterns for name in _lowered(names))
    ]


def entries(value: str) -> list[str]:
    """Split the value of a variable that lists names."""
    return [entry for entry in map(str.strip, value.split(",")) if entry]


def installed_version(distribution: str) -> str | None:
    """Return the version of what was installed under a name, None if nothing was."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _lowered(names: Iterable[str]) -> list[str]:
    return [name.lower() for name in names]


def _has(package: str, *path: str) -> bool:
    # A folder of the same name in the working directory is found as a package, too.
    spec = util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    return any(Path(folder, *path).is_file() for folder in folders or ())


def _host(package: str) -> Host:
    for distribution in _DISTRIBUTIONS[package]:
        if version := installed_version(distribution):
            return Host(package, distribution, version)
    return Host(package, package, None)
