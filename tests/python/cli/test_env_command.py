"""`peakhold env`: the variables of the host that is found, which is not imported."""

from __future__ import annotations

import json
import subprocess

import pytest

PATTERNS = "ModelMonitoringInferenceAggregator,RoboflowCustomMetadata"
VARIABLES = {
    "WORKFLOWS_PLUGINS": "peakhold.workflows",
    "WORKFLOW_DISABLED_BLOCK_PATTERNS": PATTERNS,
}
UNSET = dict.fromkeys(VARIABLES, "")
HOSTS = {
    "inference": ("inference_core-1.8.3", "inference", "core/env.py"),
    "old inference": ("inference_gpu-1.3.10", "inference", "core/env.py"),
    "alone": ("roboflow_workflows-0.2.13", "roboflow_workflows", "__init__.py"),
}


@pytest.fixture
def env(peakhold, tmp_path):
    """Run `peakhold env` with hosts that must not be imported."""

    def run(*arguments, hosts=(), **variables):
        for host in hosts:
            distribution, package, file = HOSTS[host]
            metadata = tmp_path / f"{distribution}.dist-info" / "METADATA"
            metadata.parent.mkdir()
            name, _, version = distribution.partition("-")
            metadata.write_text(f"Name: {name}\nVersion: {version}\n")
            for path in (package + "/__init__.py", f"{package}/{file}"):
                module = tmp_path / path
                module.parent.mkdir(parents=True, exist_ok=True)
                module.write_text("raise SystemExit('a host was imported')")
        path = str(tmp_path)
        return peakhold("env", *arguments, **{**UNSET, "PYTHONPATH": path, **variables})

    return run


def evaluated(ended, *names):
    """Return what a shell has in variables after it evaluated the output."""
    shown = "; ".join(f'printf "%s\\n" "${name}"' for name in names)
    script = f"{ended.stdout.decode()}\n{shown}"
    done = subprocess.run(
        ["sh", "-c", script], check=True, capture_output=True, env={}, text=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("host", ["inference", "old inference"])
def test_a_shell_has_both_variables_afterwards(env, host):
    ended = env(hosts=[host])

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert evaluated(ended, *VARIABLES) == list(VARIABLES.values())


def test_what_is_set_already_stays(env):
    ended = env(
        hosts=["inference"],
        WORKFLOWS_PLUGINS="my plugins, $HOME.other",
        WORKFLOW_DISABLED_BLOCK_PATTERNS="roboflowcustommetadata",
    )

    assert evaluated(ended, *VARIABLES) == [
        "my plugins,$HOME.other,peakhold.workflows",
        "roboflowcustommetadata,ModelMonitoringInferenceAggregator",
    ]


def test_what_is_printed_once_is_printed_again(env):
    ended = env(hosts=["inference"], **VARIABLES)

    assert evaluated(ended, *VARIABLES) == list(VARIABLES.values())


def test_for_docker_they_are_arguments(env):
    ended = env("--docker", hosts=["inference"], WORKFLOWS_PLUGINS="only.here")

    assert (ended.returncode, ended.stderr) == (0, b"")
    expected = [f"--env={name}={value}" for name, value in VARIABLES.items()]
    words = ended.stdout.decode().replace("--env ", "--env=").split()
    assert words == expected


@pytest.mark.parametrize("hosts", [[], ["alone"]])
def test_for_docker_no_host_is_needed_here(env, hosts):
    ended = env("--docker", hosts=hosts)

    assert ended.returncode == 0
    assert ended.stdout.decode().count("--env ") == len(VARIABLES)
    assert "variables of inference" in ended.stderr.decode()


def test_a_host_that_reads_no_variable_is_told_by_a_call(env):
    ended = env(hosts=["alone"])

    assert ended.returncode == 0
    assert "peakhold.workflows.configure()" in ended.stdout.decode()
    assert "roboflow-workflows 0.2.13" in ended.stdout.decode()
    assert evaluated(ended, *VARIABLES) == ["", ""]


def test_of_two_hosts_inference_configures_the_other(env):
    ended = env(hosts=["alone", "inference"])

    assert evaluated(ended, *VARIABLES) == list(VARIABLES.values())


def test_json_has_host_and_variables(env):
    host = {"package": "inference", "distribution": "inference-core"}

    assert json.loads(env("--json", hosts=["inference"]).stdout) == {
        "host": {**host, "version": "1.8.3"},
        "variables": VARIABLES,
        "call": None,
    }


def test_json_has_the_call_of_a_host_that_reads_none(env):
    described = json.loads(env("--json", hosts=["alone"]).stdout)

    assert described["host"]["distribution"] == "roboflow-workflows"
    assert described["variables"] == {}
    assert described["call"] == "peakhold.workflows.configure()"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_without_a_host_it_says_what_to_install(env, told, arguments):
    ended = env(*arguments)

    told(ended, "no host", "pip install inference")
    assert ended.stdout == b""


def test_a_folder_named_like_a_host_is_none(env, told, tmp_path):
    (tmp_path / "inference").mkdir()

    told(env(), "no host")


def test_only_one_format_at_a_time(env, told):
    told(env("--json", "--docker"), "not allowed with")
