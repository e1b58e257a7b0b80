"""Records each contender's correctness beside its time, and where it was taken."""

from __future__ import annotations

import loopback
import pytest
import reference
import sinks
from run_info import run_info


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="few rounds")


@pytest.fixture
def rounds(request):
    """Makes a number of rounds a small one if it is to go quickly."""
    return lambda wanted: 2 if request.config.option.quick else wanted


@pytest.fixture(scope="session")
def server():
    with loopback.serving() as serving, sinks.scratch() as state:
        sinks.connect(serving.url, state)
        yield serving
        sinks.finish()


@pytest.fixture
def blocks(server):
    """Made anew: the reference reports all frames that a block has ever seen."""
    return sinks.make(server)


@pytest.fixture
def record(benchmark):
    """Notes what a row of a table is about, and whether the contender is right."""

    def note(table, scenario, contender, *, correct, frames):
        benchmark.group = f"{table}: {scenario}"
        benchmark.extra_info.update(
            table=table,
            scenario=scenario,
            contender=contender,
            correct=bool(correct),
            frames=frames,
        )

    return note


def pytest_benchmark_update_machine_info(machine_info):
    machine_info["run"] = run_info()


def pytest_terminal_summary(terminalreporter):
    if not reference.installed():
        terminalreporter.write_line(f"bench: {reference.MISSING}", yellow=True)
