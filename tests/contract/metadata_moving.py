"""The contract of metadata stores: what goes out in an export, and how an import makes it the same elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callfs.errors import BadRequest, Conflict, LinkUsed
from callfs.metadata.commands import Condemn, PostponeReplication, PurgeLinks, RegisterInstance
from callfs.metadata.importing import MOST_RECORDS, BeginImport, ClearImport, FinishImport, ImportRecords
from callfs.metadata.interfaces import IMetadataStore, UnfinishedImport
from callfs.metadata.transfer import (
    CondemnedRecord,
    GarbageRecord,
    InodeRecord,
    InstanceRecord,
    LinkRecord,
    Record,
    ReplicationRecord,
)
from callfs.model import ROOT_INODE, LocalPlacement, ReplicaOrder, S3Placement
from tests.contract.metadata_base import StoreTests, failure
from tests.support.commands import ADMIN, HOUR, TO_S3

ODD_NAMES = ("*", "%", "_", "[a]", "'", '"', "a", "A", "a!", "a0", "é", "e\u0301", "007", "\u2028", "😀", "x" * 255)
KINDS = (InodeRecord, LinkRecord, GarbageRecord, CondemnedRecord, InstanceRecord, ReplicationRecord)


async def exported(store: IMetadataStore) -> list[Record]:
    """All records of a store."""
    found: list[Record] = []
    await store.export(found.extend)
    return found


class MovingContract(StoreTests):
    """``export``, ``BeginImport``, ``ImportRecords``, ``ClearImport``, ``FinishImport``."""

    async def fill(self) -> None:
        """Something of everything, in every state it can be in."""
        for name in ODD_NAMES:
            await self.apply(self.make.create(f"/{name}/{name}", blob=self.make.replicated_blob(S3Placement())))
        await self.apply(self.make.change("/*/*", ADMIN, mode=0o600, mtime=-1_000_001))
        replicated = self.make.replicated_blob(LocalPlacement("node-1"), S3Placement(), LocalPlacement("node-2"))
        written = await self.apply(self.make.create("/deep/er/file", content_type=None, blob=replicated))
        links = [await self.apply(self.make.issue_link(written.inode)) for _ in range(3)]
        await self.apply(self.make.consume_link(links[1].token_hash))
        await self.apply(self.make.put("/deep/er/file"))
        await self.apply(self.make.put("/deep/er/file", blob=self.make.blob(2**40)))
        strays = tuple(self.make.blob().id for _ in range(3))
        await self.apply(Condemn(at=self.make.tick(), blob_ids=strays[:2]))
        await self.apply(Condemn(at=self.make.tick(), blob_ids=strays[2:]))
        orders = (TO_S3, ReplicaOrder(LocalPlacement("node-2"), "node-2"), TO_S3)
        queued = [self.make.create(f"/queued/{n}", replicate=order) for n, order in enumerate(orders)]
        await self.apply_all(*queued)
        await self.apply(
            PostponeReplication(at=self.make.tick(), blob_id=queued[0].blob.id, due_at=self.make.now + HOUR)
        )
        for name, root in (("node-2", None), ("node-1", "1" * 32)):
            await self.apply(
                RegisterInstance(at=self.make.tick(), instance_id=name, root_id=root, api_endpoint="http://x")
            )

    async def begin(self, store: IMetadataStore, **fields: Any) -> str:
        """Begin an import; its id."""
        import_id = self.make.token_bytes(16).hex()
        await store.apply(BeginImport(at=self.make.tick(), import_id=import_id, **fields))
        return import_id

    async def bring_in(self, store: IMetadataStore, import_id: str, records: Sequence[Record]) -> None:
        """Import records."""
        await store.apply(ImportRecords(at=self.make.tick(), import_id=import_id, records=tuple(records)))

    async def finish(self, store: IMetadataStore, import_id: str, store_id: str) -> None:
        """Finish an import."""
        await store.apply(FinishImport(at=self.make.tick(), import_id=import_id, store_id=store_id))

    async def reopened(self, store: IMetadataStore) -> IMetadataStore:
        """The store, closed and opened again."""
        await store.close()
        await store.open()
        return store

    async def test_everything_is_exported(self) -> None:
        """Each thing once, group by group, inodes by their paths from the root on."""
        await self.fill()
        records = await exported(self.store)
        groups = [KINDS.index(type(record)) for record in records]
        assert groups == sorted(groups)
        inodes = [record.inode for record in records if isinstance(record, InodeRecord)]
        assert inodes == await self.everything()
        links = [record.link for record in records if isinstance(record, LinkRecord)]
        assert len(links) == 3
        assert [await self.store.get_link(link.token_hash) for link in links] == links
        garbage = {record.blob.id for record in records if isinstance(record, GarbageRecord)}
        assert garbage == await self.garbage_ids() | await self.garbage_ids("s3", None) | await self.garbage_ids(
            "localfs", "node-2"
        )
        condemned = [record.blob_id for record in records if isinstance(record, CondemnedRecord)]
        assert condemned == list(await self.store.condemned_blobs(2**62))
        nodes = sorted(
            (record.instance for record in records if isinstance(record, InstanceRecord)), key=lambda node: node.id
        )
        assert nodes == list(await self.store.instances())
        queued = {r.replication.blob_id: r.replication for r in records if isinstance(r, ReplicationRecord)}
        assert queued == {
            entry.blob_id: entry
            for node in ("node-1", "node-2")
            for entry in await self.store.replications(2**62, node)
        }
        assert len(queued) == 3

    async def test_an_empty_store_is_exported(self) -> None:
        """It has its root."""
        assert await exported(self.store) == [InodeRecord(inode=ROOT_INODE)]

    async def test_large_stores_come_in_parts(self) -> None:
        """Never more than about a thousand records at a time, and none is missing between two parts."""
        for number in range(25):
            await self.apply_all(*(self.make.create(f"/{number:02}/{name:02}") for name in range(60)))
        parts: list[int] = []
        paths: list[str] = []

        def consume(records: Sequence[Record]) -> None:
            parts.append(len(records))
            paths.extend(record.inode.path for record in records if isinstance(record, InodeRecord))

        await self.store.export(consume)
        assert max(parts) <= 1000
        assert paths == ["/", *await self.listed_paths()]

    async def test_an_export_ends_with_whom_it_is_for(self) -> None:
        """What the consumer raises ends it, and the store goes on."""
        await self.fill()

        def consume(records: Sequence[Record]) -> None:
            raise OSError("no space")

        await failure(self.store.export(consume), OSError)
        assert await exported(self.store)

    async def test_an_import_makes_the_same(self) -> None:
        """All that was exported is there: ids, generations, instants, links, queues, nodes, and the identity."""
        await self.fill()
        records = await exported(self.store)
        target = await self.open_store()
        import_id = await self.begin(target)
        for start in range(0, len(records), 7):
            await self.bring_in(target, import_id, records[start : start + 7])
        await self.finish(target, import_id, "5" * 32)
        await self.reopened(target)
        assert target.store_id == "5" * 32
        assert not target.was_empty
        assert set(map(repr, await exported(target))) == set(map(repr, records))
        assert list(await target.verify()) == []
        assert await target.statistics() == await self.store.statistics()

    async def test_what_was_imported_is_used_as_before(self) -> None:
        """Links work once, old ones are forgotten, queues go on in their order, names are found."""
        await self.fill()
        target = await self.open_store()
        import_id = await self.begin(target)
        await self.bring_in(target, import_id, await exported(self.store))
        await self.finish(target, import_id, self.store.store_id)
        original, self.store = self.store, await self.reopened(target)
        for kind, instance_id in (("localfs", "node-1"), ("s3", None)):
            before = await original.garbage(2**62, kind, instance_id)
            after = await self.store.garbage(2**62, kind, instance_id)
            assert [(entry.blob, entry.not_before_at) for entry in after] == [
                (entry.blob, entry.not_before_at) for entry in before
            ]
        assert await self.store.list_blobs() == await original.list_blobs()
        for node in ("node-1", "node-2"):
            assert await self.store.list_blobs(instance_id=node) == await original.list_blobs(instance_id=node)
            assert await self.store.replications(2**62, node) == await original.replications(2**62, node)
        assert await self.store.replication_backlog() == await original.replication_backlog()
        assert await self.store.list_children(ROOT_INODE.id) == await original.list_children(ROOT_INODE.id)
        records = await exported(self.store)
        for record in records:
            if isinstance(record, LinkRecord) and record.link.used_at is None:
                await self.apply(self.make.consume_link(record.link.token_hash))
                await self.refused(self.make.consume_link(record.link.token_hash), LinkUsed)
        await self.apply(self.make.move("/deep", "/moved"))
        await self.apply(self.make.remove("/moved", recursive=True))
        await self.apply(self.make.remove("/queued", recursive=True))
        assert await self.store.replication_backlog() == []
        assert list(await self.store.verify()) == []

    async def test_used_links_are_forgotten_in_time(self) -> None:
        """A link that came in used is forgotten like one that was used here."""
        written = await self.apply(self.make.create("/f"))
        link = await self.apply(self.make.issue_link(written.inode, expires_at=self.make.now + 1000 * HOUR))
        await self.apply(self.make.consume_link(link.token_hash))
        target = await self.open_store()
        import_id = await self.begin(target)
        await self.bring_in(target, import_id, await exported(self.store))
        await self.finish(target, import_id, self.store.store_id)
        self.store = await self.reopened(target)
        purge = PurgeLinks(at=self.make.tick(), expired_before_at=0, used_before_at=self.make.now)
        assert (await self.apply(purge)).count == 1

    async def test_only_an_empty_store_is_imported_into(self) -> None:
        """Not one with a name, and not one that only ever had a node."""
        command = BeginImport(at=self.make.tick(), import_id="1" * 32)
        await self.apply(
            RegisterInstance(at=self.make.tick(), instance_id="a", root_id=None, api_endpoint="http://x")
        )
        await self.refused(command, Conflict)
        self.store = await self.open_store()
        await self.apply(self.make.make_directory("/d"))
        for again in (False, True):
            await self.refused(BeginImport(at=self.make.tick(), import_id="1" * 32, again=again), Conflict)

    async def test_an_unfinished_import_is_not_opened(self) -> None:
        """Until it is finished the store isn't opened, no node registers, and no second import begins."""
        import_id = await self.begin(self.store)
        await self.bring_in(self.store, import_id, [InodeRecord(inode=ROOT_INODE)])
        register = RegisterInstance(at=self.make.tick(), instance_id="a", root_id=None, api_endpoint="http://x")
        await self.refused(register, Conflict)
        await self.refused(BeginImport(at=self.make.tick(), import_id="1" * 32), Conflict)
        await self.store.close()
        await failure(self.store.open(), UnfinishedImport)
        await self.store.open(importing=True)
        await self.finish(self.store, import_id, "5" * 32)
        await self.reopened(self.store)
        await self.apply(register)

    async def test_steps_belong_to_their_import(self) -> None:
        """Records and the end of an import that isn't under way are refused, and so are too many at once."""
        record = InodeRecord(inode=ROOT_INODE)
        step = ImportRecords(at=self.make.tick(), import_id="1" * 32, records=(record,))
        end = FinishImport(at=self.make.tick(), import_id="1" * 32, store_id="5" * 32)
        await self.refused(step, Conflict)
        await self.refused(end, Conflict)
        import_id = await self.begin(self.store)
        await self.refused(step, Conflict)
        await self.refused(end, Conflict)
        many = (record,) * (MOST_RECORDS + 1)
        await self.refused(ImportRecords(at=self.make.tick(), import_id=import_id, records=many), BadRequest)

    async def test_an_import_is_begun_again(self) -> None:
        """Another one takes over what wasn't finished, clears it in short steps, and starts anew."""
        await self.fill()
        records = await exported(self.store)
        target = await self.open_store()
        first = await self.begin(target)
        await self.bring_in(target, first, records)
        second = await self.begin(target, again=True)
        await failure(self.finish(target, first, "5" * 32), Conflict)
        counts = []
        while count := (await target.apply(ClearImport(at=self.make.tick(), import_id=second, limit=5))).count:
            counts.append(count)
        assert max(counts) <= 3 * 5 + len(records)
        assert [type(record) for record in await exported(target)] == [InodeRecord]
        await self.bring_in(target, second, records)
        await self.finish(target, second, "5" * 32)
        await self.reopened(target)
        assert set(map(repr, await exported(target))) == set(map(repr, records))
        assert list(await target.verify()) == []
        assert await target.statistics() == await self.store.statistics()

    async def test_only_what_is_unfinished_is_cleared(self) -> None:
        """A store without an import, and one with another's, lose nothing."""
        await self.apply(self.make.create("/f"))
        assert (await self.apply(ClearImport(at=self.make.tick(), import_id="1" * 32))).count == 0
        assert await self.listed_paths() == ["/f"]
        target = await self.open_store()
        import_id = await self.begin(target)
        await self.bring_in(target, import_id, await exported(self.store))
        assert (await target.apply(ClearImport(at=self.make.tick(), import_id="1" * 32))).count == 0
        assert len(await exported(target)) == 2
