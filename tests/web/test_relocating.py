"""PATCH with ``backend`` and ``instance``, and files of other nodes, as a client sees them."""

from __future__ import annotations

from tests.support.engine import ADMIN, BOB, NODE
from tests.support.nodes import S3, SECOND, THIRD, NodesCase
from tests.support.routes import Answer, RouteCase


class RelocatingCase(RouteCase, NodesCase):
    backend_names = ("localfs", "s3")

    async def patch(self, path: str, change: dict[str, object], **options: object) -> Answer:
        """PATCH a file or directory."""
        return await self.send("PATCH", f"/v1/files{path}", change, **options)  # type: ignore[arg-type]

    async def head(self, path: str) -> tuple[str, str]:
        """Backend and instance as HEAD names them."""
        headers = (await self.send("HEAD", f"/v1/files{path}")).headers
        return headers["X-CallFS-Backend"], headers["X-CallFS-Instance-ID"]


class TestRelocating(RelocatingCase):
    async def test_a_file(self) -> None:
        """With a new name, with an old one, or with none: the bytes go where they are asked for."""
        await self.put_at(SECOND, "/a", b"content")
        assert await self.head("/a") == ("localfs", SECOND)
        answer = await self.patch("/a", {"backend": "s3"})
        assert (answer.status, answer.json()) == (200, {"path": "/a"})
        assert await self.head("/a") == ("s3", NODE)
        for change, path, place in (
            ({"instance": THIRD}, "/a", ("localfs", THIRD)),
            ({"destination": "/a", "backend": "localfs", "instance": SECOND}, "/a", ("localfs", SECOND)),
            ({"name": "b", "backend": "s3", "instance": SECOND}, "/b", ("s3", NODE)),
            ({"destination": "/d/c", "backend": "localfs", "create_parents": True}, "/d/c", ("localfs", NODE)),
        ):
            answer = await self.patch(await self.only_file(), change)
            assert (answer.status, answer.json()) == (200, {"path": path})
            assert await self.head(path) == place
            assert (await self.send("GET", f"/v1/files{path}")).body == b"content"

    async def only_file(self) -> str:
        """The path of the one file that there is."""
        (path,) = [inode.path for inode in await self.store.walk("/") if not inode.is_directory]
        return path

    async def test_a_tree(self) -> None:
        """A directory with all that is in it; repeated in its place there is nothing left to relocate."""
        for number in range(3):
            await self.put_at(SECOND, f"/d/{number}")
        assert (await self.patch("/d", {"backend": "s3"})).status == 200
        assert (await self.patch("/d", {"backend": "s3"})).code == "BAD_REQUEST"
        assert (await self.patch("/d", {"name": "e", "instance": THIRD})).status == 200
        assert [await self.places_of(f"/e/{number}") for number in range(3)] == [[self.on(THIRD)]] * 3

    async def test_the_tag_stays(self) -> None:
        """A relocation changes neither tag nor modification time, and If-Match holds on."""
        await self.put_at(SECOND, "/a")
        before = (await self.send("HEAD", "/v1/files/a")).headers
        answer = await self.patch("/a", {"backend": "s3"}, headers={"if-match": before["ETag"]})
        assert (answer.status, answer.headers["ETag"]) == (200, before["ETag"])
        after = (await self.send("HEAD", "/v1/files/a")).headers
        assert after["Last-Modified"] == before["Last-Modified"]
        assert (await self.patch("/a", {"instance": SECOND}, headers={"if-match": '"x"'})).status == 412

    async def test_refusals(self) -> None:
        """Unknown places, what is there already, what isn't one's own."""
        await self.put_at(SECOND, "/a")
        await self.put_at(SECOND, "/b")
        for change in ({"backend": "tape"}, {"backend": "erasure"}, {"instance": "node-9"}, {"instance": SECOND}):
            assert (await self.patch("/a", change)).code == "BAD_REQUEST"
        assert (await self.patch("/a", {"backend": "s3"}, principal=BOB)).code == "PERMISSION_DENIED"
        assert (await self.patch("/a", {"backend": "s3", "name": "b"})).code == "FILE_ALREADY_EXISTS"
        assert (await self.patch("/a", {"backend": "s3", "name": "b", "overwrite": True})).status == 200
        assert await self.places_of("/b") == [S3]

    async def test_out_of_reach(self) -> None:
        """A node that is down: 503, with Retry-After, and the file is as it was."""
        await self.put_at(SECOND, "/a")
        self.network.down.add(THIRD)
        answer = await self.patch("/a", {"instance": THIRD, "name": "b"})
        assert (answer.status, answer.code) == (503, "PEER_UNAVAILABLE")
        assert "Retry-After" in answer.headers
        assert await self.head("/a") == ("localfs", SECOND)

    async def test_the_owner_stays(self) -> None:
        """An administrator relocates for others, who keep what is theirs."""
        await self.put_at(SECOND, "/a", principal=BOB)
        assert (await self.patch("/a", {"backend": "s3"}, principal=ADMIN)).status == 200
        assert (await self.send("HEAD", "/v1/files/a")).headers["X-CallFS-Owner"] == "bob"


class TestWithoutADisk(RelocatingCase):
    backend_names = ("s3",)

    async def test_another_s_disk(self) -> None:
        """A node that has no disk of its own can't take bytes there, but can bring them to another's."""
        await self.put_at(SECOND, "/a")
        for change in ({"backend": "localfs"}, {"backend": "localfs", "instance": NODE}):
            assert (await self.patch("/a", change)).code == "BAD_REQUEST"
        assert (await self.patch("/a", {"backend": "localfs", "instance": THIRD})).status == 200
        assert await self.head("/a") == ("localfs", THIRD)


class TestOtherNodes(RelocatingCase):
    async def test_created_where_another_node_has_it(self) -> None:
        """409 says which node has what is there, and where to update it."""
        await self.put_at(SECOND, "/a")
        answer = await self.send("POST", "/v1/files/a", b"new")
        assert answer.status == 409
        assert answer.json()["instance_id"] == SECOND
        assert answer.json()["update_url"] == f"https://{SECOND}.example/v1/files/a"

    async def test_created_on_s3(self) -> None:
        """The request says where a new file goes, the header before the query; a replaced one stays."""
        for target, headers in (("/v1/files/a?backend=s3", {}), ("/v1/files/b", {"x-callfs-backend": "s3"})):
            assert (await self.send("POST", target, b"x", headers)).status == 201
        assert await self.head("/a") == await self.head("/b") == ("s3", NODE)
        assert (await self.send("PUT", "/v1/files/a?backend=localfs", b"y")).status == 200
        assert await self.head("/a") == ("s3", NODE)

    async def test_replaced_and_deleted_through_another(self) -> None:
        """PUT, GET with ranges, and DELETE work on files that another node has."""
        await self.put_at(SECOND, "/a", b"old")
        assert (await self.send("PUT", "/v1/files/a", b"new content")).status == 200
        assert await self.head("/a") == ("localfs", SECOND)
        part = await self.send("GET", "/v1/files/a", headers={"range": "bytes=4-"})
        assert (part.status, part.body) == (206, b"content")
        assert (await self.send("DELETE", "/v1/files/a")).status == 204

    async def test_holder_is_down(self) -> None:
        """While the holder is down: HEAD and listings answer, GET and PUT are 503, DELETE and renames work."""
        await self.put_at(SECOND, "/d/a")
        self.network.down.add(SECOND)
        assert await self.head("/d/a") == ("localfs", SECOND)
        assert (await self.send("GET", "/v1/files/d/")).json()[0]["instance_id"] == SECOND
        for method in ("GET", "PUT"):
            answer = await self.send(method, "/v1/files/d/a", b"x" if method == "PUT" else b"")
            assert (answer.status, answer.code) == (503, "PEER_UNAVAILABLE")
        assert (await self.patch("/d/a", {"name": "b"})).status == 200
        assert (await self.send("DELETE", "/v1/files/d/b")).status == 204
