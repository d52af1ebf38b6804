"""Which copy serves, where new bytes go."""

from __future__ import annotations

from callfs.engine.routing import (
    backend_of,
    backend_type,
    holder,
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
    def test_own_copy(self) -> None:
        """A copy on this node's disk is read from it."""
        assert [source.backend for source in sources(blob("a", HERE), "here", {"localfs"})] == ["localfs"]

    def test_no_copy(self) -> None:
        """A copy on another's disk, or in a backend that isn't on, is no source."""
        assert sources(blob("a", THERE), "here", {"localfs", "s3"}) == ()
        assert sources(blob("a", S3), "here", {"localfs"}) == ()

    def test_order(self) -> None:
        """The first copy comes before its replicas."""
        whole = blob("a", HERE, blob("b", S3), blob("c", THERE))
        assert [source.blob.id for source in sources(whole, "here", {"localfs", "s3"})] == ["a", "b"]
        assert [source.blob.id for source in sources(whole, "there", {"localfs", "s3"})] == ["b", "c"]

    def test_holder(self) -> None:
        """The holder of local bytes is their node, of shared ones the node that answers."""
        assert holder(THERE, "here") == "there"
        assert holder(S3, "here") == "here"

    def test_names(self) -> None:
        """Placements and backends correspond."""
        for name in ("localfs", "s3"):
            assert backend_of(placement_for(name, "here")) == name
            assert is_reachable(placement_for(name, "here"), "here", {name})
        assert backend_type(ROOT_INODE) == "metadata"
