"""What the environment says about delivery."""

from __future__ import annotations

from pathlib import Path

import pytest

from peakhold.delivery.settings import DeliverySettings

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
    assert settings.directory().name == "peakhold"


def test_every_variable_is_read():
    environ = dict.fromkeys(NUMBERS, "1.5") | {
        "PEAKHOLD_STATE_DIR": "/var/lib/camera",
        "PEAKHOLD_DURABILITY": "Power",
        "PEAKHOLD_DISABLED": "yes",
    }
    settings = DeliverySettings.from_environment(environ)
    assert settings.directory() == Path("/var/lib/camera")
    assert settings.durability == "power"
    assert settings.disabled
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
    ],
)
def test_another_word_is_an_error_with_the_remedy(name, remedy):
    with pytest.raises(ValueError, match=f"{name} must be {remedy}") as caught:
        DeliverySettings.from_environment({name: "maybe"})
    assert "maybe" not in str(caught.value)


def test_no_wait_at_the_exit_is_a_choice():
    environ = {"PEAKHOLD_EXIT_SECONDS": "0"}
    assert DeliverySettings.from_environment(environ).exit_seconds == 0
