"""The routes that administer nodes, on a real site over several nodes in one process."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread

from callfs.metadata.commands import RegisterInstance
from callfs.web.auth import ApiKeys, Authenticator
from callfs.web.context import SiteSettings
from callfs.web.nodes import NodeResource
from callfs.web.site import CallFSSite
from tests.support.engine import NODE
from tests.support.http import Answer, Client
from tests.support.nodes import NODES, NodesCase
from tests.support.site import Counted

SECRET, API_KEY = "internal-secret-0123456789", "alice-key-0123456789"


class NodeSiteCase(NodesCase):
    """The first of three registered nodes is served on 127.0.0.1; requests are made in threads."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        for number, name in enumerate(NODES):
            await self.register(name, f"{number}" * 32)
        metadata: Any = self.store
        await self.serve(NodeResource(self.filesystem, metadata, self.options.get("replica_backend")))

    async def register(self, name: str, root_id: str, silent_seconds: float = 3600.0) -> None:
        """A node announced itself so long ago."""
        at = self.now() - int(silent_seconds * 1_000_000)
        await self.store.apply(
            RegisterInstance(at=at, instance_id=name, root_id=root_id, api_endpoint=f"http://{name}")
        )

    async def serve(self, resource: NodeResource) -> None:
        """Serve these routes."""
        reactor: Any = global_reactor
        keys = ApiKeys(b"pepper", {"alice": [API_KEY]}, internal_secrets=[SECRET])
        self.site = CallFSSite(
            [resource],
            settings=SiteSettings(),
            authenticate=Authenticator(keys).authenticate,
            metrics=Counted(),
            reactor=reactor,
            now=lambda: time.time_ns() // 1000,
            pool=None,
            token_bytes=secrets.token_bytes,
        )
        self.site.ready = True
        port: IListeningPort = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.address = ("127.0.0.1", port.getHost().port)  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.addCleanup(self._end, port)

    async def _end(self, port: IListeningPort) -> None:
        stopped = port.stopListening()
        if isinstance(stopped, Deferred):
            await stopped
        await self.site.stop(0)

    def ask(self, method: str, target: str, body: Any = None, key: str | None = SECRET) -> Deferred[Answer]:
        """One request on a connection of its own; a body that is no bytes goes as JSON."""

        def run() -> Answer:
            client = Client(self.address, key)
            try:
                data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
                return client.request(method, target, data)
            finally:
                client.close()

        return deferToThread(run)


__all__ = ["API_KEY", "NODE", "SECRET", "NodeSiteCase"]
