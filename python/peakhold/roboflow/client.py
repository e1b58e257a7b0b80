"""The client of the Roboflow API: what the two sinks need of it."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from peakhold._peakhold import __version__
from peakhold.roboflow.api_key import ApiKey, without_locals
from peakhold.roboflow.errors import (
    MalformedResponseError,
    OfflineError,
    RoboflowError,
)
from peakhold.roboflow.settings import Settings
from peakhold.roboflow.system_info import start_gathering

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peakhold.roboflow.transport import Answer

# What the hosts leave unquoted when they wrap a URL for a gateway.
_GATEWAY_SAFE = "~()*!'"

_SERVER_VERSION = f"peakhold-{__version__}"

WINDOWS_VERSION = 1
"""Version of the windows that a monitor takes."""

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


class RoboflowClient:
    """Sends reports and metadata to the Roboflow API.

    One client serves any number of threads and api keys; connections are kept alive
    between requests and made anew in a forked child. Requests are not retried: that is
    up to the caller, who gets one exception class per cause (see
    ``peakhold.roboflow.errors``).

    The answer to a request has to arrive within ``settings.read_timeout``, all of it.
    Resolving the name of the host is up to the operating system and has no time-out.

    The sinks call the operations that send bodies. A subclass that overrides
    ``send_inference_results_to_model_monitoring`` or ``add_custom_metadata`` has those
    called instead, unless it sets ``sends_bodies`` itself.
    """

    sends_bodies: ClassVar[bool] = True

    def __init__(self, settings: Settings | None = None) -> None:
        """Prepare the client; no request is made.

        Args:
            settings: How to reach the API; None reads them from the environment.

        Raises:
            ValueError: If a variable of the environment cannot be used.
        """
        # Imported here: requests must not load with `import peakhold`, and must not
        # hold up the first frame that sends.
        from peakhold.roboflow.transport import Transport

        self.settings = Settings.from_environment() if settings is None else settings
        self._transport = Transport(self.settings, _SERVER_VERSION)
        start_gathering(identifying=self.settings.system_info)

    @property
    def endpoint(self) -> str:
        """Address of the API, without a trailing slash."""
        return self.settings.api_base_url

    def __repr__(self) -> str:
        """Name the endpoint, which holds no secret."""
        return f"{type(self).__name__}(endpoint={self.endpoint!r})"

    def close(self) -> None:
        """Close idle connections. The client stays usable and opens new ones."""
        self._transport.close()

    # -- what the API does ---------------------------------------------------------

    @without_locals
    def get_roboflow_workspace(self, api_key: str) -> str:
        """Look up the workspace an api key belongs to.

        Args:
            api_key: The key.

        Raises:
            MalformedResponseError: If the answer does not name a workspace.
            RoboflowError: One class per other cause.
        """
        return self.look_up(api_key)[0]

    @without_locals
    def look_up(self, api_key: str) -> tuple[str, bool]:
        """Look up the workspace of an api key, and what the endpoint is.

        Args:
            api_key: The key.

        Returns:
            The workspace, and whether the endpoint is a peakhold monitor that takes
            windows.

        Raises:
            MalformedResponseError: If the answer does not name a workspace.
            RoboflowError: One class per other cause.
        """
        answer = self._exchange("GET", "/", "&nocache=true", api_key)
        if answer.cut is not None:
            raise answer.cut
        workspace = _workspace_in(answer.body)
        if workspace is None:
            message = (
                f"{self.endpoint} did not name a workspace for the api key. Check that "
                "API_BASE_URL is the address of the Roboflow API"
            )
            raise MalformedResponseError(message, status=answer.status)
        return workspace, _takes_windows(answer.body)

    @without_locals
    def send_inference_results_to_model_monitoring(
        self, api_key: str, workspace_id: str, inference_data: dict[str, Any]
    ) -> None:
        """Send one report to Model Monitoring.

        Args:
            api_key: The key.
            workspace_id: The workspace to report to.
            inference_data: The report; NaN and infinity are not JSON.

        Raises:
            ValueError: If the report cannot be written as JSON.
            TypeError: If it holds something else than JSON knows.
            RoboflowError: One class per cause.
        """
        body = json.dumps(inference_data, allow_nan=False).encode()
        self.send_report_body(api_key, workspace_id, body, uuid.uuid4().hex)

    @without_locals
    def add_custom_metadata(
        self,
        api_key: str,
        workspace_id: str,
        inference_ids: Iterable[str],
        field_name: str,
        field_value: str,
    ) -> None:
        """Attach one field to inferences.

        Args:
            api_key: The key.
            workspace_id: The workspace of the inferences.
            inference_ids: Their ids.
            field_name: Name of the field.
            field_value: Its value.

        Raises:
            RoboflowError: One class per cause.
        """
        entry = {
            "inference_ids": list(inference_ids),
            "field_name": field_name,
            "field_value": field_value,
        }
        body = json.dumps({"data": [entry]}, allow_nan=False).encode()
        self.send_metadata_body(api_key, workspace_id, body, uuid.uuid4().hex)

    @without_locals
    def send_report_body(
        self, api_key: str, workspace_id: str, body: bytes, idempotency_key: str
    ) -> None:
        """Send an encoded report, byte for byte.

        Args:
            api_key: The key.
            workspace_id: The workspace to report to.
            body: JSON of one report.
            idempotency_key: The same for every attempt to send this body, so that the
                receiver can tell a repetition.

        Raises:
            ValueError: If an argument cannot be part of a request.
            RoboflowError: One class per cause.
        """
        path = f"{_workspace_path(workspace_id)}/inference-stats"
        self._post(path, "", api_key, body, idempotency_key)

    @without_locals
    def send_windows_body(
        self, api_key: str, workspace_id: str, body: bytes, idempotency_key: str
    ) -> None:
        """Send encoded windows to a peakhold monitor, byte for byte.

        Args:
            api_key: The key.
            workspace_id: The workspace to report to.
            body: JSON of one or more windows, see ``docs/monitor.md``.
            idempotency_key: As in ``send_report_body``.

        Raises:
            ValueError: If an argument cannot be part of a request.
            RoboflowError: One class per cause.
        """
        path = f"{_workspace_path(workspace_id)}/windows"
        self._post(path, "", api_key, body, idempotency_key)

    @without_locals
    def send_metadata_body(
        self, api_key: str, workspace_id: str, body: bytes, idempotency_key: str
    ) -> None:
        """Send encoded metadata, one or more entries, byte for byte.

        Args:
            api_key: The key.
            workspace_id: The workspace of the inferences.
            body: JSON of ``{"data": [entry, ...]}``, an entry having ``inference_ids``,
                ``field_name`` and ``field_value``.
            idempotency_key: As in ``send_report_body``.

        Raises:
            ValueError: If an argument cannot be part of a request.
            RoboflowError: One class per cause.
        """
        path = f"{_workspace_path(workspace_id)}/inference-stats/metadata"
        self._post(path, "&nocache=true", api_key, body, idempotency_key)

    # -- what a report tells about its sender --------------------------------------

    def get_device_id(self) -> str | None:
        """Return ``DEVICE_ID``, None if it is not set."""
        return self.settings.device_id

    def get_server_version(self) -> str:
        """Return name and version of this package, as ``peakhold-1.2.3``."""
        return _SERVER_VERSION

    def get_system_info(self) -> dict[str, str]:
        """Return the eight facts about the machine that belong into a report.

        Waits until they are gathered, but no longer than two seconds after the client
        was constructed; what is not known by then, or not wanted
        (``PEAKHOLD_SYSTEM_INFO=off``), is ``""``, and may be known at the next call. If
        no thread could be started then, the caller gathers them.
        """
        return start_gathering(identifying=self.settings.system_info).facts()

    # -- how requests are made up --------------------------------------------------

    def build_api_headers(
        self, explicit_headers: Mapping[str, str] | None = None
    ) -> dict[str, str] | None:
        """Merge headers with those of ``ROBOFLOW_API_EXTRA_HEADERS``.

        Args:
            explicit_headers: These win, whatever the case of their names.

        Returns:
            All of them, or None if there are none.
        """
        explicit = dict(explicit_headers or {})
        taken = {name.lower() for name in explicit}
        extra = self.settings.extra_headers.items()
        merged = {name: value for name, value in extra if name.lower() not in taken}
        merged.update(explicit)
        return merged or None

    def wrap_url(self, url: str) -> str:
        """Return the URL as it is requested: through ``SECURE_GATEWAY`` if set."""
        if self.settings.secure_gateway is None:
            return url
        quoted = quote(url, safe=_GATEWAY_SAFE)
        return f"{self.settings.secure_gateway}/proxy?url={quoted}"

    def _post(
        self, path: str, query: str, api_key: str, body: bytes, idempotency_key: str
    ) -> None:
        if not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            message = "idempotency_key must be 1 to 255 visible ASCII characters"
            raise ValueError(message)
        # A success is known by its status. That the rest of the answer got lost is no
        # reason to send the report again.
        self._exchange(
            "POST",
            path,
            query,
            api_key,
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": idempotency_key,
            },
            body=body,
        )

    def _exchange(
        self,
        method: str,
        path: str,
        query: str,
        api_key: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Make a request and return the answer if it is a success."""
        api_key = ApiKey.of(api_key).reveal()  # of `Settings`, too
        if not api_key:
            message = "api_key must not be empty; set ROBOFLOW_API_KEY"
            raise ValueError(message)
        if self.settings.offline:
            message = (
                "Nothing was sent: OFFLINE_MODE is on. Unset it (or set it to False) "
                "to let peakhold use the network"
            )
            raise OfflineError(message)
        outcome = self._transport.exchange(
            method,
            self.wrap_url(_with_key(f"{self.endpoint}{path}", api_key) + query),
            api_key=api_key,
            headers=self.build_api_headers(headers),
            body=body,
        )
        if isinstance(outcome, RoboflowError):
            raise outcome
        return outcome


def _with_key(address: str, api_key: str) -> str:
    # A lone surrogate cannot be sent; "replace" lets the API refuse such a key, where
    # the encoding error would show it.
    return f"{address}?api_key={quote(api_key, safe='', errors='replace')}"


def _workspace_path(workspace_id: str) -> str:
    if workspace_id in {"", ".", ".."}:
        message = "workspace_id must be the name of a workspace"
        raise ValueError(message)
    return f"/{quote(workspace_id, safe='')}"


def _workspace_in(body: bytes) -> str | None:
    """Return the workspace an answer names, None if it cannot be one."""
    try:
        workspace = json.loads(body)["workspace"]
        return workspace if _workspace_path(workspace) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _takes_windows(body: bytes) -> bool:
    """Whether the answer to a lookup says that this is a peakhold monitor."""
    said = json.loads(body).get("peakhold_monitor")
    version = said.get("windows") if isinstance(said, dict) else None
    return version == WINDOWS_VERSION and version is not True
