"""What a node has, and whom it has waiting, of the locks in Redis."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
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


class Unreleased:
    """What Redis couldn't be told to take back; no longer than until it has run out there by itself."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, token: str, until: float) -> None:
        """Keep a token; what is added later runs out later."""
        self._keys[token] = (key, until)

    def forget(self, now: float) -> None:
        """Drop what has run out."""
        while self._keys and next(iter(self._keys.values()))[1] <= now:
            self._keys.popitem(last=False)

    def first(self, count: int) -> dict[str, str]:
        """The oldest, at most so many: by token, the key."""
        return {token: key for token, (key, _) in islice(self._keys.items(), count)}

    def told(self, tokens: Iterable[str]) -> None:
        """Redis has been told of these."""
        for token in tokens:
            self._keys.pop(token, None)
