"""The contract of metadata stores: links, garbage, the sweep's condemnations, and nodes."""

from __future__ import annotations

from callfs.errors import Conflict, FileNotFound, LinkExpired, LinkNotFound, LinkUsed, NotAFile
from callfs.metadata.commands import Condemn, DropGarbage, ForgetCondemned, PurgeLinks, RegisterInstance
from callfs.model import Instance, LocalPlacement, S3Placement
from tests.contract.metadata_base import StoreTests
from tests.support.commands import HOUR


class LinkContract(StoreTests):
    """``IssueLink``, ``ConsumeLink``, ``PurgeLinks``."""

    async def test_a_link_is_stored_as_issued(self) -> None:
        """Anybody may issue a link for any file; it comes back with everything it has."""
        inode = (await self.apply(self.make.create("/f", "bob"))).inode
        command = self.make.issue_link(inode, "alice")
        link = await self.apply(command)
        assert link == await self.store.get_link(command.token_hash)
        assert (link.inode_id, link.created_by, link.created_at) == (inode.id, "alice", command.at)
        assert (link.expires_at, link.used_at) == (command.expires_at, None)

    async def test_a_link_needs_its_file(self) -> None:
        """No file, another file by now, a directory: refused."""
        inode = (await self.apply(self.make.create("/f"))).inode
        directory = (await self.apply(self.make.make_directory("/d"))).inode
        await self.refused(self.make.issue_link(inode, path="/x"), FileNotFound)
        await self.refused(self.make.issue_link(inode, path="/f/x"), FileNotFound)
        await self.refused(self.make.issue_link(inode, inode_id="0" * 31 + "1"), FileNotFound)
        await self.refused(self.make.issue_link(directory), NotAFile)

    async def test_a_token_is_issued_once(self) -> None:
        """The same hash again is a conflict and doesn't renew the link."""
        inode = (await self.apply(self.make.create("/f"))).inode
        link = await self.apply(self.make.issue_link(inode))
        await self.refused(self.make.issue_link(inode, token_hash=link.token_hash), Conflict)
        assert await self.store.get_link(link.token_hash) == link

    async def test_a_link_works_once(self) -> None:
        """The first use succeeds, the second is told that it was used."""
        link = await self.apply(self.make.issue_link((await self.apply(self.make.create("/f"))).inode))
        command = self.make.consume_link(link.token_hash)
        used = await self.apply(command)
        assert used.used_at == command.at
        assert await self.store.get_link(link.token_hash) == used
        await self.refused(self.make.consume_link(link.token_hash), LinkUsed)
        assert await self.store.get_link(link.token_hash) == used

    async def test_an_expired_link(self) -> None:
        """At the instant of its expiry a link is over, used or not."""
        link = await self.apply(self.make.issue_link((await self.apply(self.make.create("/f"))).inode))
        await self.refused(self.make.consume_link(link.token_hash, at=link.expires_at), LinkExpired)
        await self.apply(self.make.consume_link(link.token_hash, at=link.expires_at - 1))
        await self.refused(self.make.consume_link(link.token_hash, at=link.expires_at), LinkExpired)

    async def test_an_unknown_link(self) -> None:
        """A hash that nobody stored is not found."""
        assert await self.store.get_link(b"x" * 32) is None
        await self.refused(self.make.consume_link(b"x" * 32), LinkNotFound)

    async def test_a_link_follows_its_file(self) -> None:
        """It follows a move and new content, and ends with the file, also when another takes the path."""
        inode = (await self.apply(self.make.create("/a/f"))).inode
        link = await self.apply(self.make.issue_link(inode))
        await self.apply(self.make.move("/a", "/b"))
        await self.apply(self.make.put("/b/f"))
        assert await self.store.get_link(link.token_hash) == link
        await self.apply(self.make.remove("/b/f"))
        await self.apply(self.make.create("/b/f"))
        await self.refused(self.make.consume_link(link.token_hash), LinkNotFound)

    async def test_old_links_are_forgotten(self) -> None:
        """Expired and long used links go, at most so many at once; others stay."""
        inode = (await self.apply(self.make.create("/f"))).inode
        links = [await self.apply(self.make.issue_link(inode)) for _ in range(6)]
        for link in links[:3]:
            await self.apply(self.make.consume_link(link.token_hash))
        used_before = self.make.now
        expired_before = links[4].expires_at
        purge = PurgeLinks(
            at=self.make.tick(), expired_before_at=expired_before, used_before_at=used_before, limit=3
        )
        # Used earlier than the instant: links 0 and 1; expired earlier: 0 to 3.
        assert (await self.apply(purge)).count == 3
        assert (await self.apply(purge)).count == 1
        assert (await self.apply(purge)).count == 0
        left = [await self.store.get_link(link.token_hash) for link in links]
        assert [link is not None for link in left] == [False] * 4 + [True] * 2


class GarbageContract(StoreTests):
    """The garbage queue."""

    async def test_entries_come_to_those_whom_they_concern(self) -> None:
        """A node gets what is on its disk, whoever tends S3 gets that."""
        for number, place in enumerate([LocalPlacement("a"), LocalPlacement("b"), S3Placement()]):
            await self.apply(self.make.create(f"/{number}", blob=self.make.blob(1, place)))
            await self.apply(self.make.remove(f"/{number}", garbage_not_before_at=self.make.now))
        for kind, instance, place in (
            ("localfs", "a", LocalPlacement("a")),
            ("localfs", "b", LocalPlacement("b")),
            ("s3", None, S3Placement()),
        ):
            entries = await self.store.garbage(self.make.now + HOUR, kind, instance)
            assert [entry.blob.placement for entry in entries] == [place]
        assert await self.store.garbage(self.make.now + HOUR, "localfs", "c") == []

    async def test_nothing_is_lost_and_nothing_comes_twice(self) -> None:
        """Taken page by page while more comes in, the queue gives each blob exactly once, oldest first."""
        made: list[str] = []
        taken: list[str] = []
        for number in range(120):
            written = await self.apply(self.make.create(f"/{number}"))
            assert written.inode.blob is not None
            made.append(written.inode.blob.id)
            await self.apply(self.make.remove(f"/{number}"))
            if number % 3 == 0:
                page = await self.store.garbage(self.make.now, "localfs", "node-1", 2)
                taken += [entry.blob.id for entry in page]
                await self.apply(DropGarbage(at=self.make.tick(), ids=tuple(entry.id for entry in page)))
        while page := await self.store.garbage(self.make.now, "localfs", "node-1", 50):
            taken += [entry.blob.id for entry in page]
            await self.apply(DropGarbage(at=self.make.tick(), ids=tuple(entry.id for entry in page)))
        assert taken == made

    async def test_dropping_what_is_not_there(self) -> None:
        """Ids that are gone, or never were, are no error and aren't counted."""
        await self.apply(self.make.create("/f"))
        await self.apply(self.make.remove("/f"))
        (entry,) = await self.store.garbage(self.make.now, "localfs", "node-1")
        assert (await self.apply(DropGarbage(at=self.make.tick(), ids=(entry.id, 999_999)))).count == 1
        assert (await self.apply(DropGarbage(at=self.make.tick(), ids=(entry.id,)))).count == 0
        assert (await self.apply(DropGarbage(at=self.make.tick(), ids=()))).count == 0

    async def test_ids_are_never_used_again(self) -> None:
        """A late drop of an entry never takes another one: its id isn't given again."""
        await self.apply(self.make.create("/f"))
        await self.apply(self.make.remove("/f"))
        (first,) = await self.store.garbage(self.make.now, "localfs", "node-1")
        await self.apply(DropGarbage(at=self.make.tick(), ids=(first.id,)))
        await self.apply(self.make.create("/f"))
        await self.apply(self.make.remove("/f"))
        (second,) = await self.store.garbage(self.make.now, "localfs", "node-1")
        assert second.id != first.id


class SweepContract(StoreTests):
    """Named, condemned and listed blobs."""

    async def test_named_blobs(self) -> None:
        """A blob, a replica, and what is in the garbage queue are named; others aren't."""
        blob = self.make.replicated_blob(S3Placement(), LocalPlacement("x"))
        await self.apply(self.make.create("/f", blob=blob))
        gone = (await self.apply(self.make.create("/g"))).inode.blob
        assert gone is not None
        await self.apply(self.make.remove("/g"))
        stray = self.make.blob().id
        named = {blob.id, blob.replicas[0].id, gone.id}
        assert await self.store.named_blobs([*named, stray]) == named
        assert await self.store.named_blobs([]) == frozenset()

    async def test_condemning(self) -> None:
        """Unnamed blobs are condemned, named and queued ones left out; a second time changes nothing."""
        named = (await self.apply(self.make.create("/f"))).inode.blob
        queued = (await self.apply(self.make.create("/g"))).inode.blob
        assert named is not None
        assert queued is not None
        await self.apply(self.make.remove("/g"))
        strays = sorted(self.make.blob().id for _ in range(3))
        at = self.make.tick()
        condemned = await self.apply(Condemn(at=at, blob_ids=(*strays, named.id, queued.id)))
        assert set(condemned.ids) == set(strays)
        again = await self.apply(Condemn(at=self.make.tick(), blob_ids=tuple(strays[:2])))
        assert set(again.ids) == set(strays[:2])
        assert list(await self.store.condemned_blobs(at)) == []
        assert list(await self.store.condemned_blobs(at + 1)) == strays
        assert list(await self.store.condemned_blobs(at + 1, strays[0], 1)) == [strays[1]]

    async def test_forgetting_condemnations(self) -> None:
        """Older condemnations are forgotten, younger ones stay."""
        old, young = self.make.blob().id, self.make.blob().id
        await self.apply(Condemn(at=self.make.tick(), blob_ids=(old,)))
        at = self.make.tick()
        await self.apply(Condemn(at=at, blob_ids=(young,)))
        assert (await self.apply(ForgetCondemned(at=self.make.tick(), before_at=at))).count == 1
        assert list(await self.store.condemned_blobs(self.make.now)) == [young]

    async def test_all_blobs_are_listed(self) -> None:
        """Every copy of every file once, by id, with its path; garbage isn't among them."""
        expected = {}
        for number in range(30):
            blob = self.make.replicated_blob(LocalPlacement("a"), S3Placement())
            await self.apply(self.make.create(f"/{number}", blob=blob))
            first = type(blob)(blob.id, blob.size, blob.sha256, blob.placement)
            expected |= {copy.id: (copy, f"/{number}") for copy in (first, *blob.replicas)}
        await self.apply(self.make.create("/gone"))
        await self.apply(self.make.remove("/gone"))
        found = []
        while page := await self.store.list_blobs(found[-1][0].id if found else "", 7):
            found += page
        assert found == [expected[blob_id] for blob_id in sorted(expected)]


class InstanceContract(StoreTests):
    """``RegisterInstance``."""

    def register(self, instance_id: str, root_id: str | None, **fields: bool) -> RegisterInstance:
        """A heartbeat."""
        return RegisterInstance(
            at=self.make.tick(), instance_id=instance_id, root_id=root_id, api_endpoint="http://x", **fields
        )

    async def test_nodes_are_written_down(self) -> None:
        """Every node is known with its last heartbeat."""
        await self.apply(self.register("b", None))
        await self.apply(self.register("a", "r1"))
        await self.apply(self.register("a", "r1"))
        last = self.make.now
        found = {node.id: node for node in await self.store.instances()}
        assert set(found) == {"a", "b"}
        assert found["a"] == Instance("a", "r1", "http://x", last)

    async def test_another_root_folder_is_refused(self) -> None:
        """An id with another root folder is a conflict, unless it shall be replaced."""
        await self.apply(self.register("a", "r1"))
        await self.refused(self.register("a", "r2"), Conflict)
        await self.apply(self.register("a", "r2", replace_root=True))
        (node,) = await self.store.instances()
        assert node.root_id == "r2"

    async def test_a_node_without_a_disk_does_not_make_its_root_forgotten(self) -> None:
        """A node that comes without a local backend may come back with its old root folder, and no other."""
        await self.apply(self.register("a", "r1"))
        await self.apply(self.register("a", None))
        await self.refused(self.register("a", "r2"), Conflict)
        await self.apply(self.register("a", "r1"))
