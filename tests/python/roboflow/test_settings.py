"""Every environment variable, what it defaults to, and what a bad one says."""

from __future__ import annotations

import dataclasses
import pickle
from enum import Enum

import pytest

from peakhold.roboflow import Settings
from peakhold.roboflow.settings import ENVIRONMENT


def test_nothing_set_gives_the_documented_defaults():
    settings = Settings.from_environment({})

    assert dataclasses.asdict(settings) == {
        "api_key": None,
        "api_base_url": "https://api.roboflow.com",
        "device_id": None,
        "connect_timeout": 3.05,
        "read_timeout": 10.0,
        "verify_ssl": True,
        "extra_headers": {},
        "offline": False,
        "secure_gateway": None,
        "system_info": True,
    }


class Host(str, Enum):
    """Texts that ``format`` shows as something else."""

    GATEWAY = "gateway:8080"
    API = "http://localhost:9"


def test_a_subclass_of_str_counts_as_its_own_characters():
    settings = Settings(api_base_url=Host.API, secure_gateway=Host.GATEWAY)

    assert settings.secure_gateway == "http://gateway:8080"
    assert f"{settings.api_base_url}/" == "http://localhost:9/"


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("DEVICE_ID", "camera-7")

    assert Settings.from_environment().device_id == "camera-7"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ROBOFLOW_API_KEY": "one", "API_KEY": "two"}, {"api_key": "one"}),
        ({"API_KEY": "two"}, {"api_key": "two"}),
        ({"ROBOFLOW_API_KEY": "", "API_KEY": "two"}, {"api_key": "two"}),
        ({"ROBOFLOW_API_KEY": "from-a-file\n"}, {"api_key": "from-a-file"}),
        (
            {"API_BASE_URL": "http://localhost:9/"},
            {"api_base_url": "http://localhost:9"},
        ),
        ({"API_BASE_URL": "http://h/base/"}, {"api_base_url": "http://h/base"}),
        ({"API_BASE_URL": " "}, {"api_base_url": "https://api.roboflow.com"}),
        ({"DEVICE_ID": "camera-7"}, {"device_id": "camera-7"}),
        (
            {"ROBOFLOW_API_REQUEST_TIMEOUT": "30"},
            {"connect_timeout": 3.05, "read_timeout": 30.0},
        ),
        (
            {"ROBOFLOW_API_REQUEST_TIMEOUT": "1.5"},
            {"connect_timeout": 1.5, "read_timeout": 1.5},
        ),
        ({"ROBOFLOW_API_VERIFY_SSL": "False"}, {"verify_ssl": False}),
        ({"ROBOFLOW_API_VERIFY_SSL": "true"}, {"verify_ssl": True}),
        (
            {"ROBOFLOW_API_EXTRA_HEADERS": '{"X-Team": "line 3"}'},
            {"extra_headers": {"X-Team": "line 3"}},
        ),
        ({"OFFLINE_MODE": "True"}, {"offline": True}),
        ({"OFFLINE_MODE": "0"}, {"offline": False}),
        ({"SECURE_GATEWAY": "gw:8080"}, {"secure_gateway": "http://gw:8080"}),
        ({"SECURE_GATEWAY": "https://gw/"}, {"secure_gateway": "https://gw"}),
        ({"PEAKHOLD_SYSTEM_INFO": "off"}, {"system_info": False}),
        ({"PEAKHOLD_SYSTEM_INFO": "on"}, {"system_info": True}),
    ],
)
def test_a_variable_sets_its_field_and_no_other(environ, expected):
    changed = dataclasses.replace(Settings(), **expected)

    assert Settings.from_environment(environ) == changed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_BASE_URL", "s3cret"),
        ("API_BASE_URL", "ftp://s3cret"),
        ("API_BASE_URL", "http://s3cret:99999"),
        ("API_BASE_URL", "http://s3cret host"),
        ("API_BASE_URL", "https://user:s3cret@host"),
        ("API_BASE_URL", "https://host/?api_key=s3cret"),
        ("API_BASE_URL", "https://host/#s3cret"),
        ("API_BASE_URL", "https://[s3cret"),
        ("SECURE_GATEWAY", "user:s3cret@gateway"),
        ("SECURE_GATEWAY", "http://"),
        ("ROBOFLOW_API_REQUEST_TIMEOUT", "s3cret"),
        ("ROBOFLOW_API_REQUEST_TIMEOUT", "0"),
        ("ROBOFLOW_API_REQUEST_TIMEOUT", "-1"),
        ("ROBOFLOW_API_REQUEST_TIMEOUT", "inf"),
        ("ROBOFLOW_API_REQUEST_TIMEOUT", "nan"),
        ("ROBOFLOW_API_VERIFY_SSL", "s3cret"),
        ("OFFLINE_MODE", "s3cret"),
        ("PEAKHOLD_SYSTEM_INFO", "s3cret"),
        ("ROBOFLOW_API_EXTRA_HEADERS", "s3cret"),
        ("ROBOFLOW_API_EXTRA_HEADERS", '["s3cret"]'),
        ("ROBOFLOW_API_EXTRA_HEADERS", '{"X-Token": 5}'),
        ("ROBOFLOW_API_EXTRA_HEADERS", '{"X-Token": null}'),
        ("ROBOFLOW_API_EXTRA_HEADERS", '{"X-Token": "s3cret\\r\\nX: y"}'),
        ("ROBOFLOW_API_EXTRA_HEADERS", '{"X-Token": " s3cret"}'),
        ("ROBOFLOW_API_EXTRA_HEADERS", '{"X-Token": "s3cret \\u20ac"}'),
        ("ROBOFLOW_API_EXTRA_HEADERS", '{"X s3cret": "y"}'),
        ("ROBOFLOW_API_EXTRA_HEADERS", '{"": "s3cret"}'),
    ],
)
def test_a_bad_value_is_named_with_its_remedy_and_never_shown(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        Settings.from_environment({name: value})

    error = caught.value
    assert "must" in str(error) or "use" in str(error)
    assert "s3cret" not in repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
def test_settings_made_by_hand_are_checked_too(name, seconds):
    with pytest.raises(ValueError, match=name):
        Settings(**{name: seconds})


def test_repr_hides_the_key_and_the_headers_and_shows_the_rest():
    settings = Settings(
        api_key="s3cret", extra_headers={"X-Token": "t0ken"}, device_id="camera-7"
    )

    assert "s3cret" not in repr(settings)
    assert "t0ken" not in repr(settings)
    assert "camera-7" in repr(settings)


def test_settings_are_frozen_hashable_and_cross_process_boundaries():
    settings = Settings(api_key="k", extra_headers={"X-Team": "a"})

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.api_key = "other"
    assert hash(settings) == hash(dataclasses.replace(settings))
    without_secrets = dataclasses.replace(settings, api_key=None, extra_headers={})
    assert pickle.loads(pickle.dumps(settings)) == without_secrets


def test_headers_changed_by_the_caller_later_do_not_change_the_settings():
    headers = {"X-Team": "a"}
    settings = Settings(extra_headers=headers)
    headers["X-Team"] = "b\r\nbad"

    assert settings.extra_headers == {"X-Team": "a"}


def test_the_documented_variables_are_the_ones_that_are_read():
    read = set()

    class Recorder(dict):
        def get(self, key, default=None):
            read.add(key)
            return default

    Settings.from_environment(Recorder())

    assert read == set(ENVIRONMENT)
