"""
What an ``OSError`` of the local disk means to a caller; the cause goes to the log, never to a client.
"""

from __future__ import annotations

import errno

from twisted.logger import Logger

from callfs.backends.space import no_room
from callfs.errors import CallFSError, InternalError, PeerUnavailable

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_log = Logger()


def write_fault(error: OSError, operation: str, blob_id: str) -> CallFSError:
    """The error for a failed write: ``InsufficientStorage`` for a full disk or quota, else ``InternalError``."""
    _report(error, operation, blob_id)
    if error.errno in _FULL:
        return no_room()
    return InternalError("The content could not be stored.")


def read_fault(error: OSError, operation: str, blob_id: str) -> CallFSError:
    """The error for bytes that can't be read just now."""
    _report(error, operation, blob_id)
    return PeerUnavailable("The content can't be read just now.")


def _report(error: OSError, operation: str, blob_id: str) -> None:
    _log.error(
        "{operation} of the blob {blob_id} failed: {error}",
        event="disk_fault",
        operation=operation,
        blob_id=blob_id,
        error=str(error),
    )
