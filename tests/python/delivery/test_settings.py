"""What the environment says about delivery."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from peakhold.delivery.settings import DeliverySettings, NoStateDirectoryError

NUMBERS = {
    "PEAKHOLD_OUTBOX_MIB": "outbox_mib",
    "PEAKHOLD_OUTBOX_TTL": "ttl",
    "PEAKHOLD_REQUESTS_PER_SECOND": "rate",
    "PEAKHOLD_METADATA_REQUESTS_PER_SECOND": "metadata_rate",
    "PEAKHOLD_EXIT_SECONDS": "exit_seconds",
}


def test_an_empty_environment_gives_the_documented_defaults():
    settings = DeliverySettings.from_environment({"PEAKHOLD_DURABILITY": " "})
    assert settings == DeliverySettings()
    assert settings.durability == "process"
    assert (settings.outbox_mib, settings.ttl) == (256, 7 * 24 * 3600)
    assert (settings.rate, settings.metadata_rate) == (10, 4)
    assert settings.exit_seconds == 2
    assert settings.share is None
    assert settings.directory().name == "peakhold"


def test_every_variable_is_read():
    environ = dict.fromkeys(NUMBERS, "1.5") | {
        "PEAKHOLD_STATE_DIR": "/var/lib/camera",
        "PEAKHOLD_DURABILITY": "Power",
        "PEAKHOLD_DISABLED": "yes",
        "PEAKHOLD_SHARE": "Host",
    }
    settings = DeliverySettings.from_environment(environ)
    assert settings.directory() == Path("/var/lib/camera")
    assert settings.durability == "power"
    assert settings.disabled
    assert settings.share == "host"
    assert {getattr(settings, name) for name in NUMBERS.values()} == {1.5}


@pytest.mark.parametrize("value", ["-1", "four", "inf", "nan"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_is_none_is_an_error_that_names_the_variable(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a number of "):
        DeliverySettings.from_environment({name: value})


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("PEAKHOLD_DURABILITY", "one of memory, process, power"),
        ("PEAKHOLD_DISABLED", "True or False"),
        ("PEAKHOLD_SHARE", "off, host, redis, or the URL"),
    ],
)
def test_another_word_is_an_error_with_the_remedy(name, remedy):
    with pytest.raises(ValueError, match=f"{name} must be {remedy}") as caught:
        DeliverySettings.from_environment({name: "maybe"})
    assert "maybe" not in str(caught.value)


def test_no_wait_at_the_exit_is_a_choice():
    environ = {"PEAKHOLD_EXIT_SECONDS": "0"}
    assert DeliverySettings.from_environment(environ).exit_seconds == 0


def test_a_relative_state_directory_is_that_of_the_first_look(tmp_path, monkeypatch):
    name = f"state-of-{tmp_path.name}"
    monkeypatch.chdir(tmp_path)
    settings = DeliverySettings.from_environment({"PEAKHOLD_STATE_DIR": name})
    assert settings.directory() == tmp_path / name
    monkeypatch.chdir(tmp_path.parent)
    settings = DeliverySettings.from_environment({"PEAKHOLD_STATE_DIR": name})
    assert settings.directory() == tmp_path / name
    other = DeliverySettings.from_environment({"PEAKHOLD_STATE_DIR": f"{name}-2"})
    assert other.directory() == tmp_path.parent / f"{name}-2"  # the control


@pytest.mark.skipif(os.name == "nt", reason="homes as POSIX has them")
@pytest.mark.parametrize("given", ["~nosuchuser/x", None])
def test_a_home_that_is_not_there_is_an_error_with_the_remedy(given, monkeypatch):
    pwd = pytest.importorskip("pwd")

    def nobody(key):
        raise KeyError(key)

    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    environ = {"PEAKHOLD_STATE_DIR": given} if given else {}
    settings = DeliverySettings.from_environment(environ)
    with pytest.raises(NoStateDirectoryError, match="set PEAKHOLD_STATE_DIR") as caught:
        settings.directory()
    assert "nosuchuser" not in str(caught.value)
