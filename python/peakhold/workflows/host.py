"""Which host there is, and its parts. Finding it imports nothing of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

STANDALONE = "roboflow_workflows"
IN_INFERENCE = "inference.core.workflows"

CORE = "workflows_core"
"""Namespace of the init parameters of the host's own blocks."""

_NO_HOST = (
    "peakhold.workflows needs a host of Roboflow workflows, and none is installed: "
    "install one of `pip install inference` (or inference-core, inference-gpu) and "
    "`pip install roboflow-workflows`. Without a host, use the blocks of "
    "peakhold.blocks"
)


@dataclass(frozen=True)
class Host:
    """The package that runs workflows.

    Attributes:
        root: Its package, ``roboflow_workflows`` or ``inference.core.workflows``.
    """

    root: str

    @property
    def names_by_plugin(self) -> bool:
        """Whether init parameters are looked up under the plugin's own name.

        Hosts that do not, use the namespace a plugin asks for in ``BLOCKS_SOURCE``.
        """
        return self.root == IN_INFERENCE

    def init_parameter(self, name: str) -> Any:
        """Return what the host gives its own blocks if nobody says otherwise."""
        value = self.part("core_steps.loader").REGISTERED_INITIALIZERS[name]
        return value() if callable(value) else value

    def part(self, path: str) -> Any:
        """Return the host's module ``path``, imported if need be.

        Raises:
            ImportError: If this host has none.
        """
        return import_module(f"{self.root}.{path}")

    def optional(self, path: str, name: str) -> Any:
        """Return ``name`` of the host's module ``path``, None if it has no such."""
        try:
            module = self.part(path)
        except ModuleNotFoundError as error:
            # It is this module, or a parent, that is not there; not one it imports.
            if f"{self.root}.{path}.".startswith(f"{error.name}."):
                return None
            raise
        return getattr(module, name, None)


def find_host() -> Host:
    """Return the host: ``roboflow_workflows``, else the one within ``inference``.

    Raises:
        ImportError: If there is neither; the text says what to install.
    """
    if _package(STANDALONE) is not None:
        return Host(STANDALONE)
    if _inference_has("core", "workflows", "prototypes", "block.py"):
        return Host(IN_INFERENCE)
    raise ImportError(_NO_HOST, name=STANDALONE)


def inference_is_installed() -> bool:
    """Whether there is an ``inference`` that could run workflows in this process."""
    return _inference_has("core", "env.py")


def inference_is_imported() -> bool:
    """Whether ``inference`` runs, or may run, workflows in this process."""
    return "inference.core" in sys.modules


def _package(name: str) -> list[str] | None:
    """Return the folders of a top-level package, None if it is not installed."""
    spec = find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        return None
    return list(spec.submodule_search_locations)


def _inference_has(*path: str) -> bool:
    # find_spec of a submodule would import its parents.
    return any(Path(folder, *path).is_file() for folder in _package("inference") or ())
