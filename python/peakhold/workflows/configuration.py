"""Configuring a host by a call, where it reads no environment for it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

from peakhold.errors import PeakholdError
from peakhold.hosts import (
    PATTERNS_VARIABLE,
    PLUGIN,
    PLUGINS_VARIABLE,
    REMOVING_PATTERNS,
    entries,
    variables,
)
from peakhold.workflows.host import (
    STANDALONE,
    find_host,
    inference_is_imported,
    inference_is_installed,
)
from peakhold.workflows.identity import IDENTITIES, taken_identifiers

_TOO_LATE = (
    "peakhold.workflows.configure() was called too late: the workflow engine has been "
    "imported or configured before, and keeps the reference blocks. Call it before "
    "anything of roboflow_workflows or inference is imported, or have "
    f"{PATTERNS_VARIABLE}={','.join(REMOVING_PATTERNS)} in the environment of inference"
)

_promised = False


class TooLateError(PeakholdError):
    """The host has fixed its configuration already, and it is another one."""


def configure(configuration: Any = None) -> None:
    """Put the blocks in place of the reference ones, and register the plugin.

    For programs on ``roboflow-workflows`` alone, which reads no environment for this:
    call it once, before anything of ``roboflow_workflows`` is imported. Where
    ``inference`` is installed, which configures the engine from the environment, it
    sets the two variables that ``inference`` reads when it is imported. It is harmless
    where they, or a configuration installed before, say the same already.

    Once it was called, reference blocks found at load are an error.

    Args:
        configuration: The program's own ``WorkflowsConfiguration`` for
            ``roboflow-workflows`` alone, if the defaults do not suit it; the patterns
            that remove the reference blocks are added.

    Raises:
        TooLateError: If the engine was imported, or configured otherwise, before.
        TypeError: If a configuration is given and ``inference`` makes its own.
    """
    global _promised  # noqa: PLW0603 - a promise about the process
    if not inference_is_installed():
        _configure_standalone(configuration)
    elif configuration is not None:
        raise TypeError(
            "inference makes its configuration from the environment: set its variables "
            "instead of passing a configuration"
        )
    elif inference_is_imported() or f"{STANDALONE}.environment" in sys.modules:
        _check_what_is_fixed()
    else:
        os.environ[PATTERNS_VARIABLE] = variables(os.environ)[PATTERNS_VARIABLE]
    os.environ[PLUGINS_VARIABLE] = _with_plugin(os.environ.get(PLUGINS_VARIABLE, ""))
    _promised = True


def in_place_was_promised() -> bool:
    """Whether ``configure`` returned in this process."""
    return _promised


def _configure_standalone(configuration: Any) -> None:
    module = find_host().part("configuration")
    wanted = module.WorkflowsConfiguration() if configuration is None else configuration
    patterns = tuple(wanted.engine.disabled_block_patterns)
    # Lower case is how the engine expects them.
    ours = tuple(name.lower() for name in REMOVING_PATTERNS)
    added = tuple(name for name in ours if name not in patterns)
    engine = replace(wanted.engine, disabled_block_patterns=patterns + added)
    try:
        module.configure_process(replace(wanted, engine=engine))
    except module.WorkflowEnvironmentConfigurationError:
        if configuration is not None:
            raise TooLateError(_TOO_LATE) from None
        _check_what_is_fixed()


def _check_what_is_fixed() -> None:
    # Loading the host's blocks now changes nothing: the configuration is fixed.
    taken = taken_identifiers(find_host())
    if not all(identity.is_free(taken) for identity in IDENTITIES):
        raise TooLateError(_TOO_LATE)


def _with_plugin(plugins: str) -> str:
    # Hosts do not strip: blanks would be part of a module's name.
    names = entries(plugins)
    return ",".join(names if PLUGIN in names else [*names, PLUGIN])
