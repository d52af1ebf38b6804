"""
The daemon's life: a node is brought up, told of new configurations, and taken down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from callfs import __version__
from callfs.backends.identity import Identity, Verdict, recognise
from callfs.backends.rootfolder import RootUnusable
from callfs.config.addresses import endpoint_description
from callfs.config.loader import Loaded
from callfs.config.problems import ConfigurationError
from callfs.config.reload import reloadable_changes
from callfs.config.schema import Config
from callfs.deferreds import returns_deferred, with_timeout
from callfs.errors import CallFSError, MetadataUnavailable, OutcomeUnknown
from callfs.logs import LogObserver
from callfs.metadata.commands import RegisterInstance
from callfs.metadata.interfaces import StoreUnusable
from callfs.node import LOCAL, Reached, build, encoded, instant, nothing, site_settings, use_keys
from callfs.system import dual_stack, measure_steadily, on_hangup, raise_file_limit
from callfs.web.site import CallFSSite

END_OF_TIME = 1 << 62
"""An instant after all others."""

_STORE_RETRY_SECONDS = 1.0


class CannotStart(Exception):
    """The node can't run; the message is for the operator: what is wrong and what to do."""


class _Interrupted(Exception):
    """The node is to stop although it hasn't quite started."""


class NodeService(Service):
    """
    Runs a node.

    Starting and stopping happen in the background: when the node can't run, the service says why in the log, sets
    :attr:`failed`, and stops the reactor.

    :param loaded: the configuration, checked.
    :param reactor: the reactor that runs it all.
    :param observer: writes the log; its level and format follow the configuration.
    :param reload: reads the configuration again, for SIGHUP.
    :param reached: called at named steps of a write; tests end the process there.
    """

    name = "callfs"
    _log = Logger()

    def __init__(
        self,
        loaded: Loaded,
        reactor: Any,
        *,
        observer: LogObserver,
        reload: Callable[[], Loaded],
        reached: Reached = nothing,
    ) -> None:
        measure_steadily(reactor)
        self.failed = False
        self.observer = observer
        self._config = loaded.config
        self._warnings = loaded.warnings
        self._reactor = reactor
        self._reload = reload
        self._ports: list[IListeningPort] = []
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._identity: Identity | None = None
        self._use_log_settings(loaded.config)
        self._node = build(loaded.config, reactor, self._readiness, reached)

    # Starting

    def startService(self) -> None:
        """Begin to start; see the class."""
        Service.startService(self)
        self._starting = self._start()

    @returns_deferred
    async def _start(self) -> None:
        try:
            await self._bring_up()
        except _Interrupted:
            pass
        except (CannotStart, RootUnusable, StoreUnusable, CallFSError) as error:
            self._fail("CallFS can't start: {reason}", reason=str(error))
        except Exception:
            self._log.failure("CallFS can't start", event="start_failed")
            self._fail("CallFS can't start; the cause is in the log above")

    def _fail(self, text: str, **fields: Any) -> None:
        self.failed = True
        self._log.critical(text, event="start_failed", **fields)
        self._reactor.callLater(0, self._end_reactor)

    def _end_reactor(self) -> None:
        if self._stopping is None:
            self._reactor.stop()

    async def _bring_up(self) -> None:
        config = self._config
        for warning in self._warnings:
            self._log.warn("{warning}", event="configuration_warning", warning=warning)
        raise_file_limit()
        self._node.root.lock()
        self._node.pools.start()
        on_hangup(self._reactor, self._hangup)
        self._node.metrics_site.ready = True
        await self._listen(self._node.site, config.server.listen_addr, "server.listen_addr")
        if config.metrics.listen_addr:
            await self._listen(self._node.metrics_site, config.metrics.listen_addr, "metrics.listen_addr")
        self._refuse_lost_database()
        await self._patiently(self._node.store.open)
        await self._patiently(self._recognise_root)
        # All of them are leftovers, also those from before the clock was set back.
        removed = await self._node.backend.remove_stale_staged(END_OF_TIME)
        self._node.metrics.staged_removed(LOCAL, removed)
        self._node.janitor.startService()
        if self._stopping is None:
            self._node.site.ready = True
            self._node.metrics.ready(True)
            self._log.info(
                "CallFS {version} is ready at {url}",
                event="ready",
                version=__version__,
                url=config.external_url,
                instance_id=self._node.instance_id,
            )

    async def _listen(self, site: CallFSSite, address: str, key: str) -> None:
        try:
            endpoint = serverFromString(self._reactor, endpoint_description(address, dual_stack()))
            port = await endpoint.listen(site)
        except CannotListenError as error:
            raise CannotStart(
                f"nothing can listen on {address}: {error.socketError}. "
                f"Stop what listens there, or choose another address in {key}"
            ) from error
        except Exception as error:
            # Twisted and its plug-ins read an endpoint string only now, and have many ways to say that they can't.
            raise CannotStart(
                f"nothing can listen on {address}: {type(error).__name__}: {error}. Correct {key}"
            ) from error
        self._ports.append(port)
        self._log.info("listening on {address}", event="listening", address=address, setting=key)

    async def _patiently(self, step: Callable[[], Deferred[None]]) -> None:
        """
        Do what needs the metadata store, which may be done again. A server that isn't there yet is waited for:
        after a power failure everything comes up at once.

        :raises _Interrupted: the node is to stop.
        """
        while self._stopping is None:
            try:
                await step()
                return
            except (MetadataUnavailable, OutcomeUnknown) as error:
                self._log.warn(
                    "waiting for the metadata store: {reason}", event="store_awaited", reason=error.message
                )
            if self._stopping is None:
                await deferLater(self._reactor, _STORE_RETRY_SECONDS)
        raise _Interrupted

    def _places(self) -> str:
        store = self._config.metadata_store
        database = f"database {store.sqlite_path}" if store.type == "sqlite" else f"metadata in {store.type}"
        return f"root folder {self._node.root.path}, {database}"

    def _refuse_lost_database(self) -> None:
        """Where a folder knows its store, a missing database is a mistake: an empty one isn't made in its place."""
        database = self._config.metadata_store.sqlite_path
        if self._config.metadata_store.type != "sqlite":
            return
        if self._node.root.identity() is not None and not database.exists():
            raise CannotStart(
                f"the root folder {self._node.root.path} belongs to a metadata store, but the database {database} "
                "doesn't exist. Correct metadata_store.sqlite_path, or restore the database from a backup"
            )

    @returns_deferred
    async def _recognise_root(self) -> None:
        """Nothing is judged, written or deleted before the store and the folder are known to belong together."""
        instances = await self._node.store.instances()
        identity = self._node.root.identity()
        decision = recognise(
            store_was_empty=self._node.store.was_empty,
            store_id=self._node.store.store_id,
            instance_id=self._node.instance_id,
            registered={instance.id: instance.root_id for instance in instances},
            identity=identity,
            root_has_blobs=self._node.root.has_blobs(),
        )
        if decision.verdict is Verdict.REFUSE:
            raise CannotStart(f"{decision.message} ({self._places()})")
        if identity is None:
            identity = self._node.root.adopt(self._node.store.store_id)
        self._identity = identity
        await self._node.store.apply(
            RegisterInstance(
                at=instant(),
                instance_id=self._node.instance_id,
                root_id=identity.root_id,
                api_endpoint=self._config.external_url,
            )
        )

    # Running

    @returns_deferred
    async def _readiness(self) -> Mapping[str, Mapping[str, Any]]:
        metadata: dict[str, Any] = {"ok": self._node.site.ready, "type": self._config.metadata_store.type}
        locks: dict[str, Any] = {"ok": self._node.site.ready, "type": self._config.dlm.type}
        local: dict[str, Any] = {"ok": self._node.site.ready}
        if self._node.site.ready:
            try:
                await self._node.store.check()
            except CallFSError as error:
                metadata |= {"ok": False, "message": error.message}
            try:
                await self._node.locks.check()
            except CallFSError as error:
                locks |= {"ok": False, "message": error.message}
            try:
                await self._check_root()
            except RootUnusable as error:
                local |= {"ok": False, "message": str(error)}
        return {"metadata": metadata, "locks": locks, "backends": {"ok": local["ok"], LOCAL: local}}

    @returns_deferred
    async def _check_root(self) -> None:
        """
        See whether the root folder is still what it was when the node started.

        :raises RootUnusable: it isn't; the message names no path, because whoever asks isn't authenticated.
        """
        looking = deferToThreadPool(self._reactor, self._node.pools.queries, self._node.root.identity)
        patience_seconds = self._config.server.file_op_timeout
        try:
            identity = await with_timeout(
                looking, patience_seconds, self._reactor, lambda: RootUnusable("the disk doesn't answer")
            )
        except RootUnusable as error:
            raise RootUnusable("the root folder can't be read") from error
        if identity != self._identity:
            raise RootUnusable("the root folder isn't the one that was there at the start: is its disk mounted?")

    def _hangup(self) -> None:
        try:
            loaded = self._reload()
        except ConfigurationError as error:
            self._log.error(
                "the configuration isn't valid, nothing was changed: {problems}",
                event="reload_failed",
                problems="; ".join(str(problem) for problem in error.problems),
            )
            return
        changes = reloadable_changes(self._config, loaded.config)
        for warning in loaded.warnings:
            self._log.warn("{warning}", event="configuration_warning", warning=warning)
        self._use_log_settings(loaded.config)
        use_keys(self._node.keys, loaded.config)
        self._node.filesystem.replace_link_secrets(encoded(loaded.config.auth.single_use_link_secret))
        limits = loaded.config.limits
        self._node.limits.generate.replace(limits.link_generate_rate, limits.link_generate_burst)
        self._node.limits.download.replace(limits.download_rate, limits.download_burst)
        self._config = replace(self._config, auth=loaded.config.auth, log=loaded.config.log, limits=limits)
        for site in (self._node.site, self._node.metrics_site):
            site.settings = site_settings(self._config)
        self._log.info("configuration reread", event="reloaded", changed=list(changes.at_once))
        if changes.after_restart:
            self._log.warn(
                "these settings take effect after a restart: {keys}",
                event="restart_needed",
                keys=", ".join(changes.after_restart),
            )

    def _use_log_settings(self, config: Config) -> None:
        # What was replaced may be in use until a restart (the password of a database), or on its way into the log.
        self.observer.set_secrets((*self._config.secrets(), *config.secrets()))
        self.observer.set_level(config.log.level)
        self.observer.set_format(config.log.format)

    # Stopping

    def stopService(self) -> Deferred[None]:
        """Stop gracefully; fires when everything is closed."""
        Service.stopService(self)
        if self._stopping is None:
            self._stopping = self._stop()
        return self._stopping

    @returns_deferred
    async def _stop(self) -> None:
        self._log.info("stopping", event="stopping")
        starting, node = self._starting, self._node
        if starting is not None:
            await starting
        node.metrics.ready(False)
        await gatherResults([maybeDeferred(port.stopListening) for port in self._ports])
        await self._end_transfers()
        # Uploads that were complete when their client went away are still on their way to the store.
        await node.filesystem.settled()
        await node.janitor.stopService()
        await node.backend.close()
        await node.locks.close()
        await node.store.close()
        node.root.unlock()
        node.pools.stop()
        self._log.info("stopped", event="stopped")

    async def _end_transfers(self) -> None:
        """What is under way may finish within ``server.shutdown_timeout``; then it is cut."""
        patience_seconds = self._config.server.shutdown_timeout
        transfers = self._node.transfers
        cutting: IDelayedCall = self._reactor.callLater(patience_seconds, transfers.cut)
        await gatherResults([self._node.site.stop(patience_seconds), transfers.stop()])
        if cutting.active():
            cutting.cancel()
        await self._node.metrics_site.stop(0)
