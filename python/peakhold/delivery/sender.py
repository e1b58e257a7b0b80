"""Model Monitoring and custom metadata: the api key's only home, and what uses it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from peakhold.delivery.exporter import DELIVERED, Exporter, Outcome
from peakhold.delivery.policy import (
    NOT_FOUND,
    Verdict,
    status_of,
    verdict,
    verdict_of_others,
)
from peakhold.delivery.workspace import Workspace, is_workspace
from peakhold.errors import PeakholdError
from peakhold.interpreter import give_way
from peakhold.notices import Notices
from peakhold.records import DestinationKey
from peakhold.records.content import REPORT_BODY_LIMIT
from peakhold.roboflow.api_key import ApiKey, without_locals
from peakhold.roboflow.client import WINDOWS_VERSION, RoboflowClient
from peakhold.roboflow.operations import sends_bodies
from peakhold.roboflow.redaction import redact
from peakhold.roboflow.settings import Settings
from peakhold.texts import printable, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from peakhold.delivery.cache import Cache
    from peakhold.delivery.monitors import Monitors
    from peakhold.records import Kind, Record
    from peakhold.roboflow.operations import PlatformClient


_UNREADABLE = {400, 422}
MOST_WINDOWS = 50
"""Windows that go to a monitor in one request, if they fit in."""


class EmptyWorkspaceError(PeakholdError):
    """The client answered the workspace lookup with something that is no workspace."""


class Sender(Exporter):
    """One client with one api key; makes the requests of a destination.

    Injected clients of one type and endpoint are one destination: a host may make one
    by the request, and the one lent last sends what the others left.

    Attributes:
        client: The client of the block that lent it.
        cache: The cache of that block.
        destination: Where everything it sends goes.
        sends_bodies: Whether the client gets bodies as they are, several metadata
            entries in one, rather than calls of its named operations.
        offline: Whether the client was told to keep off the network.
    """

    def __init__(
        self,
        client: PlatformClient,
        api_key: ApiKey | str,
        cache: Cache,
        *,
        injected: bool,
    ) -> None:
        """Bind a client to an api key; ``injected`` ones never share with the own."""
        kind = f"{type(client).__module__}.{type(client).__qualname__}"
        endpoint = getattr(client, "endpoint", None)
        self._api_key = api_key = ApiKey.of(api_key)
        self.client = client
        self.cache = cache
        self.workspace = Workspace(self.workspace_cache_key, Notices())
        self.offline = getattr(self.settings, "offline", False) is True
        self.sends_bodies = sends_bodies(client)
        self._monitors: Monitors | None = None
        # Who overrides the lookup wants it called.
        own = getattr(type(client), "get_roboflow_workspace", None)
        mine = own is RoboflowClient.get_roboflow_workspace
        self._looks_up = self.sends_bodies and mine
        self.one_entry = not self.sends_bodies
        how = "by body" if self.sends_bodies else "by call"
        self.destination = DestinationKey(
            endpoint=text_of(endpoint) if isinstance(endpoint, str) else kind,
            api_key_fingerprint=hashlib.sha256(_bytes(api_key)).hexdigest()[:16],
            client=f"{kind} {how}" if injected else None,
        )

    def __repr__(self) -> str:
        """Show where it sends to, and no key."""
        return f"Sender({getattr(self, 'destination', None)})"

    def __copy__(self) -> Sender:
        """Return the same object."""
        return self

    def __deepcopy__(self, memo: object) -> Sender:
        """Return the same object."""
        return self

    def __reduce__(self) -> str:
        """Refuse to be pickled: the api key must not leave this process's memory."""
        message = (
            "a Sender holds an api key and cannot be pickled: make the block in the "
            "process that uses it"
        )
        raise TypeError(message)

    @property
    def settings(self) -> Settings | None:
        """How the package's own client reaches the API; None of another client."""
        settings = getattr(self.client, "settings", None)
        return settings if isinstance(settings, Settings) else None

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
            **(self.client.get_system_info() or {}),
        }

    @property
    def is_monitor(self) -> bool | None:
        """Whether it sends to a peakhold monitor; None while that is not known.

        A host's client always sends reports, whatever it sends to.
        """
        return self._monitors is not None and self.sends_windows(self._monitors)

    def sends_windows(self, monitors: Monitors) -> bool | None:
        """Whether it sends windows, by what is known; None while nothing is."""
        return self._looks_up and monitors.get(self.destination.endpoint)

    @property
    def feed_metadata(self) -> bool:
        """Whether feeds are to come as custom metadata: windows say them themselves."""
        return not self.is_monitor

    def wants_statistics(self, monitors: Monitors) -> bool:
        """Whether windows are to have statistics: unless it is known that none need."""
        return self.sends_windows(monitors) is not False

    def most_of(self, kind: Kind) -> int:
        """Return how many records of a kind it takes in one call of ``export``."""
        return MOST_WINDOWS if kind == "report" and self.is_monitor else 1

    def begin(
        self, notices: Notices, monitors: Monitors, previous: Exporter | None
    ) -> bool:
        """Take over with what is known of the workspace."""
        self._monitors = monitors
        if isinstance(previous, Sender):
            self.workspace = previous.workspace
            return self.settings != previous.settings
        self.workspace = Workspace(self.workspace_cache_key, notices)
        return False

    def export(self, records: Sequence[Record]) -> list[Outcome]:
        """Make the request of each record; of windows for a monitor, one for several.

        Whether the endpoint is a monitor is asked by looking up the workspace, though
        the host's cache may know that.
        """
        if records[0].kind == "report":
            if self.is_monitor is None:
                try:
                    self.workspace.refresh(self.cache, self.look_up_workspace)
                except Exception as error:  # noqa: BLE001 - a client may raise anything
                    return [self.failed(error, verdict_of_others(error))] * len(records)
            if self.is_monitor:
                return self._export_windows(records)
        return [self._export(record) for record in records]

    def _export(self, record: Record) -> Outcome:
        return self._attempt(partial(self.send, record), partial(self._refused, record))

    def _export_windows(self, records: Sequence[Record]) -> list[Outcome]:
        """Send windows in as few requests as fit; to what is no monitor, reports."""
        batches = deque(_batches(records))
        outcomes: list[Outcome] = []
        asked = False
        while batches:
            batch = batches.popleft()
            outcome = self._attempt(
                partial(self.send_windows, batch), partial(self._refused, batch[0][0])
            )
            if outcome.verdict is Verdict.REFUSED and not asked:
                asked = True  # a monitor of another version, or something else, refuses
                with suppress(Exception):  # what is asked in vain is known as before
                    self.workspace.refresh(self.cache, self.look_up_workspace)
            if not self.is_monitor:  # any more, as the last lookup says
                break
            if outcome.verdict in (Verdict.RETRY, Verdict.PARK):
                return [*outcomes, *[outcome] * (len(records) - len(outcomes))]
            if outcome.verdict is Verdict.DELIVERED or len(batch) == 1:
                outcomes += [outcome] * len(batch)
            else:  # one that is refused spoils none
                batches.extendleft([each] for each in reversed(batch))
        return [*outcomes, *map(self._export, records[len(outcomes) :])]

    def _attempt(
        self, send: Callable[[str], None], refused: Callable[[Exception], Outcome]
    ) -> Outcome:
        """Send to the workspace of the api key.

        Args:
            send: Makes the request to a workspace.
            refused: Says what it means that this failed.
        """
        outcome = DELIVERED
        for look_up in (self.workspace.get, self.workspace.refresh):
            try:
                name = look_up(self.cache, self.look_up_workspace)
            except Exception as error:  # noqa: BLE001 - a client may raise anything
                return self.failed(error, verdict_of_others(error))
            give_way()
            try:
                send(name)
            except Exception as error:  # noqa: BLE001 - likewise
                outcome = refused(error)
                if status_of(error) != NOT_FOUND:
                    break
                # Else it may have been renamed since it was looked up.
            else:
                return DELIVERED
        return outcome

    def _refused(self, record: Record, error: Exception) -> Outcome:
        """Return what a failed request means; records in its place, if that helps."""
        judged = verdict(error)
        parts: Sequence[Record] = ()
        if judged is Verdict.TOO_LARGE:
            parts = record.halves()
        elif record.kind == "metadata" and status_of(error) in _UNREADABLE:
            # Entries of many frames share a request; one that is refused spoils none.
            parts = record.halves(whole_entries=True)
        return replace(self.failed(error, judged), parts=parts)

    @without_locals
    def look_up_workspace(self) -> str:
        """Ask the API for the workspace.

        Raises:
            EmptyWorkspaceError: If the answer is empty or not a string.
        """
        if self._looks_up and self._monitors is not None:
            client: Any = self.client
            workspace, is_monitor = client.look_up(self._api_key.reveal())
            self._monitors.learn(self.destination.endpoint, is_monitor=is_monitor)
        else:
            workspace = self.client.get_roboflow_workspace(self._api_key.reveal())
        if not is_workspace(workspace):
            message = (
                "the workspace lookup answered without a workspace; "
                "check the api key and the platform client"
            )
            raise EmptyWorkspaceError(message)
        return text_of(workspace)

    @without_locals
    def send(self, record: Record, workspace: str) -> None:
        """Make the request of an encoded record.

        Raises:
            Exception: Whatever the client raises.
        """
        client: Any = self.client
        if self.sends_bodies:
            send = (
                client.send_report_body
                if record.kind == "report"
                else client.send_metadata_body
            )
            send(self._api_key.reveal(), workspace, record.body, record.id)
        elif record.kind == "report":
            client.send_inference_results_to_model_monitoring(
                self._api_key.reveal(), workspace, json.loads(record.body)
            )
        else:
            for entry in record.entries:  # one, see ``one_entry``
                client.add_custom_metadata(
                    api_key=self._api_key.reveal(),
                    workspace_id=workspace,
                    inference_ids=list(entry.inference_ids),
                    field_name=entry.field_name,
                    field_value=entry.field_value,
                )

    @without_locals
    def send_windows(
        self, windows: Sequence[tuple[Record, bytes]], workspace: str
    ) -> None:
        """Make one request of several windows, for a peakhold monitor.

        Around the body of each, which is the same in every attempt, stands what is not:
        the time of sending, and the window's age by this machine's clock.

        Args:
            windows: Their records and bodies.
            workspace: The monitor's.

        Raises:
            Exception: Whatever the client raises.
        """
        client: Any = self.client
        now = datetime.now(timezone.utc)
        members = [
            b'{"id":%s,"age":%.6f,"window":%s}'
            % (
                json.dumps(record.id).encode(),
                max(0.0, (now - record.created).total_seconds()),
                body,
            )
            for record, body in windows
        ]
        sent_at = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
        head = b'{"version":%d,"sent_at":"%s",' % (WINDOWS_VERSION, sent_at.encode())
        ids = "\n".join(record.id for record, _ in windows)
        client.send_windows_body(
            self._api_key.reveal(),
            workspace,
            head + b'"windows":[' + b",".join(members) + b"]}",
            hashlib.sha256(ids.encode()).hexdigest()[:32],
        )

    @without_locals
    def sign(self, data: bytes) -> bytes:
        """Return an HMAC-SHA256 of some bytes under the api key."""
        return hmac.digest(_bytes(self._api_key), data, "sha256")

    @without_locals
    def describe(self, error: BaseException) -> str:
        """Return the text of an exception, printable and without the api key."""
        try:
            text = str(error)
        except Exception:  # noqa: BLE001 - of an injected client
            return "(its text cannot be read)"
        return printable(redact(text, self._api_key))


def _batches(records: Sequence[Record]) -> Iterator[list[tuple[Record, bytes]]]:
    """Yield windows with their bodies, as many at once as fit in a request."""
    batch: list[tuple[Record, bytes]] = []
    size = 0
    for record in records:
        size += len(record.window_body)
        if batch and size > REPORT_BODY_LIMIT:
            yield batch
            batch, size = [], len(record.window_body)
        batch.append((record, record.window_body))
    yield batch


def _bytes(api_key: ApiKey) -> bytes:
    return api_key.reveal().encode("utf-8", "surrogatepass")
