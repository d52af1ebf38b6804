"""How long the sessions of a cluster's locks have been silent, as a node that leads counts it."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from callfs.locks.replicated_table import Changes


class SilentSessions:
    """
    When each session was heard of, on this node's own clock.

    Whoever begins to lead, or was itself at a standstill, gives everybody a whole lease: what it has applied may
    be old.

    :param lease_seconds: how long a session may be silent.
    :param beat_seconds: how often :meth:`silent` is asked.
    """

    def __init__(self, clock: IReactorTime, lease_seconds: float, beat_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._beat_seconds = beat_seconds
        self._heard: dict[bytes, tuple[int, float]] = {}
        self._leads_in: int | None = None
        self._counts_from = 0.0
        self._asked_at = clock.seconds()

    def saw(self, changes: Changes) -> None:
        """Something was applied."""
        now = self._clock.seconds()
        if changes.standing is not None:
            self._heard = {}
        for session in changes.ended:
            self._heard.pop(session, None)
        self._heard.update({session: (index, now) for session, index in changes.heard.items()})

    def silent(self, term: int | None) -> Mapping[bytes, int]:
        """
        The sessions to be ended, with the entry that each was last heard in.

        :param term: in which this node leads, if it does.
        """
        now = self._clock.seconds()
        asked_at, self._asked_at = self._asked_at, now
        if self._leads_in != term or now - asked_at > 2 * self._beat_seconds:
            self._leads_in, self._counts_from = term, now
        latest = now - self._lease_seconds
        if term is None or self._counts_from > latest:
            return {}
        return {session: index for session, (index, at) in self._heard.items() if at < latest}
