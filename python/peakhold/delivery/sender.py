"""The api key's only home, and the calls that use it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from peakhold.delivery.encode import metadata_entries
from peakhold.delivery.record import Destination
from peakhold.errors import PeakholdError
from peakhold.roboflow.redaction import redact

if TYPE_CHECKING:
    from peakhold.delivery.notices import Notices
    from peakhold.delivery.record import Record

WORKSPACE_TTL = 900
"""Seconds for which the workspace of an api key is remembered."""

_LOOKUP_PATIENCE = 1.0


class PlatformClient(Protocol):
    """What a block needs of a client; any object with these operations will do."""

    def get_roboflow_workspace(self, api_key: str) -> str:
        """Return the workspace of an api key."""

    def send_inference_results_to_model_monitoring(
        self, api_key: str, workspace_id: str, inference_data: dict[str, Any]
    ) -> object:
        """Send one report."""

    def add_custom_metadata(
        self,
        api_key: str,
        workspace_id: str,
        inference_ids: list[str],
        field_name: str,
        field_value: str,
    ) -> object:
        """Send one metadata entry."""

    def get_device_id(self) -> str | None:
        """Return the device id of reports."""

    def get_server_version(self) -> str:
        """Return the server version of reports."""

    def get_system_info(self) -> dict[str, str]:
        """Return the system information of reports."""


class Cache(Protocol):
    """What a block needs of a host's cache."""

    def get(self, key: str) -> Any:
        """Return what is stored, or None."""

    def set(self, key: str, value: Any, expire: int | None = None) -> object:
        """Store a value, for ``expire`` seconds if given."""


class EmptyWorkspaceError(PeakholdError):
    """The client answered the workspace lookup with something that is no workspace."""


class PartlySentError(PeakholdError):
    """A client that takes one entry a call failed after some entries."""

    def __init__(self, sent: int, cause: Exception) -> None:
        """Keep the number of entries that went out, and why the next one did not."""
        super().__init__(f"{sent} entries were sent before one failed")
        self.sent = sent
        self.cause = cause


class Sender:
    """One client with one api key; makes the requests of a destination.

    Attributes:
        client: The client of the block that lent it.
        cache: The cache of that block.
        destination: Where everything it sends goes.
    """

    def __init__(
        self, client: PlatformClient, api_key: str, cache: Cache, *, injected: bool
    ) -> None:
        """Bind a client to an api key; ``injected`` clients are destinations apart."""
        kind = type(client)
        endpoint = getattr(client, "endpoint", None)
        self.client = client
        self.cache = cache
        self.destination = Destination(
            endpoint=endpoint
            if isinstance(endpoint, str)
            else f"{kind.__module__}.{kind.__qualname__}",
            api_key_fingerprint=hashlib.sha256(_bytes(api_key)).hexdigest()[:16],
            client=id(client) if injected else None,
        )
        self._api_key = api_key
        # Only the package's client sends a body as it is, with an idempotency key.
        self._sends_bodies = hasattr(client, "send_report_body")

    def __repr__(self) -> str:
        """Show where it sends to, and no key."""
        return f"Sender({self.destination})"

    def __reduce__(self) -> str:
        """Refuse to be pickled: the api key must not leave this process's memory."""
        message = "a Sender holds an api key and cannot be pickled"
        raise TypeError(message)

    @property
    def offline(self) -> bool:
        """Whether the client was told to keep off the network."""
        settings = getattr(self.client, "settings", None)
        return getattr(settings, "offline", False) is True

    @property
    def workspace_cache_key(self) -> str:
        """Key of the workspace in the host's cache."""
        digest = hashlib.md5(_bytes(self._api_key), usedforsecurity=False)
        return f"workflows:api_key_to_workspace:{digest.hexdigest()}"

    def facts(self) -> dict[str, object]:
        """Return what a report says about this device, beside its results."""
        return {
            "device_id": self.client.get_device_id(),
            "inference_server_version": self.client.get_server_version(),
            **self.client.get_system_info(),
        }

    def look_up_workspace(self) -> str:
        """Ask the API for the workspace.

        Raises:
            EmptyWorkspaceError: If the answer is empty or not a string.
        """
        workspace = self.client.get_roboflow_workspace(self._api_key)
        if not _is_workspace(workspace):
            message = (
                "the workspace lookup answered without a workspace; "
                "check the api key and the platform client"
            )
            raise EmptyWorkspaceError(message)
        return workspace

    def send(self, record: Record, workspace: str) -> None:
        """Make the request of an encoded record.

        Raises:
            PartlySentError: If some entries of a metadata record went out.
            Exception: Whatever the client raises.
        """
        client: Any = self.client
        body = record.body or b""
        if self._sends_bodies:
            send = (
                client.send_report_body
                if record.kind == "report"
                else client.send_metadata_body
            )
            send(self._api_key, workspace, body, record.id)
        elif record.kind == "report":
            client.send_inference_results_to_model_monitoring(
                self._api_key, workspace, json.loads(body)
            )
        else:
            self._send_entries(record, workspace)

    def _send_entries(self, record: Record, workspace: str) -> None:
        sent = 0
        try:
            for entry in metadata_entries(record):
                self.client.add_custom_metadata(
                    api_key=self._api_key,
                    workspace_id=workspace,
                    inference_ids=list(entry.inference_ids),
                    field_name=entry.field_name,
                    field_value=entry.field_value,
                )
                sent += 1
        except Exception as error:
            if not sent:
                raise
            raise PartlySentError(sent, error) from None

    def describe(self, error: BaseException) -> str:
        """Return the text of an exception without the api key."""
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - of an injected client
            return "(its text cannot be read)"
        return redact(text, self._api_key)


class Workspace:
    """The workspace of a destination, kept in the host's cache for 900 s."""

    def __init__(self, notices: Notices) -> None:
        """Start knowing nothing."""
        self._notices = notices
        self._lookup = threading.Lock()
        self._known: tuple[str, float] | None = None

    def get(self, sender: Sender) -> str:
        """Return the workspace, from the cache or by a lookup.

        Raises:
            Exception: Whatever the client raises.
        """
        if known := self._cached(sender):
            return known
        # Deliverers that need it at once share one lookup; behind a lookup that hangs
        # they do not queue up.
        alone = self._lookup.acquire(timeout=_LOOKUP_PATIENCE)
        try:
            return self._cached(sender) or self.refresh(sender)
        finally:
            if alone:
                self._lookup.release()

    def refresh(self, sender: Sender) -> str:
        """Look the workspace up, whatever the cache says, and remember it.

        Raises:
            Exception: Whatever the client raises.
        """
        workspace = sender.look_up_workspace()
        self._known = (workspace, time.monotonic() + WORKSPACE_TTL)
        try:
            store(sender.cache, sender.workspace_cache_key, workspace, WORKSPACE_TTL)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            self._trouble(f"{type(error).__name__} on writing the workspace")
        return workspace

    def _cached(self, sender: Sender) -> str | None:
        try:
            value = sender.cache.get(sender.workspace_cache_key)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            self._trouble(f"{type(error).__name__} on reading the workspace")
        else:
            if _is_workspace(value):
                return str(value)
            if value is None:
                return None
            self._trouble("the workspace there is not a string")
        # The cache is of no use, so this process's own memory of it is.
        if self._known and time.monotonic() < self._known[1]:
            return self._known[0]
        return None

    def _trouble(self, what: str) -> None:
        self._notices.warn("cache", "The cache is unusable, going on without: %s", what)


def store(cache: Cache, key: str, value: str, expire: int) -> None:
    """Store a value with an expiry, or without where the cache knows no expiry."""
    try:
        cache.set(key, value, expire=expire)
    except TypeError:
        cache.set(key, value)


def _is_workspace(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
