"""
The composition root: one node, put together by name. The only place that knows all classes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from callfs import __version__
from callfs.backends.identity import Verdict, recognise
from callfs.backends.localfs import LocalBackend
from callfs.backends.measured import MeasuredBackend
from callfs.backends.rootfolder import RootFolder, RootUnusable
from callfs.config.addresses import endpoint_description
from callfs.config.loader import Loaded
from callfs.config.problems import ConfigurationError
from callfs.config.reload import reloadable_changes
from callfs.config.schema import Config
from callfs.config.secret import Secret
from callfs.deferreds import returns_deferred
from callfs.engine.filesystem import Filesystem
from callfs.engine.janitor import Janitor
from callfs.engine.settings import EngineSettings, JanitorSettings
from callfs.errors import CallFSError
from callfs.locks.local import LocalLocks
from callfs.locks.measured import MeasuredLocks
from callfs.logs import LogObserver
from callfs.metadata.commands import RegisterInstance
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.measured import MeasuredStore
from callfs.metadata.sqlite import SqliteStore
from callfs.metrics import Metrics
from callfs.system import dual_stack, on_hangup, raise_file_limit
from callfs.web.auth import PEPPER_BYTES, ApiKeys, Authenticator
from callfs.web.context import SiteSettings
from callfs.web.directories import DirectoryResource
from callfs.web.files import FileResource
from callfs.web.links import LinkResource
from callfs.web.placements import Placements
from callfs.web.proxies import TrustedProxies
from callfs.web.ratelimit import RateLimiter
from callfs.web.routes import route_table
from callfs.web.site import CallFSSite
from callfs.web.system import DescriptionResource, HealthResource, MetricsResource, OpenMetricsResource

_DISK_THREADS = 16
_SENDFILE_THREADS = 8
_LOCAL = "localfs"


def instant() -> int:
    """The wall clock: microseconds since 1970."""
    return time.time_ns() // 1000


def nothing(_step: str) -> None:
    """The failpoint of a daemon that isn't under test."""


class CannotStart(Exception):
    """The node can't run; the message is for the operator: what is wrong and what to do."""


class Node(Service):
    """
    A daemon: stores, backends, the engine, and the sites in front of them.

    Starting and stopping happen in the background: when the node can't run it says why in the log, sets
    :attr:`failed`, and stops the reactor.

    :param loaded: the configuration, checked.
    :param reactor: the reactor that runs it all.
    :param observer: writes the log; its level and format follow the configuration.
    :param reload: reads the configuration again, for SIGHUP.
    :param reached: called at named steps of a write; tests end the process there.
    """

    name = "callfs"
    _log = Logger(namespace="callfs.node")

    def __init__(
        self,
        loaded: Loaded,
        reactor: Any,
        *,
        observer: LogObserver,
        reload: Callable[[], Loaded],
        reached: Callable[[str], None] = nothing,
    ) -> None:
        self.failed = False
        self.observer = observer
        self._config = loaded.config
        self._warnings = loaded.warnings
        self._reactor = reactor
        self._reload = reload
        self._ports: list[IListeningPort] = []
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._use_log_settings(loaded.config)
        self._build(loaded.config, reached)

    # Putting it together

    def _build(self, config: Config, reached: Callable[[str], None]) -> None:
        assert config.backend.localfs_root_path is not None
        self._instance_id = config.instance_discovery.instance_id
        self._metrics = Metrics()
        self._metrics.build_info(__version__, self._instance_id)
        self._disk_pool = ThreadPool(0, _DISK_THREADS, "callfs-disk")
        self._sendfile_pool = ThreadPool(0, _SENDFILE_THREADS, "callfs-sendfile")
        self._root = RootFolder(config.backend.localfs_root_path, secrets.token_bytes)
        self._backend = MeasuredBackend(
            LocalBackend(
                config.backend.localfs_root_path,
                reactor=self._reactor,
                pool=self._disk_pool,
                now=instant,
                min_free_bytes=config.server.min_free_bytes,
                reached=reached,
            ),
            self._metrics.backend_operation,
            time.monotonic,
        )
        self._store = MeasuredStore(
            SqliteStore(
                config.metadata_store.sqlite_path,
                reactor=self._reactor,
                pool=self._disk_pool,
                token_bytes=secrets.token_bytes,
                op_timeout_seconds=config.server.metadata_op_timeout,
                observer=self._metrics,
                reached=reached,
            ),
            self._metrics,
            self._reactor,
        )
        self._locks = MeasuredLocks(
            LocalLocks(self._reactor), self._metrics.lock_operation, self._metrics.active_locks, time.monotonic
        )
        backends = {_LOCAL: self._backend}
        self._janitor = Janitor(
            metadata=self._store,
            backends=backends,
            settings=JanitorSettings(instance_id=self._instance_id),
            now=instant,
            clock=self._reactor,
            metrics=self._metrics,
        )
        self._filesystem = Filesystem(
            metadata=self._store,
            backends=backends,
            locks=self._locks,
            settings=EngineSettings(
                instance_id=self._instance_id,
                default_backend=config.backend.default_backend,
                file_op_timeout_seconds=config.server.file_op_timeout,
                garbage_delay_seconds=config.backend.garbage_delay,
            ),
            now=instant,
            clock=self._reactor,
            token_bytes=secrets.token_bytes,
            metrics=self._metrics,
            link_secrets=_encoded(config.auth.single_use_link_secret),
            garbage_made=self._janitor.kick,
            reached=reached,
        )
        self._keys = ApiKeys(secrets.token_bytes(PEPPER_BYTES), {})
        self._use_keys(config)
        self._generate_limit = RateLimiter(config.limits.link_generate_rate, config.limits.link_generate_burst)
        self._download_limit = RateLimiter(config.limits.download_rate, config.limits.download_burst)
        self._site = self._build_site(config, self._resources(config))
        self._metrics_site = self._build_site(config, [OpenMetricsResource(self._metrics.render)])
        self._metrics_site.ready = True

    def _resources(self, config: Config) -> list[object]:
        placements = Placements(self._instance_id, (_LOCAL,))
        resources: list[object] = [
            FileResource(self._filesystem, placements, config.server.max_upload_bytes),
            DirectoryResource(self._filesystem, self._instance_id),
            LinkResource(
                self._filesystem,
                instance_id=self._instance_id,
                external_url=config.external_url,
                generate_limit=self._generate_limit,
                download_limit=self._download_limit,
                seconds=time.monotonic,
                metrics=self._metrics,
            ),
            HealthResource(self._readiness),
            MetricsResource(self._metrics.render),
        ]
        return [*resources, DescriptionResource(route_table(resources), config.external_url)]

    def _build_site(self, config: Config, resources: list[object]) -> CallFSSite:
        return CallFSSite(
            resources,
            settings=_site_settings(config),
            authenticate=Authenticator(self._keys).authenticate,
            metrics=self._metrics,
            reactor=self._reactor,
            pool=self._sendfile_pool,
            token_bytes=secrets.token_bytes,
        )

    # Starting

    def startService(self) -> None:
        """Begin to start; see the class."""
        Service.startService(self)
        self._starting = self._start()

    @returns_deferred
    async def _start(self) -> None:
        try:
            await self._bring_up()
        except (CannotStart, RootUnusable, StoreUnusable, CallFSError) as error:
            self._fail("CallFS can't start: {reason}", reason=str(error))
        except Exception:
            self._log.failure("CallFS can't start", event="start_failed")
            self._fail("CallFS can't start; the cause is in the log above")

    def _fail(self, text: str, **fields: Any) -> None:
        self.failed = True
        self._log.critical(text, event="start_failed", **fields)
        self._reactor.callLater(0, self._reactor.stop)

    async def _bring_up(self) -> None:
        config = self._config
        for warning in self._warnings:
            self._log.warn("{warning}", event="configuration_warning", warning=warning)
        raise_file_limit()
        self._root.lock()
        for pool in (self._disk_pool, self._sendfile_pool):
            pool.start()
        on_hangup(self._reactor, self._hangup)
        await self._listen(self._site, config.server.listen_addr, "server.listen_addr")
        if config.metrics.listen_addr:
            await self._listen(self._metrics_site, config.metrics.listen_addr, "metrics.listen_addr")
        await self._store.open()
        await self._recognise_root()
        removed = await self._backend.remove_stale_staged(instant())
        self._metrics.staged_removed(_LOCAL, removed)
        self._janitor.startService()
        if self._stopping is None:
            self._site.ready = True
            self._metrics.ready(True)
            self._log.info(
                "CallFS {version} is ready at {url}",
                event="ready",
                version=__version__,
                url=config.external_url,
                instance_id=self._instance_id,
            )

    async def _listen(self, site: CallFSSite, address: str, key: str) -> None:
        endpoint = serverFromString(self._reactor, endpoint_description(address, dual_stack()))
        try:
            port = await endpoint.listen(site)
        except CannotListenError as error:
            raise CannotStart(
                f"nothing can listen on {address}: {error.socketError}. "
                f"Stop what listens there, or choose another address in {key}"
            ) from error
        self._ports.append(port)
        self._log.info("listening on {address}", event="listening", address=address, setting=key)

    async def _recognise_root(self) -> None:
        """Nothing is judged, written or deleted before the store and the folder are known to belong together."""
        instances = {instance.id: instance for instance in await self._store.instances()}
        registered = instances.get(self._instance_id)
        identity = self._root.identity()
        decision = recognise(
            store_was_empty=self._store.was_empty,
            store_id=self._store.store_id,
            registered_root_id=None if registered is None else registered.root_id,
            identity=identity,
            root_has_blobs=self._root.has_blobs(),
        )
        if decision.verdict is Verdict.REFUSE:
            raise CannotStart(decision.message)
        if identity is None:
            identity = self._root.adopt(self._store.store_id)
        await self._store.apply(
            RegisterInstance(
                at=instant(),
                instance_id=self._instance_id,
                root_id=identity.root_id,
                api_endpoint=self._config.external_url,
            )
        )

    # Running

    @returns_deferred
    async def _readiness(self) -> Mapping[str, Mapping[str, Any]]:
        metadata: dict[str, Any] = {"ok": self._site.ready, "type": self._config.metadata_store.type}
        if self._site.ready:
            try:
                await self._store.check()
            except CallFSError as error:
                metadata |= {"ok": False, "message": error.message}
        return {"metadata": metadata, "backends": {"ok": self._site.ready, _LOCAL: {"ok": self._site.ready}}}

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
        self._use_keys(loaded.config)
        self._filesystem.replace_link_secrets(_encoded(loaded.config.auth.single_use_link_secret))
        limits = loaded.config.limits
        self._generate_limit.replace(limits.link_generate_rate, limits.link_generate_burst)
        self._download_limit.replace(limits.download_rate, limits.download_burst)
        self._config = replace(self._config, auth=loaded.config.auth, log=loaded.config.log, limits=limits)
        for site in (self._site, self._metrics_site):
            site.settings = _site_settings(self._config)
        self._log.info("configuration reread", event="reloaded", changed=list(changes.at_once))
        if changes.after_restart:
            self._log.warn(
                "these settings take effect after a restart: {keys}",
                event="restart_needed",
                keys=", ".join(changes.after_restart),
            )

    def _use_log_settings(self, config: Config) -> None:
        self.observer.set_secrets(config.secrets())
        self.observer.set_level(config.log.level)
        self.observer.set_format(config.log.format)

    def _use_keys(self, config: Config) -> None:
        auth = config.auth
        self._keys.replace(
            {user: [key.reveal() for key in keys] for user, keys in auth.api_key_users.items()},
            [key.reveal() for key in auth.api_keys],
            auth.admins,
            [secret.reveal() for secret in auth.internal_proxy_secret],
        )

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
        starting = self._starting
        if starting is not None:
            await starting
        self._metrics.ready(False)
        await gatherResults([Deferred.fromCoroutine(_closed(port)) for port in self._ports])
        await self._site.stop(self._config.server.shutdown_timeout)
        await self._metrics_site.stop(0)
        await self._janitor.stopService()
        await self._backend.close()
        await self._locks.close()
        await self._store.close()
        self._root.unlock()
        for pool in (self._disk_pool, self._sendfile_pool):
            if pool.started:
                pool.stop()
        self._log.info("stopped", event="stopped")


async def _closed(port: IListeningPort) -> None:
    await port.stopListening()


def _encoded(secrets_: tuple[Secret, ...]) -> list[bytes]:
    return [secret.reveal().encode() for secret in secrets_]


def _site_settings(config: Config) -> SiteSettings:
    server = config.server
    return SiteSettings(
        read_timeout_seconds=server.read_timeout,
        write_timeout_seconds=server.write_timeout,
        max_connections=config.limits.max_connections,
        trusted_proxies=TrustedProxies(str(network) for network in server.trusted_proxies),
    )
