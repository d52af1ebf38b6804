"""Which metadata store may use which root folder."""

from __future__ import annotations

import pytest

from callfs.backends.identity import (
    Decision,
    Identity,
    UnreadableIdentity,
    Verdict,
    format_identity,
    parse_identity,
    recognise,
)

STORE, OTHER_STORE = "5" * 32, "6" * 32
ROOT, OTHER_ROOT = "a" * 32, "b" * 32
OWN = Identity(store_id=STORE, root_id=ROOT, version=1)
FOREIGN = Identity(store_id=OTHER_STORE, root_id=ROOT, version=1)
A, C, R = Verdict.ADOPT, Verdict.ACCEPT, Verdict.REFUSE


def judged(was_empty: bool, registered: str | None, identity: Identity | None, has_blobs: bool) -> Decision:
    """The decision about the store ``STORE``."""
    return recognise(
        store_was_empty=was_empty,
        store_id=STORE,
        instance_id="node",
        registered={"other": "c" * 32} | ({} if registered is None else {"node": registered}),
        identity=identity,
        root_has_blobs=has_blobs,
    )


# identity, registered as, blobs there: the verdict for an empty store, and for one in use
TABLE = [
    (None, None, False, A, A),
    (None, None, True, R, R),
    (None, ROOT, False, R, R),
    (None, ROOT, True, R, R),
    (OWN, None, False, C, C),
    (OWN, None, True, C, C),
    (OWN, ROOT, False, C, C),
    (OWN, ROOT, True, C, C),
    (OWN, OTHER_ROOT, False, R, R),
    (OWN, OTHER_ROOT, True, R, R),
    (FOREIGN, None, False, R, R),
    (FOREIGN, None, True, R, R),
    (FOREIGN, ROOT, False, R, R),
    (FOREIGN, ROOT, True, R, R),
    (FOREIGN, OTHER_ROOT, False, R, R),
    (FOREIGN, OTHER_ROOT, True, R, R),
]


@pytest.mark.parametrize(("identity", "registered", "has_blobs", "empty", "used"), TABLE)
def test_the_table(
    identity: Identity | None, registered: str | None, has_blobs: bool, empty: Verdict, used: Verdict
) -> None:
    """Every combination has its verdict; a refusal, and nothing else, has a message."""
    for was_empty, verdict in ((True, empty), (False, used)):
        decision = judged(was_empty, registered, identity, has_blobs)
        assert decision.verdict is verdict
        assert bool(decision.message) is (verdict is R)


def test_messages_say_what_to_do() -> None:
    """The operator learns both identities and the way out."""
    swapped = judged(False, OTHER_ROOT, OWN, True).message
    assert ROOT in swapped
    assert OTHER_ROOT in swapped
    assert "Mount the disk" in swapped
    assert "callfs fsck --adopt-root" in swapped
    assert "Mount the disk" in judged(False, ROOT, None, False).message
    emptied = judged(True, None, FOREIGN, True).message
    assert OTHER_STORE in emptied
    assert "a new, empty metadata store" in emptied
    assert "Restore the metadata store" in emptied
    assert "identity.json" in judged(True, None, None, True).message


def test_the_file_is_read_back() -> None:
    """What is written is understood."""
    assert parse_identity(format_identity(OWN)) == OWN


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"store_id": 1}', b'{"store_id":"a","root_id":"b"}', b"\0" * 90]
)
def test_damaged(data: bytes) -> None:
    """What isn't an identity is refused, never taken for none."""
    with pytest.raises(UnreadableIdentity, match="damaged"):
        parse_identity(data)


def test_a_newer_version() -> None:
    """A layout of a later program is refused."""
    newer = Identity(store_id=STORE, root_id=ROOT, version=2)
    with pytest.raises(UnreadableIdentity, match="update"):
        parse_identity(format_identity(newer))


def test_a_renamed_node() -> None:
    """A folder that the store knows as another node's is refused: its files would be looked for there."""
    decision = recognise(
        store_was_empty=False,
        store_id=STORE,
        instance_id="new-name",
        registered={"node": ROOT},
        identity=OWN,
        root_has_blobs=True,
    )
    assert decision.verdict is R
    assert "instance_discovery.instance_id to node" in decision.message
