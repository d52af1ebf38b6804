"""The contract of metadata stores: what is on a node, and a node that was taken away."""

from __future__ import annotations

import msgspec

from callfs.errors import Conflict
from callfs.metadata.commands import ForgetInstance, RegisterInstance
from callfs.model import BlobRef, LocalPlacement, ReplicaOrder
from tests.contract.metadata_copies import OTHER, S3, CopiesTests
from tests.support.commands import NODE


class NodesOfCopiesContract(CopiesTests):
    """What is on a node: ``list_blobs(instance_id=)`` and ``ForgetInstance``."""

    async def known(self, *ids: str) -> None:
        """Nodes that have registered."""
        for instance_id in ids:
            await self.apply(
                RegisterInstance(
                    at=self.make.tick(), instance_id=instance_id, root_id=None, api_endpoint="http://x"
                )
            )

    async def names(self) -> list[str]:
        """The ids of all known nodes."""
        return [node.id for node in await self.store.instances()]

    def forget(self, instance_id: str) -> ForgetInstance:
        """A node is gone."""
        return ForgetInstance(at=self.make.tick(), instance_id=instance_id)

    async def test_what_is_on_one_node(self) -> None:
        """Its first copies and replicas, page by page, by id, with their paths; no other node's, and none in S3."""
        expected = {}
        places = ((NODE, S3), (OTHER, NODE), (LocalPlacement("node-10"),), (S3,), (NODE, OTHER))
        for number in range(40):
            _, blob = await self.file(f"/d/{number}", *places[number % len(places)])
            for copy in blob.copies():
                if copy.placement == NODE:
                    expected[copy.id] = (msgspec.structs.replace(copy, replicas=()), f"/d/{number}")
        found: list[tuple[BlobRef, str]] = []
        while page := await self.store.list_blobs(found[-1][0].id if found else "", 7, instance_id="node-1"):
            found += page
        assert found == [expected[blob_id] for blob_id in sorted(expected)]
        assert await self.store.list_blobs(instance_id="node") == []
        assert len(await self.store.list_blobs(instance_id="node-10")) == 8

    async def test_a_node_is_emptied(self) -> None:
        """Relocated and removed files aren't on it any more."""
        one, blob = await self.file("/1")
        await self.file("/2")
        await self.file("/3/f")
        await self.apply(self.make.relocate(one, self.make.copy_of(blob, OTHER)))
        await self.apply(self.make.remove("/2"))
        await self.apply(self.make.remove("/3", recursive=True))
        assert await self.store.list_blobs(instance_id="node-1") == []
        assert [path for _, path in await self.store.list_blobs(instance_id="node-2")] == ["/1"]

    async def test_a_node_is_forgotten(self) -> None:
        """It goes with the garbage on its disk; other nodes and their garbage stay."""
        await self.known("node-1", "node-2")
        for number, place in enumerate((NODE, NODE, OTHER, S3, S3)):
            await self.file(f"/{number}", place)
        for number in range(4):
            await self.apply(self.make.remove(f"/{number}"))
        assert (await self.apply(self.forget("node-1"))).count == 2
        assert await self.names() == ["node-2"]
        assert await self.garbage_ids() == set()
        assert len(await self.garbage_ids("localfs", "node-2")) == 1
        assert len(await self.garbage_ids("s3", None)) == 1
        assert (await self.store.statistics()).garbage == 2
        assert await self.store.verify() == []

    async def test_a_node_that_is_not_known(self) -> None:
        """It is no error, and what is on its disk goes all the same."""
        await self.known("node-2")
        assert (await self.apply(self.forget("node-1"))).count == 0
        await self.file("/f")
        await self.apply(self.make.remove("/f"))
        assert (await self.apply(self.forget("node-1"))).count == 1
        assert await self.names() == ["node-2"]

    async def test_a_node_that_has_a_copy(self) -> None:
        """A first copy or a replica on it: it isn't forgotten until that is gone."""
        await self.known("node-1", "node-2")
        inode, blob = await self.file("/f", OTHER, NODE)
        for name in ("node-1", "node-2"):
            await self.rejected(self.forget(name), Conflict)
        await self.apply(self.make.relocate(inode, msgspec.structs.replace(blob, replicas=())))
        assert (await self.apply(self.forget("node-1"))).count == 1
        await self.rejected(self.forget("node-2"), Conflict)
        assert await self.names() == ["node-2"]

    async def test_a_node_that_has_to_make_a_copy(self) -> None:
        """A replication that it shall make, or that leads to it, keeps it."""
        await self.known("node-1", "node-2", "node-3")
        await self.file("/f", S3, replicate=ReplicaOrder(OTHER, "node-1"))
        await self.rejected(self.forget("node-1"), Conflict)
        await self.rejected(self.forget("node-2"), Conflict)
        await self.apply(self.forget("node-3"))
        await self.apply(self.make.remove("/f"))
        for name in ("node-1", "node-2"):
            assert (await self.apply(self.forget(name))).count == 0
        assert await self.names() == []
