"""
The port of bytes: immutable blobs by id.

A blob comes to be in three steps, *stage*, *write*, *commit*; before the commit nothing is visible to
:meth:`IBlobBackend.open`, after it the blob is durable and never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


class Hasher(Protocol):
    """What ``hashlib`` makes."""

    def update(self, data: bytes, /) -> None:
        """Take more of the content."""

    def digest(self) -> bytes:
        """The digest so far."""


class CommittedBlob(msgspec.Struct, frozen=True):
    """What a commit made durable."""

    size: int
    sha256: bytes


class BlobStat(msgspec.Struct, frozen=True):
    """
    A blob as the backend sees it.

    :param modified_at: an instant: when the bytes were written.
    """

    id: str
    size: int
    modified_at: int


class IStagedBlob(Interface):
    """
    A blob under way. One call at a time; after :meth:`commit` or :meth:`abort` it is spent.

    Whoever staged it calls one of the two, also after a failed write.
    """

    def write(data: bytes) -> Deferred[None]:
        """
        Append ``data``. The Deferred is the back-pressure: wait for it before the next write.

        :raises callfs.errors.InsufficientStorage: the disk is full or would fall below its reserve.
        """

    def commit() -> Deferred[CommittedBlob]:
        """
        Make the blob durable and visible: bytes and name are on stable storage when this fires.

        Not to be cancelled: shield it. On failure nothing is visible (a crash may leave an unnamed blob).
        """

    def abort() -> Deferred[None]:
        """Forget the blob; never fails. Does nothing when it was committed."""


class IBlobReader(Interface):
    """
    An open blob. It stays readable until :meth:`close`, whatever is deleted meanwhile.
    """

    size: int = Attribute("Bytes.")

    def read(offset: int, length: int) -> Deferred[bytes]:
        """
        The bytes from ``offset``; as many as ``length`` unless the blob ends before.

        Reads may run side by side. The Deferred may have fired already (page cache).

        :raises callfs.errors.PeerUnavailable: the bytes can't be read just now.
        """

    def fileno() -> int | None:
        """A file descriptor for ``sendfile``, valid until :meth:`close`; ``None`` where there is none."""

    def close() -> None:
        """Free what the reader holds. Closing twice does nothing; reads under way end first or fail."""


class HandedOver(msgspec.Struct, frozen=True):
    """
    What a reader hands over of where its bytes come from.

    :param first: bytes that are there already.
    :param descriptor: a TCP socket, non-blocking, from which those behind them come, exactly as they are in the
        blob. Nobody else reads from it. Valid until the reader's next call.
    :param timeout_seconds: how long it may be silent before it isn't worth waiting any more.
    """

    first: bytes
    descriptor: int
    timeout_seconds: float


class IHandingReader(IBlobReader):
    """A reader of bytes that come over a connection, which it can hand over to whoever passes them on."""

    def hand_over(offset: int, length: int) -> HandedOver | None:
        """
        Hand the connection over.

        A later :meth:`IBlobReader.read` begins anew: that is how to go on where the connection ended too early.

        :param offset: where the last read ended.
        :param length: how much will be taken, at most to the end of the blob.
        :return: ``None`` where it can't be done: read as before.
        """


class IBlobBackend(Interface):
    """A place for blobs."""

    name: str = Attribute("``localfs``, ``s3`` ...: what requests, metrics and ``X-CallFS-Backend`` call it.")

    def stage(
        blob_id: str, declared_size: int | None = None, hashers: Sequence[Hasher] = ()
    ) -> Deferred[IStagedBlob]:
        """
        Begin a blob.

        :param declared_size: bytes that will come, when known: refused at once when there is no room.
        :param hashers: fed with the content on the way, off the reactor; read them after the commit.
        :raises callfs.errors.InsufficientStorage: no room.
        """

    def open(blob_id: str) -> Deferred[IBlobReader]:
        """
        Open a blob for reading.

        :raises BlobMissing: there is none of this id.
        :raises callfs.errors.PeerUnavailable: it can't be told just now.
        """

    def delete(blob_id: str) -> Deferred[None]:
        """Delete a blob, durably; one that isn't there is no error."""

    def set_aside(blob_id: str) -> Deferred[None]:
        """Take a blob out of sight of everything but the next three; what the sweep does first."""

    def list_set_aside(after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """A page of what is set aside, as :meth:`list_blobs`; ``modified_at`` says since when it is."""

    def put_back(blob_id: str) -> Deferred[None]:
        """Undo :meth:`set_aside`, durably; a blob that isn't set aside is no error."""

    def purge_set_aside(before_at: int) -> Deferred[int]:
        """Delete what was set aside before the instant; how many."""

    def stat(blob_id: str) -> Deferred[BlobStat]:
        """
        Size and time of a blob.

        :raises BlobMissing: there is none of this id.
        """

    def list_blobs(after: str = "", limit: int = 1000) -> Deferred[list[BlobStat]]:
        """A page of the committed blobs, in an order of the backend's own that stays the same.

        :param after: the id of the last blob of the page before; empty for the first page.
        :return: up to ``limit`` blobs; an empty list at the end.
        """

    def remove_stale_staged(before_at: int) -> Deferred[int]:
        """Remove staged blobs not written to since the instant, other than those of this process; how many."""

    def close() -> Deferred[None]:
        """End the backend; staged blobs are aborted."""


class ICopyingBackend(Interface):
    """A backend that can copy a blob without its bytes passing through here."""

    def copy(from_blob_id: str, to_blob_id: str) -> Deferred[BlobStat]:
        """
        Make a new blob with the content of another one; it is durable when this fires. Not to be cancelled.

        The store answers for the copy: its content's digest is the one that is known of the first blob.

        :param to_blob_id: a new id.
        :return: what the new blob is; compare its size.
        :raises BlobMissing: there is none to copy.
        :raises callfs.errors.InsufficientStorage: no room.
        :raises callfs.errors.PeerUnavailable: it can't be done just now.
        """


class IPeers(Interface):
    """The other nodes, as places for blobs."""

    def blobs(instance_id: str) -> Deferred[IBlobBackend]:
        """
        The blobs on the local disk of another node. Its ``name`` is ``localfs``: what is there is there.

        Lists, and what belongs to the sweep, are the holder's own business: they fail with ``NotImplementedError``.

        :raises callfs.errors.PeerUnavailable: nobody knows a node of this id, or it has just failed repeatedly and
            isn't to be tried yet. What goes wrong with the node later fails each call the same way.
        """

    def known() -> Deferred[Mapping[str, str]]:
        """
        The ids of all known nodes, this one included, with the base URLs of their REST API.

        :raises callfs.errors.MetadataUnavailable: the metadata store, which knows them, doesn't answer.
        """

    def close() -> Deferred[None]:
        """End all connections."""


class BlobMissing(Exception):
    """The backend has no blob of this id."""
