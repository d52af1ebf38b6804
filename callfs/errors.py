"""
The errors a caller of CallFS can meet, each with its stable code.

A code is part of the contract with clients; its HTTP status is in one table in ``callfs.web.errors``.
A message helps the caller and never shows internals: no path on disk, no SQL, no secret.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CallFSError(Exception):
    """
    Base of all errors that reach a client.

    :param message: one sentence for the caller: what is wrong and, where it helps, what to do.
    :param details: further JSON fields of the error body (for example ``existing_path``).
    """

    code: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InternalError(CallFSError):
    """A fault of the daemon; the cause is in its log under the request's id."""

    code = "INTERNAL_ERROR"


class BadRequest(CallFSError):
    """The request can't be understood or used as it is."""

    code = "BAD_REQUEST"


class InvalidPath(BadRequest):
    """The path is refused by the rules of ``callfs.paths``."""

    code = "INVALID_PATH"


class ChecksumMismatch(BadRequest):
    """The body's digest isn't the one that the client announced."""

    code = "CHECKSUM_MISMATCH"


class NotAFile(BadRequest):
    """A directory where the operation needs a file."""

    code = "NOT_A_FILE"


class NotADirectory(BadRequest):
    """A file where the operation needs a directory."""

    code = "NOT_A_DIRECTORY"


class AuthenticationFailed(CallFSError):
    """No credentials, or none that are known."""

    code = "AUTHENTICATION_FAILED"


class PermissionDenied(CallFSError):
    """The principal is known and may not do this."""

    code = "PERMISSION_DENIED"


class NotFound(CallFSError):
    """No such route."""

    code = "NOT_FOUND"


class FileNotFound(CallFSError):
    """Nothing at this path."""

    code = "FILE_NOT_FOUND"


class LinkNotFound(CallFSError):
    """No such link: unknown, forged, purged, or its file is gone."""

    code = "LINK_NOT_FOUND"


class ShardNotFound(CallFSError):
    """No such shard."""

    code = "SHARD_NOT_FOUND"


class MethodNotAllowed(CallFSError):
    """
    The route doesn't know this method.

    :param allowed: the methods that it knows, for the ``Allow`` header.
    """

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(CallFSError):
    """The client was waited for longer than ``server.read_timeout``."""

    code = "REQUEST_TIMEOUT"


class PayloadTooLarge(CallFSError):
    """The body is over its limit."""

    code = "PAYLOAD_TOO_LARGE"


class UriTooLong(CallFSError):
    """The request target is over its limit."""

    code = "URI_TOO_LONG"


class HeadersTooLarge(CallFSError):
    """The headers are over their limit, in size or number."""

    code = "HEADERS_TOO_LARGE"


class Conflict(CallFSError):
    """The state of the tree, or a simultaneous change, forbids this."""

    code = "CONFLICT"


class ContentMoved(Conflict):
    """
    The bytes of the file are in another place than the new ones: those have to follow it there.

    Between a metadata store and the engine, which follows: no client meets it. It has a code of its own so that it
    stays what it is on its way between nodes.
    """

    code = "CONTENT_MOVED"


class FileAlreadyExists(Conflict):
    """The path is taken."""

    code = "FILE_ALREADY_EXISTS"


class DirectoryNotEmpty(Conflict):
    """The directory has children."""

    code = "DIRECTORY_NOT_EMPTY"


class ParentNotADirectory(Conflict):
    """A file stands where a parent directory would have to be."""

    code = "PARENT_NOT_A_DIRECTORY"


class LinkExpired(CallFSError):
    """The link's time is over."""

    code = "LINK_EXPIRED"


class LinkUsed(CallFSError):
    """The link has been used."""

    code = "LINK_USED"


class PreconditionFailed(CallFSError):
    """``If-Match`` or its relatives don't hold."""

    code = "PRECONDITION_FAILED"


class RangeNotSatisfiable(CallFSError):
    """
    No range of the request lies in the file.

    :param size: the file's size in bytes, for ``Content-Range: bytes */size``.
    """

    code = "RANGE_NOT_SATISFIABLE"

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class RetryableError(CallFSError):
    """
    The same request may succeed later.

    :param retry_after_seconds: what the ``Retry-After`` header says, rounded up to whole seconds.
    """

    def __init__(self, message: str, retry_after_seconds: float = 1.0, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after_seconds = retry_after_seconds


class ResourceLocked(RetryableError):
    """The lock wasn't got within ``server.file_op_timeout``."""

    code = "RESOURCE_LOCKED"


class RateLimited(RetryableError):
    """Too many requests from this client."""

    code = "RATE_LIMITED"


class MetadataUnavailable(RetryableError):
    """The metadata store doesn't answer; nothing was changed."""

    code = "METADATA_UNAVAILABLE"


class PeerUnavailable(RetryableError):
    """The node that holds the bytes doesn't answer, or the bytes can't be read just now."""

    code = "PEER_UNAVAILABLE"


class InsufficientShards(RetryableError):
    """Fewer shards than the file needs can be read just now."""

    code = "INSUFFICIENT_SHARDS"


class ServiceUnavailable(RetryableError):
    """The daemon is starting, stopping, or has too many connections."""

    code = "SERVICE_UNAVAILABLE"


class OutcomeUnknown(CallFSError):
    """The change may or may not have happened: look before repeating."""

    code = "OUTCOME_UNKNOWN"


class InsufficientStorage(CallFSError):
    """The disk is full, or would fall below ``server.min_free_bytes``."""

    code = "INSUFFICIENT_STORAGE"
