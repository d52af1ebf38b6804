"""The handshake: who gets in, and what an attacker gets."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.cluster.handshake import (
    HIGHEST_VERSION,
    NONCE_BYTES,
    Acceptor,
    Challenge,
    Dialer,
    HandshakeRefused,
    Hello,
    Proof,
    refusal,
)
from callfs.cluster.identity import PeerIdentity

OLD, NEW = b"the old secret", b"the new secret"
encode = msgspec.msgpack.encode


def identity(name: str, cluster_id: str = "c1", disk_id: str = "") -> PeerIdentity:
    return PeerIdentity(name, cluster_id, disk_id or f"disk of {name}", 1, f"{name}:1", f"http://{name}")


A, B = identity("a"), identity("b")


def anyone(_peer: PeerIdentity) -> str | None:
    return None


def dialer(own: PeerIdentity = A, target: str = "b", secrets: tuple[bytes, ...] = (OLD,), nonce: int = 1) -> Dialer:
    return Dialer(own, target, secrets, bytes([nonce]) * NONCE_BYTES, anyone)


def acceptor(own: PeerIdentity = B, secrets: tuple[bytes, ...] = (OLD,), nonce: int = 2) -> Acceptor:
    return Acceptor(own, secrets, bytes([nonce]) * NONCE_BYTES, anyone)


def meet(one: Dialer, other: Acceptor) -> None:
    """Let them talk to the end."""
    proof = one.received(other.received(one.first()))
    assert proof is not None
    assert one.received(other.received(proof)) is None


def reason_of(one: Dialer, other: Acceptor) -> str:
    """Why they don't come together."""
    with pytest.raises(HandshakeRefused) as caught:
        meet(one, other)
    assert one.peer is None or other.peer is None
    return caught.value.reason


def test_both_sides_learn_who_the_other_is() -> None:
    """After the handshake each side knows the identity that the other proved."""
    one, other = dialer(), acceptor()
    meet(one, other)
    assert (one.peer, other.peer) == (B, A)


def test_without_the_secret_nobody_gets_in() -> None:
    """The acceptor refuses a dialer that doesn't know the secret, and proves nothing to it."""
    assert reason_of(dialer(secrets=(b"guessed",)), acceptor()) == "secret"


def test_an_acceptor_without_the_secret_is_found_out() -> None:
    """A dialer refuses who can't prove itself in turn."""
    one, other = dialer(), acceptor()
    one.received(other.received(one.first()))
    with pytest.raises(HandshakeRefused, match="secret"):
        one.received(encode(Proof(bytes(32))))


def test_a_proof_sent_back_to_its_maker_is_worth_nothing() -> None:
    """Reflection: the dialer's own proof isn't an acceptor's."""
    one, other = dialer(), acceptor()
    proof = one.received(other.received(one.first()))
    assert proof is not None
    with pytest.raises(HandshakeRefused, match="secret"):
        one.received(proof)


def test_a_proof_of_another_conversation_is_worth_nothing() -> None:
    """Replay: other nonces, other proof."""
    one, other = dialer(), acceptor()
    old_proof = one.received(other.received(one.first()))
    assert old_proof is not None
    later = acceptor(nonce=3)
    later.received(dialer().first())
    with pytest.raises(HandshakeRefused, match="secret"):
        later.received(old_proof)


@pytest.mark.parametrize("change", ["node_id", "cluster_id", "disk_id", "raft_address", "api_endpoint"])
def test_every_part_of_an_identity_is_bound_to_the_proof(change: str) -> None:
    """Somebody in between can't change what a dialer says of itself."""
    one, other = dialer(), acceptor()
    hello = msgspec.msgpack.decode(one.first(), type=Hello)
    forged = msgspec.structs.replace(hello, identity=msgspec.structs.replace(hello.identity, **{change: "another"}))
    proof = one.received(other.received(encode(forged)))
    assert proof is not None
    with pytest.raises(HandshakeRefused, match="secret"):
        other.received(proof)


def test_the_acceptors_identity_is_bound_to_its_proof() -> None:
    """Somebody in between can't change what an acceptor says of itself."""
    one, other = dialer(), acceptor()
    challenge = msgspec.msgpack.decode(other.received(one.first()), type=Challenge)
    forged = msgspec.structs.replace(challenge, identity=identity("c"))
    proof = one.received(encode(forged))
    assert proof is not None
    with pytest.raises(HandshakeRefused, match="secret"):
        other.received(proof)


@pytest.mark.parametrize(
    ("dials", "accepts"),
    [((OLD, NEW), (NEW, OLD)), ((NEW, OLD), (OLD, NEW)), ((OLD,), (NEW, OLD)), ((NEW, OLD), (NEW,))],
)
def test_a_secret_can_be_replaced_node_by_node(dials: tuple[bytes, ...], accepts: tuple[bytes, ...]) -> None:
    """Two nodes come together when each accepts the first secret of who dials."""
    one, other = dialer(secrets=dials), acceptor(secrets=accepts)
    meet(one, other)
    assert one.peer == B


def test_a_replaced_secret_is_refused() -> None:
    """What was taken out of the list doesn't open any more."""
    assert reason_of(dialer(secrets=(OLD,)), acceptor(secrets=(NEW,))) == "secret"


def test_another_node_at_the_address_is_refused() -> None:
    """Who dials one node isn't content with another."""
    assert reason_of(dialer(target="c"), acceptor()) == "node"


def test_whoever_is_there_will_do_for_a_probe() -> None:
    """An empty target accepts any node."""
    one, other = dialer(target=""), acceptor()
    meet(one, other)
    assert one.peer == B


def test_members_of_different_clusters_stay_apart() -> None:
    """A cluster's id has to be the same, unless one side has none yet."""
    assert reason_of(dialer(own=identity("a", "c2")), acceptor()) == "cluster"
    one, other = dialer(own=identity("a", "")), acceptor()
    meet(one, other)
    assert one.peer == B


def test_a_node_does_not_talk_to_itself() -> None:
    """The same name, or a copy of the same disk, is refused."""
    assert reason_of(dialer(own=B, target=""), acceptor()) == "self"
    assert reason_of(dialer(own=identity("a", disk_id="disk of b")), acceptor()) == "self"


def test_who_is_not_admitted_is_told_why() -> None:
    """Both sides may refuse whom they have recognised."""
    one = Dialer(A, "b", (OLD,), bytes(NONCE_BYTES), anyone)
    other = Acceptor(B, (OLD,), bytes(NONCE_BYTES), lambda _: "stopped")
    proof = one.received(other.received(one.first()))
    assert proof is not None
    with pytest.raises(HandshakeRefused) as caught:
        other.received(proof)
    with pytest.raises(HandshakeRefused, match="stopped") as told:
        one.received(refusal(caught.value))
    assert told.value.told


def test_versions_that_do_not_meet_are_refused() -> None:
    """A program that is too new or too old for the other is told so before anything else."""
    one, other = dialer(), acceptor()
    hello = msgspec.msgpack.decode(one.first(), type=Hello)
    newer = msgspec.structs.replace(hello, lowest_version=HIGHEST_VERSION + 1, highest_version=HIGHEST_VERSION + 1)
    with pytest.raises(HandshakeRefused, match="version"):
        other.received(encode(newer))
    with pytest.raises(HandshakeRefused, match="version"):
        dialer().received(encode(Challenge(HIGHEST_VERSION + 1, B, bytes(NONCE_BYTES))))


def test_a_version_that_no_membership_can_carry_is_refused() -> None:
    """It would be in the log for ever, and nobody could read it there."""
    own = msgspec.structs.replace(A, command_version=2**63)
    with pytest.raises(HandshakeRefused, match="malformed"):
        acceptor().received(dialer(own).first())


def test_a_newer_program_is_spoken_to_in_the_older_way() -> None:
    """The highest version that both know is used."""
    one, other = dialer(), acceptor()
    hello = msgspec.msgpack.decode(one.first(), type=Hello)
    newer = msgspec.structs.replace(hello, highest_version=HIGHEST_VERSION + 5)
    challenge = msgspec.msgpack.decode(other.received(encode(newer)), type=Challenge)
    assert challenge.version == HIGHEST_VERSION


@pytest.mark.parametrize(
    "message",
    [
        Hello("another protocol", 1, 1, A, "b", bytes(NONCE_BYTES)),
        Hello("callfs-raft", 1, 1, A, "b", b"short"),
        Hello("callfs-raft", 1, 1, identity(""), "b", bytes(NONCE_BYTES)),
        Hello("callfs-raft", 1, 1, identity("a" * 1000), "b", bytes(NONCE_BYTES)),
        Challenge(1, A, bytes(NONCE_BYTES)),
        Proof(bytes(32)),
    ],
)
def test_an_acceptor_refuses_what_is_out_of_place(message: object) -> None:
    """A first message that isn't a good hello is malformed."""
    with pytest.raises(HandshakeRefused, match="malformed"):
        acceptor().received(encode(message))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_any_bytes_are_refused_and_nothing_else_happens(messages: list[bytes]) -> None:
    """Neither side raises anything but its refusal, and neither is convinced."""
    for side in (dialer(), acceptor()):
        for data in messages:
            with pytest.raises(HandshakeRefused):
                side.received(data)
        assert side.peer is None


@given(st.integers(0, 400), st.integers(0, 7), st.integers(0, 3))
def test_any_flipped_bit_ends_the_handshake(position: int, bit: int, which: int) -> None:
    """Whatever is changed on the way, the two don't come together believing different things."""
    one, other = dialer(), acceptor()

    def passed(number: int, data: bytes) -> bytes:
        if number != which:
            return data
        changed = bytearray(data)
        changed[position % len(data)] ^= 1 << bit
        return bytes(changed)

    def talk() -> None:
        challenge = other.received(passed(0, one.first()))
        proof = one.received(passed(1, challenge))
        assert proof is not None
        one.received(passed(3, other.received(passed(2, proof))))

    with pytest.raises(HandshakeRefused):
        talk()
    assert one.peer is None
