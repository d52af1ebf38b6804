"""Taking nodes away and looking after second copies, over real HTTP and several nodes in one process."""

from __future__ import annotations

from typing import Any

from callfs.errors import MetadataUnavailable
from callfs.web.nodes import MAX_DRAIN_BATCH, MAX_SCAN_PAGE
from callfs.web.openapi import document
from callfs.web.timestamps import rfc3339
from tests.support.engine import NODE
from tests.support.nodes import NODES, S3, SECOND, THIRD
from tests.support.nodesite import API_KEY, NodeSiteCase

DRAIN, FORGET = "/v1/internal/nodes/drain", "/v1/internal/nodes/forget"
REPLICATION, SCAN = "/v1/internal/replication", "/v1/internal/replication/scan"
FILES = "/v1/internal/replication/files"
FILE_COUNT = 10


def copies_of(name: str) -> str:
    """Where a node's copies are counted."""
    return f"/v1/internal/nodes/{name}/copies"


class TestDrain(NodeSiteCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        for number in range(FILE_COUNT):
            await self.put_at(SECOND, f"/d/{number}", b"content %d" % number)

    async def whole_pass(self, **asking: Any) -> list[dict[str, Any]]:
        """Batch after batch to the end."""
        batches: list[dict[str, Any]] = []
        after: str | None = ""
        while after is not None:
            answer = await self.ask("POST", DRAIN, {"instance_id": SECOND, "limit": 4, "after": after, **asking})
            assert answer.status == 200
            batches.append(answer.json())
            after = batches[-1]["after"]
        return batches

    async def test_to_s3(self) -> None:
        """In batches, each saying what it did; afterwards nothing is there, and the files are whole."""
        assert (await self.ask("GET", copies_of(SECOND))).json() == {"copies": FILE_COUNT, "bytes": 90}
        batches = await self.whole_pass(to_s3=True)
        assert [batch["moved"] for batch in batches] == [4, 4, 2]
        assert [batch["bytes"] for batch in batches] == [36, 36, 18]
        assert all((batch["skipped"], batch["failed"]) == (0, []) for batch in batches)
        answer = await self.ask("GET", copies_of(SECOND))
        assert answer.json() == {"copies": 0, "bytes": 0}
        assert answer["Cache-Control"] == "no-store"
        self.network.down.add(SECOND)
        for number in range(FILE_COUNT):
            assert await self.places_of(f"/d/{number}") == [S3]
            assert await self.read_at(NODE, f"/d/{number}") == b"content %d" % number

    async def test_to_a_node(self) -> None:
        """All goes to the one that is named."""
        await self.whole_pass(to_instance=THIRD)
        assert await self.places_of("/d/3") == [self.on(THIRD)]

    async def test_to_all_others(self) -> None:
        """Without a target the others share it."""
        await self.whole_pass()
        places = {(await self.places_of(f"/d/{number}"))[0] for number in range(FILE_COUNT)}
        assert places <= {self.on(NODE), self.on(THIRD)}

    async def test_what_cannot_be_moved(self) -> None:
        """It is named with its reason, and the rest goes on."""
        self.network.down.add(SECOND)
        (batch, *_) = await self.whole_pass(to_s3=True)
        assert (batch["moved"], len(batch["failed"])) == (0, 4)
        assert batch["failed"][0]["path"].startswith("/d/")
        assert batch["failed"][0]["reason"]

    async def test_mistyped(self) -> None:
        """An unknown node isn't taken for an empty one, nor an unknown target for anything; nothing is moved."""
        for method, target, body in (
            ("GET", copies_of("node-9"), None),
            ("POST", DRAIN, {"instance_id": "node-9"}),
            ("POST", FORGET, {"instance_id": "node-9"}),
        ):
            answer = await self.ask(method, target, body)
            answer.refused(404, "NOT_FOUND")
            assert f"known are {', '.join(NODES)}" in answer.json()["message"]
        refused: tuple[Any, ...] = (
            b"",
            {},
            {"instance_id": SECOND, "to_instance": "node-9"},
            {"instance_id": SECOND, "to_instance": SECOND},
            {"instance_id": SECOND, "to_instance": THIRD, "to_s3": True},
            {"instance_id": SECOND, "to": THIRD},
            {"instance_id": SECOND, "limit": 0},
            {"instance_id": SECOND, "limit": MAX_DRAIN_BATCH + 1},
        )
        for wrong in refused:
            (await self.ask("POST", DRAIN, wrong)).refused(400, "BAD_REQUEST")
        assert (await self.ask("GET", copies_of(SECOND))).json()["copies"] == FILE_COUNT


class TestForget(NodeSiteCase):
    async def test_an_empty_node(self) -> None:
        """It isn't known any more, and what waited to be deleted on its disk is forgotten."""
        await self.put_at(SECOND, "/gone")
        (await self.ask("POST", DRAIN, {"instance_id": SECOND, "to_s3": True}))
        answer = await self.ask("POST", FORGET, {"instance_id": SECOND})
        assert (answer.status, answer.json()) == (200, {"status": "forgotten", "garbage": 1})
        assert [instance.id for instance in await self.store.instances()] == [NODE, THIRD]

    async def test_one_that_runs(self) -> None:
        """It isn't forgotten, because it would be back at once, unless that is asked for."""
        await self.register(SECOND, "1" * 32, silent_seconds=20.0)
        answer = await self.ask("POST", FORGET, {"instance_id": SECOND})
        answer.refused(409, "CONFLICT")
        assert "node-2 gave a sign of life 20 s ago" in answer.json()["message"]
        assert (await self.ask("POST", FORGET, {"instance_id": SECOND, "force": True})).status == 200

    async def test_refused(self) -> None:
        """A node that holds files isn't forgotten, nor is the one that is asked."""
        await self.put_at(SECOND, "/there")
        (await self.ask("POST", FORGET, {"instance_id": SECOND})).refused(409, "CONFLICT")
        (await self.ask("POST", FORGET, {"instance_id": NODE})).refused(400, "BAD_REQUEST")
        assert len(await self.store.instances()) == len(NODES)


class TestReplication(NodeSiteCase):
    options = {"replica_backend": "s3"}

    async def test_status(self) -> None:
        """Where copies go, and what waits, by node."""
        assert (await self.ask("GET", REPLICATION)).json() == {"replica_backend": "s3", "backlog": []}
        await self.put_at(NODE, "/a")
        await self.put_at(SECOND, "/b")
        backlog = (await self.ask("GET", REPLICATION)).json()["backlog"]
        assert backlog == [
            {"instance_id": name, "waiting": 1, "failing": 0, "oldest_queued_at": rfc3339(self.now())}
            for name in (NODE, SECOND)
        ]

    async def test_scan(self) -> None:
        """Pages over all files: what lacks its copy is counted, and queued when that is asked for."""
        older = self.make_node(NODE, settings=self.settings(NODE, replica_backend=None))
        self.nodes[NODE] = older
        for number in range(5):
            await self.put_at(NODE, f"/d/{number}")
        assert (await self.ask("GET", FILES)).json() == {"files": 5}
        assert await self.scanned() == {"files": 5, "lacking": 5, "queued": 0}
        assert await self.scanned(queue=True) == {"files": 5, "lacking": 5, "queued": 5}
        backlog = (await self.ask("GET", REPLICATION)).json()["backlog"]
        assert [(each["instance_id"], each["waiting"]) for each in backlog] == [(NODE, 5)]

    async def scanned(self, **asking: Any) -> dict[str, int]:
        """All pages together."""
        totals = {"files": 0, "lacking": 0, "queued": 0}
        after: str | None = ""
        while after is not None:
            page = (await self.ask("POST", SCAN, {"after": after, "limit": 2, **asking})).json()
            after = page.pop("after")
            totals = {name: count + page[name] for name, count in totals.items()}
        return totals

    async def test_limits(self) -> None:
        """A page has a size."""
        for limit in (0, -1, MAX_SCAN_PAGE + 1, "many"):
            (await self.ask("POST", SCAN, {"limit": limit})).refused(400, "BAD_REQUEST")

    async def test_a_silent_store(self) -> None:
        """503 when it doesn't answer, as everywhere."""
        self.store.steps.fail("walk", MetadataUnavailable("no answer"))
        (await self.ask("POST", SCAN, {})).refused(503, "METADATA_UNAVAILABLE")


class TestAccess(NodeSiteCase):
    async def test_credentials(self) -> None:
        """The internal secret alone opens them, and users aren't told of them."""
        routes = (
            ("GET", copies_of(SECOND)),
            ("POST", DRAIN),
            ("POST", FORGET),
            ("GET", REPLICATION),
            ("POST", SCAN),
        )
        for method, target in (*routes, ("GET", FILES)):
            for key in (None, API_KEY, "not-the-internal-secret"):
                (await self.ask(method, target, {} if method == "POST" else None, key)).refused(
                    401, "AUTHENTICATION_FAILED"
                )
        assert document(self.site.table, "http://files.example")["paths"] == {}
