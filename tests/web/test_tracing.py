"""What a request sets going is done on behalf of its user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from twisted.internet.protocol import Protocol

from callfs import tracing
from callfs.tracing import Origin
from callfs.web.context import Upgraded
from callfs.web.messages import Request, Response
from tests.support.http import Wire
from tests.support.site import KEY, SiteCase


class TracingTests(SiteCase):
    """The site says for whom a route works."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[Origin | None] = []

    async def behaviour(self, request: Request) -> Response:
        """Look at the origin while the answer is made, and while it is sent."""
        self.seen.append(tracing.current())
        await request.body.read(1000)
        await self.moment()
        self.seen.append(tracing.current())

        async def body() -> AsyncIterator[bytes]:
            await self.moment()
            self.seen.append(tracing.current())
            yield b"x"

        return Response(body=body())

    async def test_a_users_request(self) -> None:
        """It is the request's id as the client sees it, and the user; from the first step to the last."""
        await self.serve(self.behaviour)
        for method in ("GET", "PUT"):
            self.seen.clear()
            answer = await self.get("/v1/files/x", method=method)
            assert self.seen == [Origin(answer["X-Request-ID"], "user")] * 3

    async def test_a_public_request(self) -> None:
        """Where nobody has to say who it is there is no user."""
        await self.serve(self.behaviour)
        answer = await self.get("/download/token")
        assert self.seen[0] == Origin(answer["X-Request-ID"], "")

    async def test_what_a_user_says(self) -> None:
        """A user can't make it somebody else's."""
        await self.serve(self.behaviour)
        claimed = {**KEY, "X-CallFS-Request-ID": "0123456789abcdef", "X-CallFS-User": "root"}
        answer = await self.get("/v1/files/x", claimed)
        assert self.seen[0] == Origin(answer["X-Request-ID"], "user")

    async def test_one_after_the_other(self) -> None:
        """On one connection each request is its own."""
        await self.serve(self.behaviour)

        def client(wire: Wire) -> list[str]:
            ids = []
            for _ in range(3):
                wire.send_request("GET", "/v1/files/x", KEY)
                ids.append(wire.read_answer()["X-Request-ID"])
            return ids

        ids = await self.talk(client)
        assert [origin.request_id for origin in self.seen[::3] if origin is not None] == ids

    async def test_an_upgraded_connection(self) -> None:
        """What another protocol begins when it takes the connection over is done for the user, too."""
        seen = self.seen

        class Taker(Protocol):
            def connectionMade(self) -> None:
                seen.append(tracing.current())
                self.transport.loseConnection()  # type: ignore[union-attr]

        class Upgrader:
            def authorization(self, headers: Mapping[str, str]) -> str | None:
                """As any other request."""
                return headers.get("authorization")

            async def upgrade(self, request: Request) -> Upgraded:
                """Everything."""
                seen.append(Origin(request.request_id, request.principal.user))
                return Upgraded(protocol=Taker())

        await self.serve(self.behaviour, upgrade=Upgrader())

        def client(wire: Wire) -> None:
            handshake = {**KEY, "Connection": "Upgrade", "Upgrade": "websocket"}
            wire.send_request("GET", "/v1/files/ws/x", handshake)
            wire.ends()

        await self.talk(client)
        assert len(self.seen) == 2
        assert self.seen[0] == self.seen[1]
        assert self.seen[0] is not None
        assert self.seen[0].user == "user"
