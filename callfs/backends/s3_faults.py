"""
What a fault of S3 means to a caller; what to do about it goes to the log, for the operator, never to a client.
"""

from __future__ import annotations

from twisted.logger import Logger

from callfs.backends.s3_errors import Cause, S3Fault, S3Refusal, advice
from callfs.backends.s3_settings import S3Settings
from callfs.backends.space import no_room
from callfs.errors import CallFSError, InternalError, PeerUnavailable

_log = Logger()


def write_fault(fault: S3Fault, settings: S3Settings, operation: str, blob_id: str) -> CallFSError:
    """
    The error for a failed change: ``InsufficientStorage`` where there is no room, ``PeerUnavailable`` where the
    same may succeed later, else ``InternalError``.
    """
    _report(fault, settings, operation, blob_id)
    if isinstance(fault, S3Refusal) and fault.cause is Cause.FULL:
        return no_room()
    if fault.passing:
        return PeerUnavailable("The storage for this content doesn't answer just now.")
    return InternalError("The content could not be stored.")


def read_fault(fault: S3Fault, settings: S3Settings, operation: str, blob_id: str) -> CallFSError:
    """The error for bytes that can't be read just now."""
    _report(fault, settings, operation, blob_id)
    return PeerUnavailable("The content can't be read just now.")


def _report(fault: S3Fault, settings: S3Settings, operation: str, blob_id: str) -> None:
    _log.error(
        "{operation} of the blob {blob_id} failed: {advice}",
        event="s3_fault",
        operation=operation,
        blob_id=blob_id,
        code=fault.code if isinstance(fault, S3Refusal) else type(fault).__name__,
        advice=advice(fault, settings),
    )
