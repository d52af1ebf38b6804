"""Which copy serves, where new bytes go."""

from __future__ import annotations

from callfs.engine.routing import (
    backend_of,
    backend_type,
    holder,
    is_own,
    is_reachable,
    placement_for,
    sources,
)
from callfs.model import ROOT_INODE, BlobRef, LocalPlacement, S3Placement

HERE = LocalPlacement("here")
THERE = LocalPlacement("there")
S3 = S3Placement()


def blob(name: str, placement: LocalPlacement | S3Placement, *replicas: BlobRef) -> BlobRef:
    """A blob somewhere."""
    return BlobRef(name, 1, b"", placement, replicas)


class TestRouting:
    def test_sources(self) -> None:
        """A copy on a disk is a source on every node, one in a backend that isn't on is none."""
        assert [copy.id for copy in sources(blob("a", HERE), "here", {"localfs"})] == ["a"]
        assert [copy.id for copy in sources(blob("a", THERE), "here", {"localfs"})] == ["a"]
        assert [copy.id for copy in sources(blob("a", S3), "here", {"s3"})] == ["a"]
        assert sources(blob("a", S3), "here", {"localfs"}) == ()
        assert sources(blob("a", HERE), "here", {"s3"}) == ()

    def test_order(self) -> None:
        """What is on the node's own disk comes first, then the first copy, then replicas."""
        whole = blob("a", THERE, blob("b", S3), blob("c", HERE), blob("d", LocalPlacement("elsewhere")))
        both = {"localfs", "s3"}
        assert [copy.id for copy in sources(whole, "here", both)] == ["c", "a", "b", "d"]
        assert [copy.id for copy in sources(whole, "there", both)] == ["a", "b", "c", "d"]
        assert [copy.id for copy in sources(whole, "fourth", {"localfs"})] == ["a", "c", "d"]

    def test_holder(self) -> None:
        """The holder of local bytes is their node, of shared ones the node that answers."""
        assert holder(THERE, "here") == "there"
        assert holder(S3, "here") == "here"

    def test_names(self) -> None:
        """Placements and backends correspond."""
        for name in ("localfs", "s3"):
            assert backend_of(placement_for(name, "here")) == name
            assert is_reachable(placement_for(name, "here"), "here", {name})
            assert is_own(placement_for(name, "here"), "here", {name})
        assert is_reachable(THERE, "here", {"localfs"})
        assert not is_own(THERE, "here", {"localfs"})
        assert not is_own(S3, "here", {"localfs"})
        assert backend_type(ROOT_INODE) == "metadata"
