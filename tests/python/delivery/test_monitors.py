"""Windows in place of reports, for endpoints that say that they are monitors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from stand_ins import conserved

from peakhold import PeakAggregator
from peakhold.delivery import Dispatcher, Sender
from peakhold.delivery.monitors import Monitors
from peakhold.delivery.settings import DeliverySettings
from peakhold.records import Span, merge_reports, seal_report
from peakhold.testing import Answer, answer_json

SPAN = Span("gate", None, ended=1_795_000_005_000_000, began=1_795_000_000_000_000)


def window(sender, *, classes=1, window_id=None, statistics=True, span=SPAN):
    aggregator = PeakAggregator(statistics=statistics)
    items = [{"class": f"c{at}", "confidence": 0.5} for at in range(classes)]
    prediction = {"predictions": items, "inference_id": "i", "prediction_type": "t"}
    aggregator.observe(prediction, "m/1")
    record = seal_report(sender.destination, "w", aggregator.snapshot(), None, span)
    return replace(record, id=window_id) if window_id else record


@pytest.fixture
def monitor(api):
    """An endpoint that says what a monitor says."""
    api.is_monitor = True
    return api


def windows_in(post):
    assert post.path == "/spaceship/windows"
    return post.json()["windows"]


def test_an_endpoint_that_says_so_gets_windows(working, own_sender, monitor, api_key):
    record = window(own_sender, span=replace(SPAN, feed="camera 3"))
    working.monitors.learn(own_sender.destination.endpoint, is_monitor=True)
    working.deliver(record, own_sender)
    assert working.flush(5)
    (post,) = monitor.posts()
    assert post.query == {"api_key": [api_key]}
    assert post.json()["version"] == 1
    assert post.json()["sent_at"].endswith("Z")
    (each,) = windows_in(post)
    assert (each["id"], each["age"] >= 0) == (record.id, True)
    found = each["window"]
    assert {name: found[name] for name in ("aggregator", "feed", "began", "ended")} == {
        "aggregator": "gate",
        "feed": "camera 3",
        "began": "2026-11-18T11:06:40.000000Z",
        "ended": "2026-11-18T11:06:45.000000Z",
    }
    assert found["device"]["inference_server_version"].startswith("peakhold-")
    (peak,) = found["peaks"]
    assert (peak["model_id"], peak["class_name"], peak["confidence"]) == (
        "m/1",
        "c0",
        0.5,
    )
    (part,) = found["parts"]
    histogram = [0] * 20
    histogram[10] = 1
    assert (part["frames"], part["piece"], part["is_partial"]) == (1, 0, False)
    assert part["models"] == {
        "m/1": {
            "c0": {
                "frames": 1,
                "detections": 1,
                "outside": 0,
                "sum": 2**31,
                "least": 0.5,
                "histogram": histogram,
            }
        }
    }


def test_any_other_endpoint_gets_reports(working, own_sender, api):
    """The control; and the answer of the platform is all that was asked for."""
    working.deliver(window(own_sender), own_sender)
    working.deliver(window(own_sender), own_sender)
    assert working.flush(5)
    assert {post.path for post in api.posts()} == {"/spaceship/inference-stats"}
    assert api.lookup_count() == 1


@pytest.mark.parametrize("said", [None, 1, {"windows": 2}, {"windows": True}, []])
def test_an_answer_that_says_something_else_is_not_a_monitor_s(
    working, own_sender, api, said
):
    answer = {"workspace": "spaceship", "peakhold_monitor": said}
    api.lookups = [answer_json(answer)]
    working.deliver(window(own_sender), own_sender)
    assert working.flush(5)
    (post,) = api.posts()
    assert post.path == "/spaceship/inference-stats"


def test_it_is_asked_though_the_host_s_cache_knows_the_workspace(
    working, own_sender, monitor, cache
):
    cache.set(own_sender.workspace_cache_key, "spaceship")
    working.deliver(window(own_sender), own_sender)
    assert working.flush(5)
    assert len(windows_in(monitor.posts()[0])) == 1


def test_what_is_known_is_remembered_by_the_next_process(
    state, own_sender, monitor, cache
):
    for _ in range(2):
        dispatcher = Dispatcher(state)
        assert own_sender.wants_statistics(dispatcher.monitors)
        dispatcher.deliver(window(own_sender), own_sender)
        assert dispatcher.flush(5)
        cache.set(own_sender.workspace_cache_key, "spaceship")
        dispatcher.close(5)
    assert monitor.lookup_count() == 1
    assert len(monitor.posts()) == 2


def test_a_file_of_what_is_known_that_is_of_no_use_is_ignored(tmp_path):
    path = tmp_path / "endpoints.json"
    for content in (b"", b"[1]", b"\xff", b'{"http://here": 7}'):
        path.write_bytes(content)
        monitors = Monitors(path, "auto")
        assert not monitors.get("http://here")
        monitors.learn("http://here", is_monitor=True)
        assert Monitors(path, "auto").get("http://here") is True
    nowhere = Monitors(tmp_path / "nowhere" / "endpoints.json", "auto")
    nowhere.learn("http://here", is_monitor=True)
    assert nowhere.get("http://here") is True


def test_the_platform_is_never_asked_and_a_variable_decides():
    monitors = Monitors(None, "auto")
    assert monitors.get("https://api.roboflow.com") is False
    assert monitors.get("https://roboflow.com") is False
    assert monitors.get("https://notroboflow.com") is None
    assert monitors.get("http://localhost:8100") is None
    assert Monitors(None, "on").get("https://api.roboflow.com") is True
    assert Monitors(None, "off").get("http://localhost:8100") is False
    read = DeliverySettings.from_environment
    assert read({}).windows == "auto"
    assert read({"PEAKHOLD_WINDOWS": "Off"}).windows == "off"
    with pytest.raises(ValueError, match="PEAKHOLD_WINDOWS must be one of auto, on"):
        read({"PEAKHOLD_WINDOWS": "maybe"})


def test_a_host_s_client_always_sends_reports(stepped, sender, client):
    assert not sender.wants_statistics(stepped.monitors)
    stepped.deliver(window(sender), sender)
    stepped.step()
    assert sender.is_monitor is False
    (report,) = client.reports()
    assert [row["class_name"] for row in report["inference_results"]] == ["c0"]


def test_windows_that_wait_go_in_one_request(state, own_sender, monitor):
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.monitors.learn(own_sender.destination.endpoint, is_monitor=True)
    records = [window(own_sender, window_id=f"{at:032x}") for at in range(60)]
    for record in records:
        dispatcher.outbox.add([record])
    dispatcher.register(own_sender)
    for _ in range(3):
        dispatcher.step()
    sent = [[each["id"] for each in windows_in(post)] for post in monitor.posts()]
    assert list(map(len, sent)) == [50, 10]
    assert [each for batch in sent for each in batch] == [r.id for r in records]
    assert conserved(dispatcher.counts())
    assert dispatcher.counts().delivered == 60
    dispatcher.close(0)


def test_a_request_is_bounded_and_a_window_divided(state, own_sender, monitor):
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.monitors.learn(own_sender.destination.endpoint, is_monitor=True)
    dispatcher.deliver(window(own_sender, classes=6_000), own_sender)
    for _ in range(12):
        dispatcher.step()
    assert dispatcher.counts().pending == 0
    pieces = [each["window"] for post in monitor.posts() for each in windows_in(post)]
    assert len(pieces) > 1
    assert len({part["id"] for each in pieces for part in each["parts"]}) == 1
    starts = [part["piece"] for each in pieces for part in each["parts"]]
    assert len(set(starts)) == len(pieces)
    assert sum(part["frames"] for each in pieces for part in each["parts"]) == 1
    classes = [
        name
        for each in pieces
        for part in each["parts"]
        for name in part["models"]["m/1"]
    ]
    assert sorted(classes) == sorted(f"c{at}" for at in range(6_000))
    assert all(len(post.body) < 1024 * 1024 for post in monitor.posts())
    dispatcher.close(0)


def test_one_window_that_is_refused_spoils_no_other(state, own_sender, monitor):
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.monitors.learn(own_sender.destination.endpoint, is_monitor=True)
    ids = [f"{at:032x}" for at in range(3)]
    monitor.faults = lambda request: (
        Answer(400) if ids[1].encode() in request.body else None
    )
    for each in ids:
        dispatcher.outbox.add([window(own_sender, window_id=each)])
    dispatcher.register(own_sender)
    for _ in range(3):
        dispatcher.step()
    counts = dispatcher.counts()
    assert (counts.delivered, counts.dead, counts.pending) == (2, 1, 0)
    dispatcher.close(0)


def test_an_endpoint_that_is_no_monitor_any_more_gets_reports(
    state, own_sender, monitor
):
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.monitors.learn(own_sender.destination.endpoint, is_monitor=True)
    monitor.is_monitor = False
    monitor.faults = lambda request: (
        Answer(404) if request.path.endswith("/windows") else None
    )
    for at in range(3):
        dispatcher.outbox.add([window(own_sender, window_id=f"{at:032x}")])
    dispatcher.register(own_sender)
    for _ in range(3):
        dispatcher.step()
    paths = [post.path for post in monitor.accepted()]
    assert paths == ["/spaceship/inference-stats"] * 3
    assert dispatcher.counts().delivered == 3
    assert not own_sender.wants_statistics(dispatcher.monitors)
    dispatcher.close(0)


def test_windows_wait_while_the_monitor_is_down(state, own_sender, monitor, clock):
    dispatcher = Dispatcher(state, clock=clock, worker=False)
    dispatcher.monitors.learn(own_sender.destination.endpoint, is_monitor=True)
    monitor.failures = [Answer(503)]
    for at in range(3):
        dispatcher.outbox.add([window(own_sender, window_id=f"{at:032x}")])
    dispatcher.register(own_sender)
    dispatcher.step()
    assert dispatcher.counts().pending == 3
    for _ in range(3):
        clock.advance(60.0)
        dispatcher.step()
    first, second = monitor.posts()
    assert [each["window"] for each in windows_in(first)] == [
        each["window"] for each in windows_in(second)
    ]
    assert dispatcher.counts().delivered == 3
    dispatcher.close(0)


def test_the_same_of_a_subclass_that_asks_for_the_workspace_itself(
    api_key, cache, api, stepped
):
    """It wants its own operation called, and is asked for nothing else."""
    from peakhold.roboflow import RoboflowClient, Settings

    class Client(RoboflowClient):
        def get_roboflow_workspace(self, api_key):
            return "elsewhere"

    client = Client(Settings(api_base_url=api.url, system_info=False))
    sender = Sender(client, api_key, cache, injected=False)
    stepped.deliver(window(sender), sender)
    stepped.step()
    (post,) = api.posts()
    assert post.path == "/elsewhere/inference-stats"
    client.close()


def test_what_is_written_for_a_monitor_holds_no_key(
    state, own_sender, monitor, api_key
):
    dispatcher = Dispatcher(state)
    dispatcher.deliver(window(own_sender), own_sender)
    assert dispatcher.flush(5)
    dispatcher.close(5)
    (post,) = monitor.posts()
    assert api_key.encode() not in post.body
    for path in state.path.rglob("*"):
        if path.is_file():
            assert api_key.encode() not in path.read_bytes()
    assert json.loads((state.path / "endpoints.json").read_bytes())
    assert (state.path / "endpoints.json").stat().st_size < 200


def test_windows_that_were_merged_have_one_part_and_fit_in_a_request(own_sender):
    """Else what is merged for want of room could be too large for any request."""
    records = [window(own_sender, window_id=f"{at:032x}") for at in range(300)]
    single = records[0].window_body
    old, (merged,) = merge_reports(records)
    assert len(old) == 300
    (part,) = json.loads(merged.window_body)["parts"]
    assert part["frames"] == part["models"]["m/1"]["c0"]["detections"] == 300
    ids = {json.loads(each.window_body)["parts"][0]["id"] for each in records}
    assert part["id"] not in ids
    assert len(merged.window_body) < len(single) + 100


@pytest.mark.parametrize("status", [400, 405, 422])
def test_an_endpoint_that_refuses_windows_is_asked_again_what_it_is(
    state, own_sender, monitor, status
):
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.monitors.learn(own_sender.destination.endpoint, is_monitor=True)
    monitor.is_monitor = False
    monitor.faults = lambda request: (
        Answer(status) if request.path.endswith("/windows") else None
    )
    for at in range(3):
        dispatcher.outbox.add([window(own_sender, window_id=f"{at:032x}")])
    dispatcher.register(own_sender)
    for _ in range(3):
        dispatcher.step()
    assert dispatcher.counts().delivered == 3
    assert dispatcher.counts().dead == 0
    dispatcher.close(0)
