"""What a node has, and whom it has waiting, of the locks in Redis."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from callfs.locks.interfaces import ILease


class Releases(Protocol):
    """Who takes leases back."""

    def release(self, lease: Lease) -> Deferred[None]:
        """Give the key back."""


@implementer(ILease)
class Lease:
    """
    A key that is held.

    :ivar lost: whether it ran out before it was released.
    """

    def __init__(self, service: Releases, key: str, token: str, fencing: int, until: float) -> None:
        self.key = key
        self.token = token
        self.fencing = fencing
        self.until = until
        self.lost = False
        self._service = service

    def release(self) -> Deferred[None]:
        """See :meth:`ILease.release`. When the server can't be told now it is told later, or the lease runs out."""
        return self._service.release(self)


class Line:
    """Who of this node waits for a key, the first of whom has it or asks for it."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[object, Deferred[None]] = OrderedDict()
        self.wake: Deferred[None] | None = None
