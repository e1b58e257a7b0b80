"""What can go wrong between peakhold and the Roboflow API: one class per cause.

Every message names what failed and what to do about it. None holds an api key, and
none keeps the exception of the HTTP library, whose text and request hold the URL with
the key in it.
"""

from __future__ import annotations

from peakhold.errors import PeakholdError


class RoboflowError(PeakholdError):
    """A call of the Roboflow API failed.

    Attributes:
        status: HTTP status of the answer; None when there was no answer.
        retry_after: Seconds the server asked to wait before the next attempt, from its
            ``Retry-After`` header in either form; None when it did not ask.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keep the facts a retry policy decides on beside the message."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class NotAuthorizedError(RoboflowError):
    """401: the api key is unknown or was revoked."""


class PaymentRequiredError(RoboflowError):
    """402: the workspace has no credit for this."""


class ForbiddenError(RoboflowError):
    """403: the api key is valid but may not do this."""


class NotFoundError(RoboflowError):
    """404: the workspace does not exist, or was renamed."""


class PausedError(RoboflowError):
    """423: usage of the workspace is paused."""


class RequestTimeoutError(RoboflowError):
    """No connection, or no whole answer, within the time-out."""


class ConnectionFailedError(RoboflowError):
    """No answer: name not resolved, connection refused, reset or cut off."""


class TlsFailedError(ConnectionFailedError):
    """The server's certificate or TLS version is unacceptable; waiting won't help."""


class MalformedResponseError(RoboflowError):
    """The answer was a success, but not one that can be read."""


class UnexpectedStatusError(RoboflowError):
    """Any other status that is not a success, redirects included."""


class OfflineError(RoboflowError):
    """OFFLINE_MODE is on: nothing was sent, the network was not touched."""
