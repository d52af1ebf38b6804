"""What a transaction knows of the tree."""

from __future__ import annotations

import pytest

from callfs.metadata.known import Known
from callfs.metadata.places import new_directory
from callfs.model import ROOT_INODE, ROOT_INODE_ID, Inode


def directory(path: str, inode_id: str) -> Inode:
    """A directory below the root."""
    return new_directory(path, inode_id, ROOT_INODE_ID, "alice", 1)


@pytest.fixture(name="known")
def make_known() -> Known:
    """The root and ``/d`` are there, ``/d/x`` isn't."""
    known = Known()
    known.learn_nothing(["/d/x"])
    known.learn(ROOT_INODE)
    known.learn(directory("/d", "id-d"))
    return known


def test_a_chain_ends_where_nothing_is(known: Known) -> None:
    """What exists of a path is given as far as it goes."""
    assert [inode.path for inode in known.chain(["/", "/d", "/d/x", "/d/x/y"])] == ["/", "/d"]


def test_what_is_not_known(known: Known) -> None:
    """A path that was never asked for is neither there nor missing."""
    assert known.unknown(["/", "/d/x", "/e"]) == ["/e"]
    with pytest.raises(KeyError):
        known.chain(["/", "/e"])
    assert known.by_id("id-e") is None


def test_a_moved_inode_leaves_nothing_behind(known: Known) -> None:
    """An inode is at one path."""
    known.learn(directory("/e", "id-d"))
    assert [inode.path for inode in known.chain(["/", "/d"])] == ["/"]
    assert known.by_id("id-d") == directory("/e", "id-d")


def test_a_removed_inode(known: Known) -> None:
    """Where an inode was removed nothing is, and nothing is to be written for it."""
    assert known.touch("id-d", 7)
    known.remove(directory("/d", "id-d"))
    assert [inode.path for inode in known.chain(["/", "/d"])] == ["/"]
    assert known.by_id("id-d") is None
    assert known.take_touched() == []


def test_touches_are_gathered(known: Known) -> None:
    """A directory that is touched often is written once, as the last touch left it."""
    for at in (5, 6, 7):
        assert known.touch("id-d", at)
    (touched,) = known.take_touched()
    assert (touched.id, touched.mtime, touched.ctime, touched.generation) == ("id-d", 7, 7, 4)
    assert known.chain(["/", "/d"])[-1] == touched
    assert known.take_touched() == []


def test_an_unknown_directory_is_not_touched(known: Known) -> None:
    """Whoever touches it has to do that elsewhere."""
    assert not known.touch("id-e", 5)
    assert known.take_touched() == []


def test_forgotten(known: Known) -> None:
    """Everything can be asked for anew."""
    known.forget()
    assert len(known) == 0
    assert known.unknown(["/", "/d", "/d/x"]) == ["/", "/d", "/d/x"]
