"""Copies of a state between two nodes: what is sent, what is refused, what is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from callfs.cluster.connections import DeclinedQuestion
from callfs.cluster.interfaces import SnapshotMeta
from callfs.cluster.link import DeclinedByPeer, Unanswered
from callfs.cluster.questions import CHUNK_BYTES, Chunk, Install, Offer, Wanted, decode_asking, encode
from callfs.cluster.snapshot_receiving import INCOMING, SnapshotReceiving
from callfs.cluster.snapshot_sending import SnapshotSending, chunk_checksum
from callfs.raft.membership import NOBODY
from tests.cluster.nodes import temporary_folder
from tests.support.raft import MemorySnapshot, Recording

META = SnapshotMeta(100, 3, NOBODY)
STATE = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(STATE).digest()


def at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """In this thread."""
    return maybeDeferred(function, *args)


def chunk(offset: int, size: int = CHUNK_BYTES) -> Chunk:
    """A good piece."""
    data = STATE[offset : offset + size]
    return Chunk(SHA256, offset, data, chunk_checksum(data))


class ReceivingTests(SynchronousTestCase):
    """The side that lacks something."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.wanted = True
        self.installed: list[bytes] = []
        self.observer = Recording()
        self.receiving = self.make()

    def make(self) -> SnapshotReceiving:
        return SnapshotReceiving(
            self.folder,
            in_thread=at_once,
            wants=lambda _: self.wanted,
            install=self.install,
            observer=self.observer,
        )

    def install(self, file: Path, meta: SnapshotMeta) -> Deferred[bool]:
        self.installed.append(file.read_bytes())
        file.unlink()
        return succeed(True)

    def offer(self) -> Wanted:
        return self.successResultOf(self.receiving.offered(Offer(META, len(STATE), SHA256)))

    def came(self, piece: Chunk) -> Wanted:
        return self.successResultOf(self.receiving.came(piece))

    def all_came(self) -> None:
        offset = self.offer().offset
        while offset < len(STATE):
            offset = self.came(chunk(offset)).offset

    def complete(self) -> Wanted:
        return self.successResultOf(self.receiving.complete(Install(SHA256)))

    def left(self) -> list[Path]:
        folder = self.folder / INCOMING
        return list(folder.iterdir()) if folder.exists() else []

    def test_a_whole_state_is_installed(self) -> None:
        """All pieces, the digest, the installation; nothing is left over."""
        self.all_came()
        assert self.complete() == Wanted(len(STATE), True)
        assert self.installed == [STATE]
        assert self.left() == []
        assert self.observer.snapshots == ["installed"]

    def test_a_state_that_is_of_no_use_is_declined(self) -> None:
        """Nothing is fetched that wouldn't bring the node on."""
        self.wanted = False
        assert self.offer().finished
        assert self.left() == []

    def test_it_goes_on_where_it_was_even_after_a_restart(self) -> None:
        """What is on disk needn't come again."""
        self.offer()
        self.came(chunk(0))
        self.receiving = self.make()
        assert self.offer() == Wanted(CHUNK_BYTES, False)

    def test_a_damaged_piece_is_asked_for_again(self) -> None:
        """A piece whose checksum is wrong isn't stored."""
        self.offer()
        bad = Chunk(SHA256, 0, b"x" * CHUNK_BYTES, chunk_checksum(b"y"))
        assert self.came(bad) == Wanted(0, False)
        assert self.came(chunk(0)).offset == CHUNK_BYTES

    def test_a_piece_that_comes_twice_or_too_early_changes_nothing(self) -> None:
        """Only the piece that is due is stored."""
        self.offer()
        self.came(chunk(0))
        assert self.came(chunk(0)).offset == CHUNK_BYTES
        assert self.came(chunk(3 * CHUNK_BYTES)).offset == CHUNK_BYTES

    def test_pieces_that_do_not_fit_are_declined(self) -> None:
        """Empty ones, and those that would be longer than what was offered."""
        small = Offer(META, 10, SHA256)
        self.successResultOf(self.receiving.offered(small))
        for data in (b"", b"x" * 11):
            piece = Chunk(SHA256, 0, data, chunk_checksum(data))
            self.failureResultOf(self.receiving.came(piece), DeclinedQuestion)

    def test_a_state_with_another_digest_is_fetched_anew(self) -> None:
        """What is on disk isn't trusted: the digest is that of the whole file."""
        self.all_came()
        [file] = self.left()
        file.write_bytes(b"x" + STATE[1:])
        assert self.complete() == Wanted(0, False)
        assert self.installed == []
        self.all_came()
        assert self.complete().finished

    def test_a_state_that_cannot_be_installed_is_declined(self) -> None:
        """The sender doesn't take the peer for up to date, and nothing is left over."""
        self.receiving = SnapshotReceiving(
            self.folder,
            in_thread=at_once,
            wants=lambda _: True,
            install=lambda file, meta: fail(DeclinedQuestion("install")),
            observer=self.observer,
        )
        self.all_came()
        self.failureResultOf(self.receiving.complete(Install(SHA256)), DeclinedQuestion)
        assert self.left() == []
        assert self.observer.snapshots == []

    def test_an_installation_before_the_end_is_put_off(self) -> None:
        """The sender is told what is missing."""
        self.offer()
        assert self.complete() == Wanted(0, False)

    def test_what_was_not_offered_is_declined(self) -> None:
        """Pieces and installations of an unknown state."""
        self.failureResultOf(self.receiving.came(chunk(0)), DeclinedQuestion)
        self.failureResultOf(self.receiving.complete(Install(SHA256)), DeclinedQuestion)

    def test_a_newer_state_takes_the_place_of_the_one_that_was_coming(self) -> None:
        """Only one is kept on disk."""
        self.offer()
        self.came(chunk(0))
        other = Offer(META, 10, hashlib.sha256(b"other").digest())
        assert self.successResultOf(self.receiving.offered(other)) == Wanted(0, False)
        assert self.left() == []

    def test_a_disk_that_takes_nothing_declines(self) -> None:
        """The sender is told, and tries again later."""
        self.offer()
        (self.folder / INCOMING).rmdir()
        self.failureResultOf(self.receiving.came(chunk(0)), DeclinedQuestion)

    def test_a_state_that_cannot_be_made_durable_is_fetched_anew(self) -> None:
        """What a failed fsync left behind is never taken for stored."""
        self.all_came()
        (arriving,) = self.left()
        arriving.unlink()
        arriving.symlink_to("/dev/null")  # can be read and written, and not synchronised
        failure = self.failureResultOf(self.receiving.complete(Install(SHA256)), DeclinedQuestion)
        assert failure.value.reason == "disk"
        assert self.left() == []
        self.all_came()
        assert self.complete() == Wanted(len(STATE), True)
        assert self.installed == [STATE]

    def test_a_digest_of_another_length_is_declined(self) -> None:
        """It would be the name of a file."""
        self.failureResultOf(self.receiving.offered(Offer(META, 1, b"../x")), DeclinedQuestion)


class SendingTests(SynchronousTestCase):
    """The side that has it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.taken: list[MemorySnapshot] = []
        self.sent: list[tuple[str, int]] = []
        self.failed: list[str] = []
        self.asked: list[Any] = []
        self.current = True
        self.offset = 0
        self.broken: list[Exception] = []
        self.observer = Recording()
        self.sending = SnapshotSending(
            self,  # type: ignore[arg-type]
            self.clock,
            take=self.take,
            is_current=lambda _: self.current,
            sent=lambda node_id, index: self.sent.append((node_id, index)),
            failed=self.failed.append,
            observer=self.observer,
        )

    def take(self) -> Deferred[Any]:
        self.taken.append(MemorySnapshot(META, STATE))
        return succeed(self.taken[-1])

    def ask(self, node_id: str, payload: bytes, seconds: float) -> Deferred[bytes]:
        """A peer that takes every piece, unless it is broken."""
        asking = decode_asking(payload)
        self.asked.append(asking)
        if self.broken:
            return fail(self.broken.pop(0))
        if isinstance(asking, Chunk):
            assert asking.data == STATE[asking.offset : asking.offset + CHUNK_BYTES]
            assert asking.checksum == chunk_checksum(asking.data)
            self.offset = asking.offset + len(asking.data)
        return succeed(encode(Wanted(self.offset, isinstance(asking, Install))))

    def test_all_pieces_go_and_then_the_installation(self) -> None:
        """Offer, pieces in order, installation; then the core is told."""
        self.sending.send("n2")
        assert isinstance(self.asked[0], Offer)
        assert isinstance(self.asked[-1], Install)
        assert [each.offset for each in self.asked[1:-1]] == list(range(0, len(STATE), CHUNK_BYTES))
        assert self.sent == [("n2", META.index)]
        assert self.observer.snapshots == ["taken", "sent"]

    def test_a_broken_way_is_tried_again(self) -> None:
        """After a pause it goes on from where the peer is."""
        self.broken = [Unanswered("lost")]
        self.sending.send("n2")
        assert self.sent == []
        self.clock.advance(1)
        assert self.sent == [("n2", META.index)]

    def test_a_peer_that_stays_away_is_given_up(self) -> None:
        """The core is told, and asks again when it hears of the peer."""
        self.broken = [Unanswered("lost")] * 100
        self.sending.send("n2")
        for _ in range(20):
            self.clock.advance(1)
        assert self.failed == ["n2"]
        assert self.observer.snapshots == ["taken", "failed"]

    def test_a_peer_that_declines_is_given_up(self) -> None:
        """Its disk may be full."""
        self.broken = [DeclinedByPeer("disk")]
        self.sending.send("n2")
        assert self.failed == ["n2"]

    def test_a_peer_that_keeps_declining_is_left_alone_for_longer_and_longer(self) -> None:
        """However often the core asks for it, at most every half minute in the end; what succeeds ends that."""
        self.broken = [DeclinedByPeer("disk")] * 100
        for _ in range(1200):
            self.sending.send("n2")
            self.clock.advance(0.1)
        assert 5 < len(self.failed) < 12
        self.broken = []
        self.clock.advance(30)
        assert self.sent == [("n2", META.index)]
        self.offset = 0
        self.sending.send("n2")
        assert self.sent == [("n2", META.index)] * 2

    def test_several_peers_share_a_copy(self) -> None:
        """As long as the log goes on from it."""
        self.sending.send("n2")
        self.offset = 0
        self.sending.send("n3")
        assert len(self.taken) == 1
        self.current = False
        self.offset = 0
        self.sending.send("n2")
        assert len(self.taken) == 2
        assert self.taken[0].closed

    def test_a_copy_is_let_go_after_a_while(self) -> None:
        """It takes room on the disk."""
        self.sending.send("n2")
        assert not self.taken[0].closed
        self.clock.advance(60)
        assert self.taken[0].closed

    def test_a_copy_that_cannot_be_taken_is_told(self) -> None:
        """Nothing was sent."""
        self.take = lambda: fail(OSError("no room"))  # type: ignore[method-assign]
        self.sending = SnapshotSending(
            self,  # type: ignore[arg-type]
            self.clock,
            take=lambda: self.take(),
            is_current=lambda _: True,
            sent=lambda node_id, index: self.sent.append((node_id, index)),
            failed=self.failed.append,
            observer=self.observer,
        )
        self.sending.send("n2")
        assert self.failed == ["n2"]

    def test_stopping_breaks_off_and_lets_go(self) -> None:
        """Nothing goes on after the end."""
        self.broken = [Unanswered("lost")] * 100
        self.sending.send("n2")
        self.successResultOf(self.sending.stop())
        assert self.taken[0].closed
        assert self.clock.getDelayedCalls() == []
        self.sending.send("n3")
        assert len(self.taken) == 1
