"""Same inputs, same seed: same outputs, byte for byte; and no input breaks anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from callfs.raft.boundary import Role, first_write
from callfs.raft.messages import Message
from tests.raft.cores import SETTINGS, Node, candidate_wins, membership
from tests.raft.storm import Storm

small = st.integers(0, 6)
WIRE = msgspec.msgpack.Decoder(Message)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_repeats_itself(seed: int) -> None:
    """Two runs of a storm hand out the same bytes."""
    runs = [Storm(seed), Storm(seed)]
    for run in runs:
        run.run(400)
    assert runs[0].trace == runs[1].trace
    assert runs[0].trace


def test_seeds_differ() -> None:
    """Else the one before would say nothing."""
    runs = [Storm(seed) for seed in (1, 2)]
    for run in runs:
        run.run(400)
    assert runs[0].trace != runs[1].trace


@pytest.mark.parametrize("seed", range(100, 104))
def test_a_storm_breaks_no_safety(seed: int) -> None:
    """One leader in a term, the same entries everywhere, no stale read; and once it is calm all agree."""
    storm = Storm(seed)
    storm.run(1500)
    storm.calm()
    leader = max(
        (node for node in storm.nodes.values() if node.core.role is Role.LEADER), key=lambda node: node.core.term
    )
    assert {storm.nodes[one.node_id].applied for one in leader.core.membership.members} == {leader.core.last_index}


def wire_values() -> st.SearchStrategy[list[object]]:
    """Arrays that look like messages, more or less."""
    entry = st.tuples(small, small, st.integers(0, 2), st.binary(max_size=3))
    field = st.one_of(small, st.booleans(), st.lists(entry, max_size=3))
    return st.tuples(st.integers(1, 11), st.lists(field, max_size=6)).map(lambda made: [made[0], *made[1]])


@settings(max_examples=300, deadline=None)
@given(
    role=st.sampled_from(list(Role)),
    said=st.lists(st.tuples(st.sampled_from("abcx"), wire_values()), max_size=25),
)
def test_no_message_breaks_anything(role: Role, said: list[tuple[str, list[object]]]) -> None:
    """Whatever can be decoded can be said to any role, and nothing that was committed changes."""
    node = Node("a", first_write(membership("a", "b", "c")), settings=replace(SETTINGS, keep_entries=0))
    if role is Role.LEADER:
        candidate_wins(node, "b")
    elif role is not Role.FOLLOWER:
        node.core.campaign()
    node.run()
    for node_id, value in said:
        committed = node.state[: node.core.commit_index]
        try:
            message = WIRE.decode(msgspec.msgpack.encode(value))
        except msgspec.DecodeError:
            continue
        node.hear(node_id, message)
        node.tick()
        node.core.compact(node.applied)
        assert node.state[: len(committed)] == committed
        assert node.core.commit_index <= node.core.last_index
