"""The port of locks."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface


class ILease(Interface):
    """A lock that is held. It renews itself until it is released or lost."""

    key: str = Attribute("What is locked.")
    fencing: int = Attribute("Grows with every lease of the same key: an older number has lost.")

    def release() -> Deferred[None]:
        """Give the lock back. Releasing twice, or after the lease was lost, does nothing."""


class ILockService(Interface):
    """
    Locks by key, first come first served, each held by one lease at a time.

    A lock saves work; it is never what correctness rests on, because the metadata command decides again.
    """

    def acquire(keys: tuple[str, ...], wait_seconds: float) -> Deferred[tuple[ILease, ...]]:
        """
        Take all of ``keys``, in one fixed order whatever the order given, so that two callers can't deadlock.

        :param keys: canonical paths; a key that is given twice is taken once.
        :param wait_seconds: how long to wait for all of them together.
        :return: a lease for each key. Cancelling the Deferred gives back what was got already.
        :raises callfs.errors.ResourceLocked: not all could be got in time; none is held.
        :raises callfs.errors.MetadataUnavailable: the server that keeps the locks doesn't answer; none is held.
        """

    def check() -> Deferred[None]:
        """
        Fires when locks can be had, for readiness.

        :raises callfs.errors.MetadataUnavailable: the server of the locks doesn't answer.
        """

    def close() -> Deferred[None]:
        """End the service: waiters fail with ``ResourceLocked``, leases are released."""
