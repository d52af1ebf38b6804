"""The internal routes of the metadata cluster, over real HTTP."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from callfs.cluster.interfaces import Applied, ChangeRefused, ClusterStatus, IReplicator, Membership
from callfs.errors import MetadataUnavailable, OutcomeUnknown
from callfs.raft.boundary import PeerStatus, Role, Status
from callfs.raft.membership import Member
from callfs.web.cluster import ClusterResource
from tests.support.http import Answer
from tests.support.site import INTERNAL_KEY, SiteCase, hello

STATUS, JOIN = "/v1/internal/raft/status", "/v1/internal/raft/join"
REMOVE, TRANSFER = "/v1/internal/raft/remove", "/v1/internal/raft/transfer-leader"
ROUTES = (("GET", STATUS), ("POST", JOIN), ("POST", REMOVE), ("POST", TRANSFER))
JOINING = {"node_id": "n3", "raft_addr": "10.0.0.3:7000", "api_endpoint": "https://n3.example:8443"}

MEMBERS = (
    Member("n1", "disk-1", "10.0.0.1:7000", "https://n1.example:8443", True, 1),
    Member("n2", "disk-2", "10.0.0.2:7000", "", False, 2),
)


def core_status(**changes: Any) -> Status:
    """A leader with a learner."""
    values: dict[str, Any] = {
        "node_id": "n1",
        "role": Role.LEADER,
        "term": 7,
        "leader": "n1",
        "removed": False,
        "writable": True,
        "commit": 90,
        "applied": 89,
        "durable": 95,
        "last_index": 100,
        "first_index": 11,
        "log_bytes": 12_345,
        "leader_silent_ticks": 0,
        "transferring_to": None,
        "refused_conflicts": 0,
        "membership": Membership("c" * 32, MEMBERS),
        "peers": (
            PeerStatus(
                node_id="n2",
                voter=False,
                state="replicate",
                match=80,
                next_index=101,
                inflight=3,
                silent_ticks=4,
                other_disk=False,
            ),
        ),
    }
    return Status(**{**values, **changes})


@implementer(IReplicator)
class Part:
    """A node's part in a cluster: what it was asked, and what becomes of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.refusal: Exception | None = None
        self.raft = core_status()
        self.open = True

    def propose(self, command: bytes, version: int = 1) -> Deferred[Applied]:
        """See :class:`IReplicator`."""
        return fail(MetadataUnavailable("no majority"))

    def read_barrier(self) -> Deferred[int]:
        """See :class:`IReplicator`."""
        return fail(MetadataUnavailable("no majority"))

    def status(self) -> ClusterStatus:
        """See :class:`IReplicator`."""
        if not self.open:
            raise MetadataUnavailable("this node isn't part of a metadata cluster yet")
        return ClusterStatus("c" * 32, "disk-1", self.raft, "", False, ("n2",))

    def membership(self) -> Membership:
        """See :class:`IReplicator`."""
        return self.raft.membership

    def join(self, node_id: str, raft_address: str, api_endpoint: str = "") -> Deferred[Membership]:
        """See :class:`IReplicator`."""
        return self._answer(self.membership(), "join", node_id, raft_address, api_endpoint)

    def remove(self, node_id: str) -> Deferred[Membership]:
        """See :class:`IReplicator`."""
        return self._answer(self.membership(), "remove", node_id)

    def transfer(self, node_id: str) -> Deferred[None]:
        """See :class:`IReplicator`."""
        return self._answer(None, "transfer", node_id)

    def _answer(self, result: Any, *asked: str) -> Deferred[Any]:
        self.asked.append(asked)
        return succeed(result) if self.refusal is None else fail(self.refusal)


class ClusterRoutesCase(SiteCase):
    """Serves the routes over a twin of the cluster."""

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.part = Part()
        await self.serve(hello, resources=[ClusterResource(self.part, 0.05)])

    async def ask_route(
        self, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """One request; a body that is no bytes goes as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {**INTERNAL_KEY, **(headers or {}), "Host": "x", "Content-Length": str(len(data))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return await self.ask(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + data, method)


class TestRoutes(ClusterRoutesCase):
    async def test_the_twin_is_one(self) -> None:
        """What these tests stand on."""
        assert verifyObject(IReplicator, self.part)

    async def test_join(self) -> None:
        """The node's addresses reach the cluster; the answer names the leader."""
        answer = await self.ask_route("POST", JOIN, JOINING)
        assert (answer.status, answer.json()) == (200, {"status": "joined", "leader_id": "n1"})
        assert self.part.asked == [("join", *JOINING.values())]

    async def test_join_without_an_api(self) -> None:
        """Where the API's URL isn't given the node itself says it."""
        assert (await self.ask_route("POST", JOIN, {"node_id": "n3", "raft_addr": "[::1]:7000"})).status == 200
        assert self.part.asked == [("join", "n3", "[::1]:7000", "")]

    async def test_remove(self) -> None:
        """A node is removed."""
        answer = await self.ask_route("POST", REMOVE, {"node_id": "n2"})
        members = sorted(member.node_id for member in self.part.membership().members)
        said = {"status": "removed", "leader_id": "n1", "members": members}
        assert (answer.status, answer.json()) == (200, said)
        assert self.part.asked == [("remove", "n2")]

    async def test_transfer(self) -> None:
        """The leadership is handed over."""
        answer = await self.ask_route("POST", TRANSFER, {"node_id": "n2"})
        assert (answer.status, answer.json()) == (200, {"status": "transferred", "leader_id": "n2"})
        assert self.part.asked == [("transfer", "n2")]

    async def test_status(self) -> None:
        """All that the node knows, silence in seconds."""
        answer = await self.ask_route("GET", STATUS)
        assert answer.status == 200
        assert answer["Cache-Control"] == "no-store"
        assert answer.json() == {
            "node_id": "n1",
            "cluster_id": "c" * 32,
            "disk_id": "disk-1",
            "role": "leader",
            "term": 7,
            "leader_id": "n1",
            "leader_silent_seconds": 0.0,
            "removed": False,
            "writable": True,
            "disk_full": False,
            "stopped_because": "",
            "first_index": 11,
            "last_index": 100,
            "durable_index": 95,
            "commit_index": 90,
            "applied_index": 89,
            "log_bytes": 12_345,
            "transferring_to": None,
            "refused_conflicts": 0,
            "connected": ["n2"],
            "members": [
                {
                    "node_id": "n1",
                    "voter": True,
                    "raft_addr": "10.0.0.1:7000",
                    "api_endpoint": "https://n1.example:8443",
                    "disk_id": "disk-1",
                    "version": 1,
                },
                {
                    "node_id": "n2",
                    "voter": False,
                    "raft_addr": "10.0.0.2:7000",
                    "api_endpoint": "",
                    "disk_id": "disk-2",
                    "version": 2,
                },
            ],
            "peers": [
                {
                    "node_id": "n2",
                    "state": "replicate",
                    "match_index": 80,
                    "lag": 20,
                    "silent_seconds": 0.2,
                    "other_disk": False,
                }
            ],
        }

    async def test_before_the_daemon_is_ready(self) -> None:
        """All of them answer then, so that a node can join and say how it is; other routes don't."""
        self.site.ready = False
        self.part.raft = core_status(role=Role.FOLLOWER, leader=None, leader_silent_ticks=40, peers=())
        answer = await self.ask_route("GET", STATUS)
        assert (answer.status, answer.json()["leader_id"], answer.json()["leader_silent_seconds"]) == (
            200,
            None,
            2.0,
        )
        assert (await self.ask_route("POST", JOIN, JOINING)).json() == {"status": "joined", "leader_id": None}
        (await self.ask_route("GET", "/v1/internal/rafts")).refused(503, "SERVICE_UNAVAILABLE")
        (await self.ask_route("GET", "/v1/internal/blobs/x")).refused(503, "SERVICE_UNAVAILABLE")


class TestRefusals(ClusterRoutesCase):
    async def test_credentials(self) -> None:
        """The internal secret and nothing else opens them, ready or not."""
        for ready in (True, False):
            self.site.ready = ready
            for method, target in ROUTES:
                for credentials in ("", "Bearer user", "Bearer wrong"):
                    answer = await self.ask_route(method, target, None, {"Authorization": credentials})
                    answer.refused(401, "AUTHENTICATION_FAILED")
        assert self.part.asked == []

    async def test_refused_changes(self) -> None:
        """A change that the cluster refuses is 409, with its reason; the same for all three."""
        self.part.refusal = ChangeRefused("address_taken", "another node of the cluster has that raft address")
        for target, body in ((JOIN, JOINING), (REMOVE, {"node_id": "n2"}), (TRANSFER, {"node_id": "n2"})):
            answer = await self.ask_route("POST", target, body)
            answer.refused(409, "CONFLICT")
            assert answer.json() == {
                "code": "CONFLICT",
                "message": "another node of the cluster has that raft address",
                "reason": "address_taken",
            }

    async def test_without_a_leader(self) -> None:
        """503 when nothing has changed, 504 when that isn't known."""
        for error, status in ((MetadataUnavailable("no leader", 3), 503), (OutcomeUnknown("perhaps"), 504)):
            self.part.refusal = error
            for target, body in ((JOIN, JOINING), (REMOVE, {"node_id": "n2"}), (TRANSFER, {"node_id": "n2"})):
                (await self.ask_route("POST", target, body)).refused(status, error.code)
        self.part.open = False
        answer = await self.ask_route("GET", STATUS)
        answer.refused(503, "METADATA_UNAVAILABLE")
        assert answer["Retry-After"] == "1"

    async def test_bodies(self) -> None:
        """What can't be a node, an address or a URL is 400, and asks the cluster for nothing."""
        for body in (
            b"",
            b"[]",
            b"{",
            {},
            {"node_id": "n3"},
            {**JOINING, "voter": True},
            {**JOINING, "node_id": ""},
            {**JOINING, "node_id": "a/b"},
            {**JOINING, "node_id": "n" * 65},
            {**JOINING, "node_id": 3},
            {**JOINING, "raft_addr": "7000"},
            {**JOINING, "raft_addr": ":7000"},
            {**JOINING, "raft_addr": "n3:0"},
            {**JOINING, "raft_addr": "http://n3:7000"},
            {**JOINING, "raft_addr": "n3:70000"},
            {**JOINING, "raft_addr": "n" * 600 + ":7000"},
            {**JOINING, "api_endpoint": "n3:8443"},
            {**JOINING, "api_endpoint": "ftp://n3"},
            {**JOINING, "api_endpoint": "http://user@n3"},
            {**JOINING, "api_endpoint": "http://n3/?x=1"},
        ):
            (await self.ask_route("POST", JOIN, body)).refused(400, "BAD_REQUEST")
        for target in (REMOVE, TRANSFER):
            for body in (b"", {}, {"node_id": "a b"}, {"node_id": "n2", "force": True}):
                (await self.ask_route("POST", target, body)).refused(400, "BAD_REQUEST")
        (await self.ask_route("POST", JOIN, b" " * 5000)).refused(413, "PAYLOAD_TOO_LARGE")
        assert self.part.asked == []

    async def test_methods(self) -> None:
        """Each route has one."""
        for method, target in ROUTES:
            other = "POST" if method == "GET" else "GET"
            answer = await self.ask_route(other, target)
            answer.refused(405, "METHOD_NOT_ALLOWED")
            assert answer["Allow"] == method


class TestWithoutRaft(ClusterRoutesCase):
    async def test_a_node_without_raft(self) -> None:
        """It says so, on every route, with 404."""
        await self.serve(hello, resources=[ClusterResource(None)])
        for method, target in ROUTES:
            answer = await self.ask_route(method, target, JOINING if method == "POST" else None)
            answer.refused(404, "NOT_FOUND")
            assert "metadata_store.type isn't raft" in answer.json()["message"]
