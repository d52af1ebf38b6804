"""What a node notices of others when it starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.logger import capturedLogs

from callfs.config.schema import Config, ServerConfig
from callfs.metadata.commands import RegisterInstance
from callfs.recognition import Recognition
from tests.support.engine import NODE, EngineCase


class TestOthers(EngineCase):
    async def warnings(self, **server: str) -> list[str]:
        """What a node with these settings says when it looks for others."""
        node = SimpleNamespace(store=self.store, instance_id=NODE)
        config = Config(server=ServerConfig(**cast(Any, server)))
        with capturedLogs() as events:
            await Recognition(cast(Any, node), config, cast(Any, None)).see_others()
        return [event["warning"] for event in events if event.get("event") == "external_url_guessed"]

    async def register(self, name: str) -> None:
        """A node appears."""
        url = "http://10.0.0.1:8443"
        await self.store.apply(RegisterInstance(at=self.now(), instance_id=name, root_id=None, api_endpoint=url))

    async def test_localhost(self) -> None:
        """A node that tells others that it is at localhost says so, and what to set, as soon as there are any."""
        await self.register(NODE)
        assert await self.warnings() == []
        await self.register("node-2")
        (warning,) = await self.warnings()
        assert "server.external_url" in warning
        assert "http://localhost:8443" in warning

    async def test_known_url(self) -> None:
        """A URL that was set is the operator's choice, and an address that is listened on is one."""
        await self.register("node-2")
        assert await self.warnings(external_url="http://localhost:8443") == []
        assert await self.warnings(listen_addr="10.0.0.2:8443") == []
