"""What becomes of requests that are to go into the leader's log."""

from __future__ import annotations

import msgspec

from callfs.cluster.answering import place
from callfs.cluster.questions import Place, Refused
from callfs.cluster.requests import Request, encode_request
from callfs.raft.boundary import first_write
from callfs.raft.messages import AppendResponse
from tests.raft.cores import SETTINGS, Node, candidate_wins, membership

THREE = first_write(membership("a", "b", "c"))


def leader(**limits: int) -> Node:
    """Of three members that know version 1, in term 2; its log ends at 2."""
    node = Node("a", THREE, settings=msgspec.structs.replace(SETTINGS, **limits))
    candidate_wins(node, "b")
    node.hear("b", AppendResponse(2, 2))
    return node


def request(number: int, version: int = 1, command: bytes = b"x") -> bytes:
    """The client's next."""
    return encode_request(Request(2, number, 1, 1_000_000, version, command))


def test_requests_get_places_in_their_order() -> None:
    """One after the other."""
    node = leader()
    requests = [request(number) for number in (1, 2, 3)]
    assert place(node.core, requests) == [Place(2, 3), Place(2, 4), Place(2, 5)]
    node.run()
    node.hear("b", AppendResponse(2, 5))
    assert node.commands() == requests


def test_what_cannot_go_in_leaves_the_others_alone() -> None:
    """No request at all, one that is too new for some member, one that is too large: each is refused by itself."""
    node = leader(max_entry_bytes=200)
    requests = [
        request(1),
        b"no request",
        request(2),
        request(3, version=2),
        request(4, command=b"x" * 200),
        request(5),
    ]
    assert place(node.core, requests) == [
        Place(2, 3),
        Refused("MALFORMED"),
        Place(2, 4),
        Refused("TOO_NEW"),
        Refused("TOO_LARGE"),
        Place(2, 5),
    ]


def test_own_requests_are_told_by_their_version() -> None:
    """They needn't be read again."""
    node = leader()
    assert place(node.core, [request(1), request(2, version=2)], [1, 2]) == [Place(2, 3), Refused("TOO_NEW")]


def test_a_busy_leader_refuses_the_rest() -> None:
    """From the first one that doesn't fit on."""
    node = leader(max_uncommitted_bytes=200)
    requests = [request(1), request(2, command=b"x" * 150), request(3), request(4)]
    assert place(node.core, requests) == [Place(2, 3), Refused("BUSY"), Refused("BUSY"), Refused("BUSY")]


def test_a_follower_refuses_all() -> None:
    """It isn't the leader."""
    assert place(Node("b", THREE).core, [request(1), request(2)]) == [Refused("NOT_LEADER")] * 2
    assert place(Node("b", THREE).core, []) == []
