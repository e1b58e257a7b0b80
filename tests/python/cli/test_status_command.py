"""`peakhold status`: where everything stands, without network and key."""

from __future__ import annotations

import json
import sqlite3

import pytest

from peakhold.outbox.schema import SCHEMA_VERSION


def change(state_directory, statement):
    database = sqlite3.connect(state_directory / "outbox.sqlite3")
    with database:
        database.execute(statement)
    database.close()


def test_an_outbox_with_nothing_in_it_is_well(peakhold, leave, monitor):
    leave("a", "b", API_BASE_URL=monitor.url)

    ended = peakhold("status")

    assert ended.returncode == 0, ended.stderr
    text = ended.stdout.decode()
    assert "sealed 2 = delivered 2 + pending 0 + parked 0 + dead 0 + dropped 0" in text
    assert "Nothing waits." in text


def test_what_waits_for_its_time_alone_needs_nobody(peakhold, leave):
    leave("a", OFFLINE_MODE="True")

    ended = peakhold("status")

    assert ended.returncode == 0
    assert b"pending 1, parked 0, dead 0" in ended.stdout


def grow_old(state_directory, seconds):
    """Have the outbox take so much time for passed; a day at most."""
    change(
        state_directory,
        f"UPDATE totals SET value = value - {seconds} WHERE name = 'wall'",
    )


ALLOWED = 3 * 3600  # the windows of `leave` report every hour


def words_of(ended):
    return " ".join(ended.stdout.decode().split())


def test_reports_that_fail_for_three_frequencies_are_behind(
    peakhold, stay, state_directory
):
    stay("a", API_BASE_URL="http://127.0.0.1:9")
    grow_old(state_directory, ALLOWED - 60)
    assert peakhold("status").returncode == 0  # the control

    grow_old(state_directory, 120)
    ended = peakhold("status")

    assert ended.returncode == 1
    assert "behind: the oldest report waits for 3 h; requests to it fail, the" in (
        words_of(ended)
    )
    assert "to help: put that right; `peakhold doctor` tries" in words_of(ended)
    (row,) = json.loads(peakhold("status", "--json").stdout)["destinations"]
    assert row["behind"]["cause"] == "failing"
    assert row["oldest_report"]["allowed_age"] == ALLOWED


def test_reports_that_an_ended_process_left_are_behind_until_somebody_delivers(
    peakhold, leave, monitor, state_directory
):
    leave("a", API_BASE_URL=monitor.url, OFFLINE_MODE="True")
    grow_old(state_directory, ALLOWED + 60)

    ended = peakhold("status")

    assert ended.returncode == 1
    assert "the process whose reports they are has ended" in words_of(ended)
    assert "run `peakhold flush` with its api key" in words_of(ended)


def test_reports_that_are_to_wait_are_not_behind(peakhold, leave, state_directory):
    leave("a", OFFLINE_MODE="True")
    grow_old(state_directory, ALLOWED + 60)

    assert peakhold("status", OFFLINE_MODE="True").returncode == 0
    assert peakhold("status", OFFLINE_MODE="maybe").returncode == 1  # the control


def test_reports_of_a_process_that_does_not_send_are_told_with_their_rate(
    peakhold, stay, state_directory
):
    stay("a", OFFLINE_MODE="True")
    grow_old(state_directory, ALLOWED + 60)

    ended = peakhold("status")

    assert ended.returncode == 1
    assert "0.0 reports a second were closed, and fewer sent" in words_of(ended)
    assert "PEAKHOLD_REQUESTS_PER_SECOND" in words_of(ended)
    assert "OFFLINE_MODE" in words_of(ended)


def test_each_state_is_told_by_destination_with_its_last_error(
    peakhold, troubled, state_directory, api_key
):
    ended = peakhold("status")

    text = ended.stdout.decode()
    assert ended.returncode == 1
    assert text.startswith(f"Outbox in {state_directory}\n")
    assert "sealed 3 = delivered 0 + pending 1 + parked 1 + dead 1" in text
    assert f"To {troubled} with key " in text
    assert "pending 0, parked 1, dead 0; the oldest waits for " in text
    assert "wants payment" in text
    assert "HTTP 422" in text
    assert "`peakhold outbox ls`" in text
    assert api_key not in text


def test_json_has_the_keys_of_health(peakhold, troubled, state_directory):
    ended = peakhold("status", "--json")

    found = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert found["state_directory"] == str(state_directory)
    assert found["unaccounted"] == 0
    assert found["counts"] == {
        "sealed": 3,
        "delivered": 0,
        "pending": 1,
        "parked": 1,
        "dead": 1,
        "dropped": {},
    }
    assert [row["parked"] for row in found["destinations"]] == [0, 0, 1]


@pytest.mark.parametrize("share", ["host", "off"])
def test_shared_windows_are_told(peakhold, stay, share):
    """The control is `off`."""
    url = "http://127.0.0.1:9"
    stay("gate", PEAKHOLD_SHARE=share, API_BASE_URL=url, PEAKHOLD_EXIT_SECONDS="0.1")

    ended = peakhold("status")
    text = " ".join(ended.stdout.decode().split())
    shared = json.loads(peakhold("status", "--json").stdout)["sharing"]

    if share == "off":
        assert "Shared" not in text
        assert shared == []
        return
    assert ended.returncode == 0
    assert f"Shared window gate, every 3,600 s, to {url} with key " in text
    assert "running processes of this host: " in text
    assert "that came late 0" in text
    assert (shared[0]["aggregator_key"], shared[0]["frequency"]) == ("gate", 3600)


def test_a_part_that_nobody_reports_is_told(peakhold, leave, state_directory):
    then = "from peakhold.blocks.windows import REGISTRY as it; it.flush_all()\n"
    then += "from peakhold.delivery import current; current().committer.commit()\n"
    leave("gate", then=f"{then}os._exit(9)", PEAKHOLD_SHARE="host")
    text = " ".join(peakhold("status").stdout.decode().split())
    assert "pending 1" in text
    assert "of this host: 0; epoch" in text
    assert "parts that wait 1, that came late 0" in text
    assert "is due for" not in text
    change(state_directory, "UPDATE parts SET epoch = 1")
    text = " ".join(peakhold("status").stdout.decode().split())
    assert "is reported by the next process with the same API key" in text


def test_it_fits_a_narrow_terminal(peakhold, troubled, state_directory):
    text = peakhold("status", COLUMNS="60").stdout.decode()

    lines = text.replace(str(state_directory), "").splitlines()
    assert max(map(len, lines)) <= 60


def test_a_window_of_a_killed_process_is_told(peakhold, leave):
    leave("a", then="os._exit(9)", API_BASE_URL="http://127.0.0.1:9")

    # There is no outbox yet, but there is something to be seen.
    ended = peakhold("status")

    assert ended.returncode == 0, ended.stderr
    assert b"1 that dead ones left to the next" in ended.stdout


def test_while_a_process_uses_the_outbox_its_windows_count_as_running(stay, peakhold):
    stay("a", seal=False)

    assert b"1 of running processes, 0 that" in peakhold("status").stdout


def test_figures_that_do_not_add_up_are_told(peakhold, leave, state_directory):
    leave("a", OFFLINE_MODE="True")
    change(state_directory, "UPDATE totals SET value = 3 WHERE name = 'sealed'")

    ended = peakhold("status")

    assert ended.returncode == 1
    assert b"do not add up, by 2: see" in ended.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["outbox", "ls"],
        ["outbox", "show", "x"],
        ["outbox", "retry", "--all"],
        ["outbox", "drop", "x"],
        ["outbox", "export"],
        ["flush"],
    ],
)
def test_without_an_outbox_the_remedy_is_told(
    peakhold, told, state_directory, command, api_key
):
    ended = peakhold(*command, ROBOFLOW_API_KEY=api_key)

    told(ended, f"there is no outbox in {state_directory}", "PEAKHOLD_STATE_DIR")
    assert not state_directory.exists()


@pytest.mark.parametrize(
    ("command", "below"),
    [(["status"], "far/below"), (["outbox", "ls"], "."), (["flush"], ".")],
)
def test_a_file_in_the_place_of_the_directory_is_named(
    peakhold, told, tmp_path, command, below, api_key
):
    file = tmp_path / "file"
    file.write_text("no directory")
    path = str(file / below)

    ended = peakhold(*command, ROBOFLOW_API_KEY=api_key, PEAKHOLD_STATE_DIR=path)

    told(ended, f"{file}': a file is in the way, let PEAKHOLD_STATE_DIR name another")
    assert b"no outbox" not in ended.stderr


@pytest.mark.parametrize("command", [["status"], ["outbox", "ls"], ["flush"]])
def test_the_outbox_of_a_later_version_is_left_alone(
    peakhold, told, leave, state_directory, command, api_key
):
    leave("a", OFFLINE_MODE="True")
    change(state_directory, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = (state_directory / "outbox.sqlite3").read_bytes()

    ended = peakhold(*command, ROBOFLOW_API_KEY=api_key)

    told(ended, "later version of peakhold: use that version")
    assert (state_directory / "outbox.sqlite3").read_bytes() == before


def test_a_foreign_file_is_told(peakhold, told, state_directory):
    state_directory.mkdir()
    (state_directory / "outbox.sqlite3").write_text("a text of somebody's" * 100)

    told(peakhold("status"), "cannot be used", "peakhold doctor")


def test_a_variable_that_cannot_be_used_is_told(peakhold, told):
    told(peakhold("status", PEAKHOLD_OUTBOX_MIB="much"), "PEAKHOLD_OUTBOX_MIB")
