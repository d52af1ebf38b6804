"""Why a peer couldn't be reached, in words that an operator can use."""

from __future__ import annotations

import msgspec
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.python.failure import Failure


class Fault(msgspec.Struct, frozen=True):
    """
    :param reason: what metrics call it: ``connection``, ``timeout``, ``tls`` or ``cut``.
    :param text: for the operator.
    """

    reason: str
    text: str


_UNVERIFIED = "certificate verify failed"


def explain(error: BaseException) -> Fault:
    """The reason behind an error of Twisted's HTTP client, which wraps it in others."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, VerificationError):
            return Fault("tls", "its TLS certificate is for another name than the one in its endpoint")
        if isinstance(cause, SSL.Error):
            return Fault("tls", _tls_text(cause))
    cause = causes[-1]
    if isinstance(cause, ConnectionRefusedError):
        return Fault("connection", "the connection was refused")
    if isinstance(cause, TimeoutError):
        return Fault("timeout", "the connection took too long")
    if isinstance(cause, DNSLookupError):
        return Fault("connection", "its name can't be resolved")
    if isinstance(cause, ConnectionDone | ConnectionLost):
        return Fault("cut", "the connection ended")
    if isinstance(cause, ConnectError | ConnectBindError):
        return Fault("connection", str(cause.osError or "no connection"))
    return Fault("connection", f"{type(cause).__name__}: {str(cause)[:200]}")


def was_cancelled(error: BaseException) -> bool:
    """Whether it is what became of a request that its caller cancelled."""
    return any(isinstance(cause, CancelledError | ConnectingCancelledError) for cause in _causes(error))


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    for reason in getattr(error, "reasons", None) or ():
        if isinstance(reason, Failure) and reason.value is not None:
            found += _causes(reason.value)
    return found


def _tls_text(error: SSL.Error) -> str:
    details = error.args[0] if error.args and isinstance(error.args[0], list) else []
    text = "; ".join(str(entry[-1]) for entry in details if entry)
    if _UNVERIFIED in text:
        return "its TLS certificate isn't signed by an authority that is trusted here"
    return f"TLS failed ({text[:200]})" if text else "TLS failed"
