"""What both sinks share: their constructor, and the ways to hand work over."""

from __future__ import annotations

from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypedDict

from peakhold.blocks.cache import SHARED
from peakhold.delivery import Sender, current
from peakhold.delivery.settings import DeliverySettings
from peakhold.roboflow import RoboflowClient, Settings
from peakhold.roboflow.api_key import ApiKey, without_locals

if TYPE_CHECKING:
    from peakhold.delivery.cache import Cache
    from peakhold.delivery.host_tasks import HostSchedule
    from peakhold.roboflow.operations import PlatformClient

SINK_DISABLED = "Sink was disabled by workflow execution policy"
OFFLINE = (
    "OFFLINE_MODE is on: nothing was sent, the data waits in the outbox while there is "
    "room"
)
_NO_KEY = (
    "{} block cannot run without Roboflow API key. If you do not know how to get API "
    "key - visit https://docs.roboflow.com/api-reference/authentication"
    "#retrieve-an-api-key to learn how to retrieve one."
)

_default_client: RoboflowClient | None = None


class SinkResult(TypedDict):
    """What ``run`` returns."""

    error_status: bool
    message: str


def result(message: str, *, error_status: bool = False) -> SinkResult:
    """Return a fresh result."""
    return {"error_status": error_status, "message": message}


def missing_key(block: str) -> ValueError:
    """Return the error of a block that has no api key."""
    return ValueError(_NO_KEY.format(block))


def failure(what: str, error: BaseException, sender: Sender) -> SinkResult:
    """Return the result of a failed attempt; its text holds no api key."""
    return result(
        f"{what} Error type: {type(error)}. Details: {sender.describe(error)}",
        error_status=True,
    )


class Sink:
    """The constructor of both blocks, and who delivers for them."""

    @without_locals
    def __init__(
        self,
        cache: Cache | None = None,
        api_key: ApiKey | str | None = None,
        background_tasks: Any = None,
        thread_pool_executor: Any = None,
        disable_sinks: bool = False,
        platform_client: PlatformClient | None = None,
    ) -> None:
        """Make a block. Everything has a default, so that it works without a host.

        Args:
            cache: The host's cache; by default one in memory, shared by the process.
            api_key: The Roboflow api key; by default from ``ROBOFLOW_API_KEY`` or
                ``API_KEY``.
            background_tasks: The host's, with ``add_task``.
            thread_pool_executor: The host's, with ``submit``.
            disable_sinks: Whether ``run`` does nothing but say so; so does
                ``PEAKHOLD_DISABLED``.
            platform_client: Any object with the operations of a platform client; by
                default a ``RoboflowClient`` of the environment.

        Raises:
            TypeError: If the api key is no string.
            ValueError: If a variable of the environment cannot be used.
        """
        self._disabled = disable_sinks or DeliverySettings.from_environment().disabled
        self._schedule = _schedule_of(background_tasks, thread_pool_executor)
        self._sender: Sender | None = None
        if self._disabled:
            return
        current()  # complains about its environment here rather than in a stream
        self._sender = self._make_sender(
            SHARED if cache is None else cache, api_key, platform_client
        )

    def _make_sender(
        self,
        cache: Cache,
        api_key: ApiKey | str | None,
        platform_client: PlatformClient | None,
    ) -> Sender | None:
        """Return who sends for the block; None without an api key."""
        if api_key is not None and not isinstance(api_key, (ApiKey, str)):
            given = type(api_key).__name__
            raise TypeError(f"api_key must be a str or None, not of type {given}")
        if not api_key or platform_client is None:
            settings = Settings.from_environment()
            api_key = api_key or settings.api_key
        if not api_key:
            return None
        return Sender(
            _shared_client(settings) if platform_client is None else platform_client,
            api_key,
            cache,
            injected=platform_client is not None,
        )

    def __copy__(self) -> Sink:
        """Return a block that shares window, sender and whatever else this one has."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        for kind in type(self).__mro__:
            for name, slot in vars(kind).items():
                if isinstance(slot, MemberDescriptorType) and hasattr(self, name):
                    slot.__set__(copied, getattr(self, name))
        return copied

    def __deepcopy__(self, memo: object) -> Sink:
        """Return what ``copy`` returns: windows and connections are not copied."""
        return self.__copy__()

    def __reduce__(self) -> str:
        """Refuse to be pickled: windows and the api key stay in this process."""
        message = (
            f"a {type(self).__name__} belongs to its process and cannot be pickled: "
            "make the block in the process that uses it"
        )
        raise TypeError(message)

    @classmethod
    def get_init_parameters(cls) -> list[str]:
        """Return the constructor's parameters, for hosts that inject them by name."""
        return [
            "api_key",
            "cache",
            "background_tasks",
            "thread_pool_executor",
            "disable_sinks",
            "platform_client",
        ]


def _schedule_of(
    background_tasks: Any, thread_pool_executor: Any
) -> HostSchedule | None:
    """Return how to give the host a task; None if there is no host to take one."""
    if background_tasks:
        add_task: HostSchedule = background_tasks.add_task
        return add_task
    if thread_pool_executor:
        submit: HostSchedule = thread_pool_executor.submit
        return submit
    return None


def _shared_client(settings: Settings) -> RoboflowClient:
    """Return a client of these settings: one for all blocks, for its connections.

    A host may make blocks by the request.
    """
    global _default_client  # noqa: PLW0603 - shared is the point
    client = _default_client
    if client is None or client.settings != settings:
        # No lock that a fork could leave held: at worst two threads make one each.
        client = _default_client = RoboflowClient(settings)
    return client
