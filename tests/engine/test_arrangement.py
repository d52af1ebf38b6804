"""Where the copies of a file are, and shall be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.engine.arrangement import (
    arranged,
    copy_at,
    evacuated,
    move_target,
    moved,
    replica_order,
    with_replica,
    without,
)
from callfs.model import BlobRef, LocalPlacement, Placement, ReplicaOrder, S3Placement

A, B, C = (LocalPlacement(name) for name in "abc")
S3 = S3Placement()
PLACES: list[Placement] = [A, B, C, S3]
NEW = "new"


def blob(*places: Placement) -> BlobRef:
    """Content with copies in these places, named after them."""
    return arranged([BlobRef(f"at {place}", 1, b"x", place) for place in places])


def new(place: Placement) -> BlobRef:
    """A copy that was just made."""
    return BlobRef(NEW, 1, b"x", place)


def places(of: BlobRef) -> list[Placement]:
    """Where the copies are."""
    return [copy.placement for copy in of.copies()]


class TestArrangements:
    def test_copy_at(self) -> None:
        """The copy in a place, by itself."""
        whole = blob(A, S3)
        assert copy_at(whole, B) is None
        assert copy_at(whole, S3) == whole.replicas[0]
        first = copy_at(whole, A)
        assert first is not None
        assert first.replicas == ()

    def test_without(self) -> None:
        """One copy less; the next is the first then."""
        assert places(without(blob(A, S3, B), f"at {A}")) == [S3, B]
        assert places(without(blob(A, S3, B), f"at {S3}")) == [A, B]

    def test_with_replica(self) -> None:
        """One copy more, or instead of the one in the same place."""
        assert places(with_replica(blob(A), new(S3))) == [A, S3]
        replaced = with_replica(blob(A, S3), new(S3))
        assert (places(replaced), replaced.replicas[0].id) == ([A, S3], NEW)

    @pytest.mark.parametrize(
        ("before", "to", "replica_backend", "after"),
        [
            ([A], B, None, [B]),
            ([A, S3], B, "s3", [B, S3]),
            ([A, S3], S3, "s3", [S3]),
            ([A, S3], S3, None, [S3]),
            ([S3], A, "s3", [A, S3]),
            ([S3], A, None, [A]),
            ([S3, B], A, "s3", [A, B, S3]),
            ([S3, A], A, "localfs", [A]),
            ([A], S3, "localfs", [S3, A]),
            ([A], B, "localfs", [B]),
        ],
    )
    def test_moved(
        self, before: list[Placement], to: Placement, replica_backend: str | None, after: list[Placement]
    ) -> None:
        """The new first copy; second copies stay, and the old first one where it is the second that is wanted."""
        assert places(moved(blob(*before), new(to), replica_backend)) == after

    @pytest.mark.parametrize(
        ("before", "to", "after"),
        [
            ([A], B, [B]),
            ([A, S3], B, [B, S3]),
            ([A, S3], S3, [S3]),
            ([S3, A], B, [S3, B]),
            ([S3, A], S3, [S3]),
            ([S3, A, B], B, [S3, B]),
            ([B, A], S3, [B, S3]),
        ],
    )
    def test_evacuated(self, before: list[Placement], to: Placement, after: list[Placement]) -> None:
        """The copy on A goes elsewhere and keeps its rank; all others stay."""
        assert places(evacuated(blob(*before), new(to), A)) == after

    @given(
        st.lists(st.sampled_from(PLACES), min_size=1, unique=True),
        st.sampled_from(PLACES),
        st.sampled_from([None, "s3", "localfs"]),
    )
    def test_laws(self, before: list[Placement], to: Placement, replica_backend: str | None) -> None:
        """No place has two copies, the new copy is among them, and nothing is where it shouldn't be."""
        whole = blob(*before)
        for after in (moved(whole, new(to), replica_backend), with_replica(whole, new(to))):
            assert new(to) in [BlobRef(copy.id, 1, b"x", copy.placement) for copy in after.copies()] or (
                after.placement == to == whole.placement
            )
            assert all(copy.replicas == () for copy in after.replicas)
        assert len(set(places(moved(whole, new(to), replica_backend)))) == len(
            places(moved(whole, new(to), replica_backend))
        )
        for leaving in set(before) - {to}:
            left = places(evacuated(whole, new(to), leaving))
            assert leaving not in left
            assert set(left) == set(before) - {leaving} | {to}
            assert len(left) == len(set(left))


class TestOrders:
    def test_lacking(self) -> None:
        """The node with the first copy makes the second; of shared storage the node that gets it."""
        assert replica_order(blob(A), "s3", "b") == ReplicaOrder(S3, "a")
        assert replica_order(blob(S3), "localfs", "b") == ReplicaOrder(B, "b")

    def test_nothing_lacking(self) -> None:
        """None is wanted; the first copy is on such a backend already; or there is one."""
        assert replica_order(blob(A), None, "a") is None
        assert replica_order(blob(S3), "s3", "a") is None
        assert replica_order(blob(A), "localfs", "b") is None
        assert replica_order(blob(A, S3), "s3", "a") is None
        assert replica_order(blob(S3, C), "localfs", "a") is None


class TestMoveTargets:
    @pytest.mark.parametrize(
        ("at", "backend", "instance", "target"),
        [
            (A, None, None, None),
            (A, "localfs", None, None),
            (B, "localfs", None, None),
            (S3, "localfs", None, A),
            (A, "s3", None, S3),
            (S3, "s3", None, None),
            (S3, "s3", "b", None),
            (A, None, "a", None),
            (A, None, "b", B),
            (S3, None, "b", B),
            (S3, None, "a", A),
            (A, "localfs", "b", B),
            (B, "localfs", "b", None),
        ],
    )
    def test_target(
        self, at: Placement, backend: str | None, instance: str | None, target: Placement | None
    ) -> None:
        """Where a move brings bytes, asked at node a; nowhere when they are right where they are."""
        assert move_target(blob(at), backend, instance, "a") == target
