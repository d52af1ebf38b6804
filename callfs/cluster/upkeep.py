"""What a node does every now and then: cut its log, tell the cluster of its addresses, tell observers how it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from callfs.cluster.identity import PeerIdentity
from callfs.cluster.interfaces import ChangeRefused, StateUnusable
from callfs.cluster.observing import ClusterObserver
from callfs.cluster.questions import Announce, Sighted
from callfs.cluster.settings import ClusterSettings
from callfs.errors import InsufficientStorage
from callfs.raft.boundary import Status
from callfs.raft.core import Core

_STRANGE_SECONDS = 5.0
_STATUS_SECONDS = 1.0
_ANNOUNCE_SECONDS = 1.0


class Upkeep:
    """
    :param identity: this node as it is.
    :param cut: makes the state durable and cuts the log.
    :param sightings: the members that were found where the membership doesn't have them, and where.
    :param announce: asks the leader to change the membership, or tells it of a sighting.
    """

    _log = Logger()

    def __init__(
        self,
        core: Core,
        settings: ClusterSettings,
        clock: IReactorTime,
        *,
        identity: Callable[[], PeerIdentity],
        cut: Callable[[], Deferred[None]],
        sightings: Callable[[], Mapping[str, str]],
        announce: Callable[[Announce | Sighted], Deferred[Any]],
        observer: ClusterObserver,
    ) -> None:
        self._core = core
        self._settings = settings
        self._max_log_bytes = settings.core_settings().max_log_bytes
        self._clock = clock
        self._identity = identity
        self._cut = cut
        self._sightings = sightings
        self._announce = announce
        self._observer = observer
        self._cut_at = clock.seconds()
        self._cut_index = core.status().first_index - 1
        self._cutting: Deferred[None] | None = None
        self._announcing = False
        self._telling = False
        self._refusal = ""
        self._wiped: set[str] = set()
        self._strange_seconds = 0.0
        self._told_at = self._announced_at = clock.seconds()

    def look(self, halt: Callable[[str], None]) -> None:
        """Do what is due; called often."""
        status = self._core.status()
        now = self._clock.seconds()
        if self._is_cut_due(status, now):
            self._begin_cut(status, now, halt)
        if now - self._told_at >= _STATUS_SECONDS:
            self._told_at = now
            self._observer.raft_status(status, status.leader_silent_ticks * self._settings.tick_seconds)
            self._tell_of_wiped(status)
            self._tell_of_self(status)
        if now - self._announced_at >= _ANNOUNCE_SECONDS and not self._announcing:
            self._announced_at = now
            self._announce_if_due(status)
            self._tell_of_sightings(status)

    def settled(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        done: Deferred[None] = Deferred()
        if self._cutting is None:
            done.callback(None)
        else:
            self._cutting.addCallback(done.callback)
        return done

    def _tell_of_wiped(self, status: Status) -> None:
        wiped = {peer.node_id for peer in status.peers if peer.other_disk}
        for node_id in sorted(wiped - self._wiped):
            self._observer.error("raft", "other_disk")
            self._log.error(
                "node {node} answers from another disk than it joined with, or lacks what it acknowledged, so it "
                "doesn't count: if its data was lost or restored, remove it ('callfs cluster remove {node}'), "
                "empty its raft.data_dir, and let it join again ('callfs cluster join' there)",
                event="raft_other_disk",
                node=node_id,
            )
        self._wiped = wiped

    def _tell_of_self(self, status: Status) -> None:
        """
        Say what to do on the node itself when the cluster's leader talks to it, and yet it is no member with this
        disk. A node that is just getting its first state looks the same from here.
        """
        own, known = self._identity(), status.membership.get(self._settings.node_id)
        if status.leader is None or (known is not None and known.disk_id == own.disk_id):
            self._strange_seconds = 0.0
            return
        self._strange_seconds += _STATUS_SECONDS
        if self._strange_seconds == _STRANGE_SECONDS:
            self._observer.error("raft", "no_member")
            self._log.warn(
                "the cluster that {leader} leads has sent this node no state that names it and its disk. If it is "
                "not just joining, its data was lost or restored, and it doesn't count: remove it ('callfs cluster "
                "remove {node}'), empty its raft.data_dir, and let it join again ('callfs cluster join')",
                event="raft_no_member",
                leader=status.leader,
                node=self._settings.node_id,
            )

    def _is_cut_due(self, status: Status, now: float) -> bool:
        fresh = status.applied - self._cut_index
        if self._cutting is not None or fresh <= 0:
            return False
        settings = self._settings
        return (
            fresh >= settings.snapshot_threshold
            or now - self._cut_at >= settings.snapshot_interval_seconds
            or status.log_bytes > self._max_log_bytes
        )

    def _begin_cut(self, status: Status, now: float, halt: Callable[[str], None]) -> None:
        self._cut_at = now
        self._cut_index = status.applied

        def failed(failure: Failure) -> None:
            if failure.check(InsufficientStorage):
                self._log.warn("no room to make the state durable: the log stays", event="raft_cut_failed")
            elif failure.check(StateUnusable):
                halt(f"the state of the raft node can't be made durable: {failure.value}")
            else:
                self._log.failure("making the state durable failed", failure, event="raft_cut_failed")
                halt("the state of the raft node can't be made durable: see the log")

        def ended(_: None) -> None:
            self._cutting = None

        cutting = self._cutting = Deferred()
        self._cut().addErrback(failed).addCallback(ended).addCallback(cutting.callback)

    def _announce_if_due(self, status: Status) -> None:
        """What the membership says of this node is what the others use."""
        own, known = self._identity(), status.membership.get(self._settings.node_id)
        if known is None or known.disk_id != own.disk_id or status.leader is None:
            return
        if (known.raft_address, known.api_endpoint, known.version) == (
            own.raft_address,
            own.api_endpoint or known.api_endpoint,
            own.command_version,
        ):
            return
        self._announcing = True

        def ended(result: object) -> None:
            self._announcing = False
            if isinstance(result, Failure):
                self._say_not_announced(result)

        endpoint = own.api_endpoint or known.api_endpoint
        self._announce(Announce(own.raft_address, endpoint, own.command_version)).addBoth(ended)

    def _say_not_announced(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, ChangeRefused) and error.message != self._refusal:
            self._refusal = error.message
            self._log.warn(
                "the cluster doesn't take this node's addresses: {reason}. See to raft.advertise_addr",
                event="raft_addresses_refused",
                reason=error.message,
            )
        else:
            self._log.debug("couldn't announce this node's addresses: {error}", error=str(error))

    def _tell_of_sightings(self, status: Status) -> None:
        """A leader may not know where a member is that moved and reached only others."""
        if self._telling or status.leader in (None, self._settings.node_id):
            return
        asking = [self._announce(Sighted(*sighting)) for sighting in self._sightings().items()]
        if not asking:
            return
        self._telling = True

        def ended(_: object) -> None:
            self._telling = False

        DeferredList(asking, consumeErrors=True).addBoth(ended)
