"""
The same random commands for a store and for a plain dict: same results, same refusals, same state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from callfs.errors import CallFSError
from callfs.metadata.commands import AttributeChanges, Command, Condemn, DropGarbage, PostponeReplication
from callfs.metadata.interfaces import IMetadataStore
from callfs.model import Inode, LocalPlacement, Preconditions, Principal, ReplicaOrder, S3Placement
from tests.contract.metadata_base import StoreTests
from tests.contract.metadata_model import MetadataModel
from tests.support.commands import Commands

T = TypeVar("T")

NAMES = st.sampled_from(["a", "a!", "a0", "A", "%", "é"])
PATHS = st.lists(NAMES, min_size=0, max_size=4).map(lambda names: "/" + "/".join(names))
USERS = st.sampled_from([Principal("alice"), Principal("bob"), Principal("root", is_admin=True)])
PLACES = st.sampled_from([LocalPlacement("node-1"), LocalPlacement("node-1"), S3Placement()])
ORDERS = st.sampled_from([None, None, ReplicaOrder(S3Placement(), "node-1"), ReplicaOrder(S3Placement(), "x")])
CONDITIONS = st.sampled_from(["none", "none", "none", "any", "nothing", "current", "stale"])


class MetadataMachine(RuleBasedStateMachine):
    """
    Runs in a thread of its own, the store on the reactor's.

    :cvar open_store: makes an empty store.
    """

    open_store: Callable[[], Deferred[IMetadataStore]]

    def __init__(self) -> None:
        super().__init__()
        self.store = self.call(type(self).open_store)
        self.model = MetadataModel()
        self.make = Commands()

    def call(self, function: Callable[..., Deferred[T]], *args: Any) -> T:
        """Ask the store."""
        return blockingCallFromThread(reactor, function, *args)

    def conditions(self, kind: str, path: str) -> Preconditions:
        """Preconditions about what is at a path."""
        inode = self.model.inodes.get(path)
        current = inode.etag if inode is not None and inode.etag is not None else '"missing"'
        return {
            "none": Preconditions(),
            "any": Preconditions(if_match=("*",)),
            "nothing": Preconditions(if_none_match=("*",)),
            "current": Preconditions(if_match=(current,)),
            "stale": Preconditions(if_match=('"stale"',), if_none_match=(current,)),
        }[kind]

    def both(self, command: Command[Any]) -> None:
        """Give a command to store and model; the outcomes must be equal."""
        try:
            expected: Any = self.model.apply(command)
        except CallFSError as refusal:
            expected = type(refusal)
        try:
            actual: Any = self.call(self.store.apply, command)
        except CallFSError as refusal:
            actual = type(refusal)
        assert actual == expected, command

    @rule(path=PATHS, principal=USERS, place=PLACES, condition=CONDITIONS, order=ORDERS)
    def create(
        self, path: str, principal: Principal, place: Any, condition: str, order: ReplicaOrder | None
    ) -> None:
        """Create a file."""
        conditions = self.conditions(condition, path)
        blob = self.make.blob(5, place)
        self.both(self.make.create(path, principal=principal, blob=blob, preconditions=conditions, replicate=order))

    @rule(path=PATHS, principal=USERS, place=PLACES, condition=CONDITIONS, replicated=st.booleans(), order=ORDERS)
    def put(
        self,
        path: str,
        principal: Principal,
        place: Any,
        condition: str,
        replicated: bool,
        order: ReplicaOrder | None,
    ) -> None:
        """Create or replace a file."""
        blob = self.make.replicated_blob(place, S3Placement()) if replicated else self.make.blob(6, place)
        conditions = self.conditions(condition, path)
        self.both(self.make.put(path, principal=principal, blob=blob, preconditions=conditions, replicate=order))

    @rule(
        data=st.data(), principal=USERS, place=PLACES, keep=st.sampled_from(["none", "first", "all"]), order=ORDERS
    )
    def relocate(
        self, data: st.DataObject, principal: Principal, place: Any, keep: str, order: ReplicaOrder | None
    ) -> None:
        """Give a file other copies, sometimes upon a view of it that is past."""
        files = [inode for inode in self.model.inodes.values() if inode.blob is not None]
        if not files:
            return
        inode = data.draw(st.sampled_from(sorted(files, key=lambda inode: inode.id)))
        assert inode.blob is not None
        new = self.make.copy_of(inode.blob, place)
        first = msgspec.structs.replace(inode.blob, replicas=())
        blob = {
            "none": new,
            "first": msgspec.structs.replace(first, replicas=(new,)),
            "all": msgspec.structs.replace(new, replicas=(first, *inode.blob.replicas)[:3]),
        }[keep]
        command = self.make.relocate(inode, blob, principal, replicate=order)
        self.both(command)
        if data.draw(st.booleans()):
            self.both(command)

    @rule(data=st.data(), by=st.sampled_from([None, "node-1", "x"]))
    def postpone(self, data: st.DataObject, by: str | None) -> None:
        """A copy couldn't be made."""
        blob_id = data.draw(st.sampled_from([*sorted(self.model.replications), self.make.blob().id]))
        self.both(PostponeReplication(at=self.make.tick(), blob_id=blob_id, due_at=self.make.now, by=by))

    @rule(path=PATHS, principal=USERS, condition=CONDITIONS)
    def make_directory(self, path: str, principal: Principal, condition: str) -> None:
        """Create a directory."""
        conditions = self.conditions(condition, path)
        self.both(self.make.make_directory(path, principal=principal, preconditions=conditions))

    @rule(path=PATHS, principal=USERS, recursive=st.booleans(), slash=st.booleans(), condition=CONDITIONS)
    def remove(self, path: str, principal: Principal, recursive: bool, slash: bool, condition: str) -> None:
        """Remove something."""
        self.both(
            self.make.remove(
                path,
                principal=principal,
                recursive=recursive,
                directory_expected=slash,
                preconditions=self.conditions(condition, path),
            )
        )

    @rule(
        source=PATHS,
        destination=PATHS,
        principal=USERS,
        overwrite=st.booleans(),
        create_parents=st.booleans(),
        mode=st.sampled_from([None, None, 0o600]),
        owner=st.sampled_from([None, None, "bob"]),
        condition=CONDITIONS,
    )
    def move(
        self,
        source: str,
        destination: str,
        principal: Principal,
        overwrite: bool,
        create_parents: bool,
        mode: int | None,
        owner: str | None,
        condition: str,
    ) -> None:
        """Move something, or change attributes."""
        self.both(
            self.make.move(
                source,
                destination,
                principal=principal,
                overwrite=overwrite,
                create_parents=create_parents,
                attributes=AttributeChanges(mode=mode, owner=owner),
                preconditions=self.conditions(condition, source),
            )
        )

    @rule(data=st.data(), principal=USERS, late=st.booleans())
    def link(self, data: st.DataObject, principal: Principal, late: bool) -> None:
        """Issue a link for something that exists, and use some link."""
        inode: Inode = self.model.inodes[data.draw(st.sampled_from(sorted(self.model.inodes)))]
        self.both(self.make.issue_link(inode, principal=principal))
        if self.model.links:
            link = self.model.links[data.draw(st.sampled_from(sorted(self.model.links)))]
            fields = {"at": link.expires_at} if late else {}
            self.both(self.make.consume_link(link.token_hash, **fields))

    @rule(count=st.integers(1, 3))
    def drop_garbage(self, count: int) -> None:
        """Take the oldest entries out of the garbage queue."""
        entries = self.call(self.store.garbage, 2**62, "s3", None, count)
        dropped = self.call(
            self.store.apply, DropGarbage(at=self.make.tick(), ids=tuple(entry.id for entry in entries))
        )
        assert (
            dropped.count == len(entries) == len({entry.blob.id for entry in entries} & self.model.garbage.keys())
        )
        for entry in entries:
            del self.model.garbage[entry.blob.id]

    @rule(data=st.data())
    def condemn(self, data: st.DataObject) -> None:
        """Condemn a stray blob, one that is named, and one in the queue."""
        known = sorted([*self.model.named(), *self.model.garbage])
        some = [data.draw(st.sampled_from(known))] if known else []
        self.both(Condemn(at=self.make.tick(), blob_ids=(self.make.blob().id, *some)))

    @invariant()
    def same_state(self) -> None:
        """Both have the same inodes, garbage and replications."""
        root = self.call(self.store.get, "/")
        stored = [root, *self.call(self.store.walk, "/", "", None, 10_000)]
        assert stored == self.model.sorted_inodes()
        local = self.call(self.store.garbage, 2**62, "localfs", "node-1", 10_000)
        remote = self.call(self.store.garbage, 2**62, "s3", None, 10_000)
        assert {entry.blob.id: entry.not_before_at for entry in (*local, *remote)} == self.model.garbage
        entries = [entry for by in ("node-1", "x") for entry in self.call(self.store.replications, 2**62, by)]
        assert {entry.blob_id: entry for entry in entries} == self.model.replications
        backlog = {found.by: found for found in self.call(self.store.replication_backlog)}
        assert {by: (found.waiting, found.failing, found.oldest_queued_at) for by, found in backlog.items()} == {
            by: (len(mine), sum(entry.attempts > 0 for entry in mine), min(entry.queued_at for entry in mine))
            for by in ("node-1", "x")
            if (mine := [entry for entry in self.model.replications.values() if entry.order.by == by])
        }

    def teardown(self) -> None:
        """The end of a run: the store finds itself sound."""
        for link in self.model.links.values():
            assert self.call(self.store.get_link, link.token_hash) == link
        assert self.call(self.store.verify) == []
        self.call(self.store.close)


class MachineContract(StoreTests):
    """Random commands."""

    machine_examples = 40

    def test_random_commands_do_what_a_dict_does(self) -> Deferred[None]:
        """Whatever comes in whatever order, the store gives the results, refusals and state of the model."""

        class Machine(MetadataMachine):
            open_store = staticmethod(lambda: Deferred.fromCoroutine(self.open_store()))

        budget = settings(
            max_examples=self.machine_examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        return deferToThread(run_state_machine_as_test, Machine, settings=budget)
