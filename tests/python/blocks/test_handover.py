"""Who delivers: every combination of fire_and_forget, background tasks and pool."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from stand_ins import StatusError, eventually

REPORTING = {
    "error_status": False,
    "message": "Reporting happens in the background task",
}
REGISTERING = {
    "error_status": False,
    "message": "Registration happens in the background task",
}


class BackgroundTasks:
    """A host's: keeps tasks until the response is out."""

    def __init__(self):
        self.tasks = []

    def add_task(self, task):
        self.tasks.append(task)


class Pool:
    """A pool that is busy for now."""

    def __init__(self):
        self.tasks = []

    def submit(self, task):
        self.tasks.append(task)


@pytest.fixture(params=["report", "metadata"])
def sink(request, aggregator, metadata_block, overdue, run):
    """Makes a block and a call of it that has something to send at once."""

    def make(**arguments):
        if request.param == "report":
            block = aggregator(**arguments)
            return lambda fire_and_forget: run(block, fire_and_forget=fire_and_forget)
        block = metadata_block(**arguments)
        return lambda fire_and_forget: block.run(
            fire_and_forget=fire_and_forget,
            field_name="f",
            field_value="v",
            predictions={"inference_id": "id"},
        )

    make.kind = request.param
    make.in_background = REPORTING if request.param == "report" else REGISTERING
    return make


def sends(client):
    names = {"send_inference_results_to_model_monitoring", "add_custom_metadata"}
    return [
        thread
        for (name, _, _), thread in zip(client.calls, client.threads, strict=True)
        if name in names
    ]


@pytest.mark.parametrize("with_pool", [False, True])
def test_fire_and_forget_with_background_tasks(sink, client, with_pool):
    background, pool = BackgroundTasks(), Pool()
    call = sink(
        platform_client=client,
        background_tasks=background,
        thread_pool_executor=pool if with_pool else None,
    )
    assert call(True) == sink.in_background
    assert (len(background.tasks), len(pool.tasks)) == (1, 0)
    assert sends(client) == []
    background.tasks[0]()
    assert sends(client) == [threading.current_thread()]


def test_fire_and_forget_with_a_pool(sink, client):
    with ThreadPoolExecutor(1, thread_name_prefix="host") as pool:
        call = sink(platform_client=client, thread_pool_executor=pool)
        assert call(True) == sink.in_background
        assert eventually(lambda: sends(client))
    assert sends(client)[0].name.startswith("host")


def test_fire_and_forget_with_neither(sink, client):
    call = sink(platform_client=client)
    assert call(True) == sink.in_background
    assert eventually(lambda: sends(client))
    assert sends(client)[0].name == "peakhold"


@pytest.mark.parametrize("with_background", [False, True])
@pytest.mark.parametrize("with_pool", [False, True])
def test_not_fire_and_forget_sends_on_the_caller_s_thread(
    sink, client, with_background, with_pool
):
    background, pool = BackgroundTasks(), Pool()
    call = sink(
        platform_client=client,
        background_tasks=background if with_background else None,
        thread_pool_executor=pool if with_pool else None,
    )
    answer = call(False)
    assert answer["error_status"] is False
    assert "success" in answer["message"]
    assert sends(client) == [threading.current_thread()]
    assert (background.tasks, pool.tasks) == ([], [])


def test_background_tasks_that_are_falsy_are_not_used(sink, client):
    class Falsy(BackgroundTasks):
        def __len__(self):
            return len(self.tasks)

    background = Falsy()
    call = sink(platform_client=client, background_tasks=background)
    assert call(True) == sink.in_background
    assert background.tasks == []
    assert eventually(lambda: sends(client))


def test_a_pool_that_was_shut_down(sink, client):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    call = sink(platform_client=client, thread_pool_executor=pool)
    assert call(True) == sink.in_background
    assert eventually(lambda: sends(client))


def test_a_task_that_never_runs(sink, client, dispatcher, monkeypatch):
    monkeypatch.setattr("peakhold.delivery.host_tasks.HOST_GRACE", 0.8)
    background = BackgroundTasks()
    call = sink(platform_client=client, background_tasks=background)
    assert call(True) == sink.in_background
    assert not eventually(lambda: sends(client), 0.15)
    assert eventually(lambda: sends(client))
    assert sends(client)[0].name == "peakhold"
    background.tasks[0]()
    assert len(sends(client)) == 1
    assert eventually(lambda: dispatcher.counts().pending == 0)


def test_a_failing_background_send_never_raises_and_is_retried(sink, client):
    client.failures = [StatusError(503)] * 2
    background = BackgroundTasks()
    call = sink(platform_client=client, background_tasks=background)
    assert call(True) == sink.in_background
    background.tasks[0]()
    assert eventually(lambda: len(sends(client)) == 3)


def test_frames_by_the_hundred_make_one_task(metadata_block, client):
    background = BackgroundTasks()
    block = metadata_block(platform_client=client, background_tasks=background)
    for index in range(300):
        block.run(
            fire_and_forget=True,
            field_name="f",
            field_value="v",
            predictions={"inference_id": f"id{index}"},
        )
    assert len(background.tasks) == 1
    background.tasks[0]()
    ((_, call),) = client.named("add_custom_metadata")
    assert len(call["inference_ids"]) == 300
