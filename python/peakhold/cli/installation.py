"""Checks of what is installed and configured here; no request is made."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from peakhold._peakhold import __version__, build_profile
from peakhold.cli.findings import Finding, fail, ok, warn
from peakhold.environment import Environment
from peakhold.hosts import (
    CONFIGURE_CALL,
    IN_PLACE_VARIABLE,
    PATTERNS_VARIABLE,
    PLUGIN,
    PLUGINS_VARIABLE,
    REMOVING_PATTERNS,
    Host,
    entries,
    find_host,
    installed_version,
    remaining_references,
    variables,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPPORTED: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {
    "numpy": ((1, 26), (3,)),
    "supervision": ((0, 26), None),
}
"""For each requirement its lowest version, and the lowest that is too high, if any."""


def check_installation() -> Iterator[Finding]:
    """Yield what is found about extension, requirements, host and plugin."""
    yield _check_extension()
    for requirement in SUPPORTED:
        yield _check_version(requirement)
    host = find_host()
    if host is None:
        yield warn(
            "host",
            "no host of Roboflow workflows is installed here",
            "pip install inference, or roboflow-workflows, unless you use "
            "peakhold.blocks without a host",
        )
        yield warn("plugin", "there is no host to load it", "install a host first")
        return
    yield ok("host", str(host))
    if host.reads_environment:
        yield _check_plugin()
        yield _check_references()
    else:
        yield _unseen(host)


def _check_extension() -> Finding:
    found = f"peakhold {__version__}, {build_profile} build"
    if build_profile != "release":
        return warn(
            "extension",
            f"{found}, many times slower than a release",
            "pip install --force-reinstall peakhold, or maturin develop --release",
        )
    installed = installed_version("peakhold")
    if installed not in (None, __version__):
        return warn(
            "extension",
            f"{found}, in an installation of version {installed}",
            "pip install --force-reinstall peakhold",
        )
    return ok("extension", found)


def _check_version(requirement: str) -> Finding:
    lowest, too_high = SUPPORTED[requirement]
    wanted = f"{requirement}>={_dotted(lowest)}"
    if too_high is not None:
        wanted += f",<{_dotted(too_high)}"
    remedy = f'pip install "{wanted}"'
    version = installed_version(requirement)
    if version is None:
        return fail(requirement, "it is not installed", remedy)
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < lowest or (too_high is not None and numbers >= too_high):
        return warn(requirement, f"{version} is not a version peakhold knows", remedy)
    return ok(requirement, version)


def _check_plugin() -> Finding:
    value = os.environ.get(PLUGINS_VARIABLE, "")
    if PLUGIN not in entries(value):
        found = f"{PLUGINS_VARIABLE} does not name {PLUGIN}"
        if len(remaining_references(os.environ)) < len(REMOVING_PATTERNS):
            found += ", yet reference blocks are removed: workflows with them fail"
        return fail("plugin", found, _export(PLUGINS_VARIABLE))
    if value.split(",") != entries(value):
        # Hosts take what stands between two commas for the name of a module.
        return fail(
            "plugin",
            f"{PLUGINS_VARIABLE} has a blank or an empty entry in its list",
            _export(PLUGINS_VARIABLE),
        )
    return ok("plugin", f"{PLUGINS_VARIABLE} names {PLUGIN}")


def _check_references() -> Finding:
    try:
        required = Environment().switch(IN_PLACE_VARIABLE, default=False)
    except ValueError as error:
        return fail("in place", str(error), "set or unset that variable")
    remaining = remaining_references(os.environ)
    if not remaining:
        return ok("in place", "the reference blocks are removed")
    found = f"the reference {' and '.join(remaining)} not removed"
    remedy = _export(PATTERNS_VARIABLE)
    if required:
        return fail("in place", f"{found}, though {IN_PLACE_VARIABLE} is set", remedy)
    return warn("in place", f"{found}: peakhold has its own identifiers only", remedy)


def _unseen(host: Host) -> Finding:
    return warn(
        "plugin",
        f"{host} reads no variable for it, so that it cannot be seen from here",
        f"have the program call {CONFIGURE_CALL} before anything of {host.package} is "
        "imported",
    )


def _export(name: str) -> str:
    return f"export {name}={shlex.quote(variables(os.environ)[name])}"


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
