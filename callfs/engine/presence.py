"""A node's sign of life: it writes down where its peers reach it, again and again."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from callfs.deferreds import returns_deferred
from callfs.engine.ports import ErrorMetrics
from callfs.errors import CallFSError, Conflict
from callfs.metadata.commands import RegisterInstance
from callfs.metadata.interfaces import IMetadataStore

HEARTBEAT_SECONDS = 15.0
ALIVE_SECONDS = 4 * HEARTBEAT_SECONDS
"""A node whose last sign of life isn't older is taken for one that runs."""

_log = Logger()


class Presence(Service):
    """
    Registers a node in the metadata store as long as it runs.

    A store that doesn't answer costs a sign of life and nothing else. That another root folder is registered under
    this node's id by now means that two nodes have one id, as when a node that hung has been replaced meanwhile: it
    is said loudly, and the node must not go on, because what it takes in would be looked for on the other one.

    :param metadata: open.
    :param root_id: the identity of the root folder; ``None`` without one.
    :param api_endpoint: the base URL at which peers reach this node.
    :param now: the wall clock, an instant.
    :param clock: drives the turns.
    :param displaced: told, with a message for the operator, that another root folder has this node's id by now.
    """

    def __init__(
        self,
        *,
        metadata: IMetadataStore,
        instance_id: str,
        root_id: str | None,
        api_endpoint: str,
        now: Callable[[], int],
        clock: IReactorTime,
        metrics: ErrorMetrics,
        displaced: Callable[[str], None],
        interval_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._metadata = metadata
        self._instance_id = instance_id
        self._root_id = root_id
        self._api_endpoint = api_endpoint
        self._now = now
        self._metrics = metrics
        self._displaced = displaced
        self._interval_seconds = interval_seconds
        self._turns = LoopingCall(self._beat)
        self._turns.clock = clock
        self._ended: Deferred[LoopingCall] | None = None

    @returns_deferred
    async def register(self) -> None:
        """
        Write the node down once.

        :raises callfs.errors.Conflict: another root folder is registered under this id; or an import into the store
            isn't finished.
        :raises callfs.errors.MetadataUnavailable: the store doesn't answer.
        """
        await self._metadata.apply(
            RegisterInstance(
                at=self._now(),
                instance_id=self._instance_id,
                root_id=self._root_id,
                api_endpoint=self._api_endpoint,
            )
        )

    def startService(self) -> None:
        """Begin; the node has registered already, so the first turn comes an interval later."""
        Service.startService(self)
        self._ended = self._turns.start(self._interval_seconds, now=False)

    @returns_deferred
    async def stopService(self) -> None:
        """End; fires when a sign of life under way is over."""
        if not self.running:
            return
        Service.stopService(self)
        ended, self._ended = self._ended, None
        self._turns.stop()
        if ended is not None:
            await ended

    @returns_deferred
    async def _beat(self) -> None:
        try:
            await self.register()
        except Conflict as error:
            self._metrics.error("presence", "instance_id_taken")
            _log.critical(
                "{reason}. Two nodes must not have one instance_discovery.instance_id",
                event="instance_id_taken",
                reason=error.message,
                instance_id=self._instance_id,
            )
            await self._give_way(error.message)
        except CallFSError as error:
            self._metrics.error("presence", "heartbeat_failed")
            _log.warn("no sign of life could be given: {reason}", event="heartbeat_failed", reason=error.message)
        except Exception:
            self._metrics.error("presence", "heartbeat_failed")
            _log.failure("no sign of life could be given", event="heartbeat_failed")

    async def _give_way(self, reason: str) -> None:
        """Say that the node can't go on, if that is certain; a refusal has other causes, too."""
        try:
            registered = {instance.id: instance.root_id for instance in await self._metadata.instances()}
        except CallFSError:
            return  # the next turn asks again
        if (
            self.running
            and self._root_id is not None
            and registered.get(self._instance_id) not in (None, self._root_id)
        ):
            self._displaced(reason)
