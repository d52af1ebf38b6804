"""
The daemon's life: a node is brought up, told of new configurations, and taken down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger

from callfs import __version__
from callfs.backends.peertls import UnusableCertificates
from callfs.backends.rootfolder import RootUnusable
from callfs.backends.s3_unusable import S3Unusable
from callfs.cluster.unusable import CannotTakePart
from callfs.config.addresses import endpoint_description
from callfs.config.loader import Loaded
from callfs.config.problems import ConfigurationError
from callfs.config.reload import reloadable_changes
from callfs.config.schema import Config
from callfs.deferreds import returns_deferred
from callfs.engine.presence import Presence
from callfs.engine.routing import LOCAL_BACKEND
from callfs.errors import CallFSError, MetadataUnavailable, OutcomeUnknown, PeerUnavailable
from callfs.logs import LogObserver
from callfs.metadata.interfaces import StoreUnusable
from callfs.node import build, encoded, site_settings, use_keys
from callfs.node_metadata import Reached, instant, nothing
from callfs.readiness import ReadinessChecks
from callfs.recognition import CannotStart, Recognition
from callfs.stopping import TakingDown
from callfs.system import dual_stack, measure_steadily, on_hangup, on_repeated_end, raise_file_limit
from callfs.web.site import CallFSSite

END_OF_TIME = 1 << 62
"""An instant after all others."""

_STORE_RETRY_SECONDS = 1.0


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
    :raises CannotStart: certificates can't be used.
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
        self._meeting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._is_ending = False
        self._presence: Presence | None = None
        self._use_log_settings(loaded.config)
        try:
            self._node = build(loaded.config, reactor, self._readiness, reached, self._unable)
        except CannotTakePart as error:
            raise CannotStart(str(error)) from error
        self._checks = ReadinessChecks(self._node, loaded.config, reactor)
        self._recognition = Recognition(self._node, loaded.config, self._checks)

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
        except (CannotStart, RootUnusable, StoreUnusable, S3Unusable, UnusableCertificates, CallFSError) as error:
            self._fail("CallFS can't start: {reason}", reason=str(error))
        except Exception:
            self._log.failure("CallFS can't start", event="start_failed")
            self._fail("CallFS can't start; the cause is in the log above")

    def _fail(self, text: str, **fields: Any) -> None:
        self.failed = True
        self._log.critical(text, event="start_failed", **fields)
        self._reactor.callLater(0, self._end_reactor)

    def _unable(self, reason: str) -> None:
        """The running node can't go on."""
        self._fail("CallFS has to stop: {reason}", reason=reason)

    def _end_reactor(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self._reactor.stop()

    async def _bring_up(self) -> None:
        config = self._config
        for warning in self._warnings:
            self._log.warn("{warning}", event="configuration_warning", warning=warning)
        raise_file_limit()
        self._verify_peers()
        if self._node.disk is not None:
            self._node.disk.root.lock()
        self._node.pools.start()
        on_hangup(self._reactor, self._hangup)
        on_repeated_end(self._reactor, lambda: self._is_ending, self._stopping_already)
        self._node.metrics_site.ready = True
        await self._listen(self._node.site, config.server.listen_addr, "server.listen_addr")
        if config.metrics.listen_addr:
            await self._listen(self._node.metrics_site, config.metrics.listen_addr, "metrics.listen_addr")
        self._recognition.refuse_lost_database()
        await self._take_part()
        await self._patiently(self._node.store.open)
        self._node.locks.start()
        await self._patiently(self._recognition.recognise_root)
        await self._patiently(self._look_for_bucket)
        await self._patiently(self._appear)
        await self._patiently(self._recognition.see_others)
        await self._clear_leftovers()
        self._node.janitor.startService()
        self._node.replicator.startService()
        if not self._is_ending:
            self._node.site.ready = True
            if self._node.bucket is None or self._node.bucket.gate.is_open:
                self._say_ready()

    def _say_ready(self) -> None:
        self._node.metrics.ready(True)
        self._log.info(
            "CallFS {version} is ready at {url}",
            event="ready",
            version=__version__,
            url=self._config.external_url,
            instance_id=self._node.instance_id,
        )

    def _verify_peers(self) -> None:
        try:
            self._node.others.verify_as(self._config)
        except OSError as error:
            raise CannotStart(
                f"backend.internal_proxy_ca_file can't be read: {error.filename}: {error.strerror}"
            ) from error

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
        Do what needs the metadata store or S3, which may be done again. A server that isn't there yet is waited
        for: after a power failure everything comes up at once.

        :raises _Interrupted: the node is to stop.
        """
        told = ""
        while not self._is_ending:
            try:
                await step()
                return
            except (MetadataUnavailable, OutcomeUnknown) as error:
                if error.message != told:
                    told = error.message
                    self._log.warn("waiting for the metadata store: {reason}", event="store_awaited", reason=told)
            except PeerUnavailable as error:
                self._say_bucket_awaited(error)
            if not self._is_ending:
                await deferLater(self._reactor, _STORE_RETRY_SECONDS)
        raise _Interrupted

    async def _take_part(self) -> None:
        """Begin to be a member of the cluster that keeps the metadata, where there is one."""
        membership = self._node.membership
        if membership is None or self._is_ending:
            return
        try:
            await membership.raft.start()
        except CancelledError:
            raise _Interrupted from None
        except (CannotTakePart, CannotListenError) as error:
            raise CannotStart(f"this node can't take part in its metadata cluster: {error}") from error

    @returns_deferred
    async def _look_for_bucket(self) -> None:
        """
        See whose the bucket is. When S3 doesn't answer it is asked beside, and what is elsewhere is served: until
        it was recognised nothing in it can be reached, and the node isn't ready.
        """
        try:
            await self._recognition.recognise_bucket()
        except PeerUnavailable as error:
            self._say_bucket_awaited(error)
            self._meeting = self._meet_bucket()

    @returns_deferred
    async def _meet_bucket(self) -> None:
        try:
            await deferLater(self._reactor, _STORE_RETRY_SECONDS)
            await self._patiently(self._recognition.recognise_bucket)
            self._log.info("S3 is there", event="bucket_recognised")
            if self._node.site.ready:
                self._say_ready()
            await self._node.janitor.backend_came()
            self._node.replicator.hurry()
        except _Interrupted:
            pass
        except (S3Unusable, CallFSError) as error:
            self._unable(str(error))
        except Exception:
            self._log.failure("the bucket can't be used", event="bucket_failed")
            self._unable("the bucket can't be used; the cause is in the log above")

    def _say_bucket_awaited(self, error: PeerUnavailable) -> None:
        self._log.warn("waiting for S3: {reason}", event="bucket_awaited", reason=error.message)

    @returns_deferred
    async def _appear(self) -> None:
        """Let the other nodes know of this one, from now on."""
        identity = self._checks.identity
        presence = Presence(
            metadata=self._node.store,
            instance_id=self._node.instance_id,
            root_id=None if identity is None else identity.root_id,
            api_endpoint=self._config.external_url,
            now=instant,
            clock=self._reactor,
            metrics=self._node.metrics,
            displaced=self._unable,
        )
        await presence.register()
        self._presence = presence
        presence.startService()

    async def _clear_leftovers(self) -> None:
        """All that is staged on the local disk is left over, also what is from before the clock was set back."""
        if self._node.disk is not None:
            removed = await self._node.disk.blobs.remove_stale_staged(END_OF_TIME)
            self._node.metrics.staged_removed(LOCAL_BACKEND, removed)

    # Running

    def _readiness(self) -> Deferred[Mapping[str, Mapping[str, Any]]]:
        return self._checks.parts()

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
        self._node.others.client.replace_secrets(loaded.config.auth.internal_proxy_secret)
        self._node.internal_secrets[:] = encoded(loaded.config.auth.internal_proxy_secret)
        self._node.filesystem.replace_link_secrets(encoded(loaded.config.auth.single_use_link_secret))
        self._reread_certificates()
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

    def _reread_certificates(self) -> None:
        """Those that peers show and are verified by; files that can't be used leave the old ones in force."""
        tls = None if self._node.membership is None else self._node.membership.tls
        try:
            self._node.others.verify_as(self._config)
            if tls is not None:
                tls.reload()
        except (UnusableCertificates, CannotTakePart, OSError) as error:
            self._log.error(
                "certificates can't be reread, the old ones stay: {reason}",
                event="reload_failed",
                reason=str(error),
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
        self._is_ending = True
        starting, node = self._starting, self._node
        taking_down = TakingDown(node, self._reactor, self._config.server.shutdown_timeout)
        if node.membership is not None and not node.site.ready:
            # It may be waiting for other members, for as long as it takes.
            await node.membership.raft.stop()
        elif node.membership is not None:
            node.membership.raft.wind_down()
        if node.bucket is not None and not node.bucket.gate.is_open:
            # Nothing is under way there but the question whose it is.
            node.bucket.bucket.cut()
        if starting is not None:
            await starting
        if self._meeting is not None:
            await self._meeting
        node.metrics.ready(False)
        await gatherResults([maybeDeferred(port.stopListening) for port in self._ports])
        await taking_down.run(self._presence)
        self._log.info("stopped", event="stopped")

    def _stopping_already(self) -> None:
        self._log.info("a further signal to stop changes nothing", event="stopping_already")
