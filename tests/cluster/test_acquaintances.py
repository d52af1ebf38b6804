"""Whom a node keeps connections to."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.task import Clock

from callfs.cluster.acquaintances import REMEMBERED_SECONDS, Acquaintances
from callfs.cluster.identity import PeerIdentity
from callfs.raft.membership import Member, Membership


class Ways:
    """What is asked of a transport."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.open: tuple[str, ...] = ()

    def set_peers(self, addresses: Mapping[str, str]) -> None:
        self.addresses = dict(addresses)

    def connected(self) -> tuple[str, ...]:
        return self.open


def member(name: str, address: str) -> Member:
    return Member(name, f"disk of {name}", address, "", True)


def peer(name: str, address: str, disk_id: str = "") -> PeerIdentity:
    return PeerIdentity(name, "c1", disk_id or f"disk of {name}", 1, address, "")


def make() -> tuple[Acquaintances, Ways, Clock]:
    ways, clock = Ways(), Clock()
    acquaintances = Acquaintances("n1", ways, clock.seconds)  # type: ignore[arg-type]
    acquaintances.know(Membership("c1", (member("n1", "n1:1"), member("n2", "n2:1"))))
    return acquaintances, ways, clock


def test_a_member_that_moved_is_dialled_where_it_says() -> None:
    """Nobody reaches it at the address that the membership has; once that has the new one, it counts again."""
    acquaintances, ways, clock = make()
    acquaintances.met(peer("n2", "n2:9"))
    assert ways.addresses == {"n2": "n2:9"}
    ways.open = ("n2",)
    clock.advance(10 * REMEMBERED_SECONDS)
    acquaintances.forget()
    assert ways.addresses == {"n2": "n2:9"}
    acquaintances.know(Membership("c1", (member("n1", "n1:1"), member("n2", "n2:9"))))
    assert ways.addresses == {"n2": "n2:9"}


def test_a_member_that_is_reached_is_not_sought_elsewhere() -> None:
    """It may be wrong about its own address."""
    acquaintances, ways, _ = make()
    ways.open = ("n2",)
    acquaintances.met(peer("n2", "localhost:1"))
    assert ways.addresses == {"n2": "n2:1"}


def test_a_place_where_a_member_is_not_found_is_forgotten() -> None:
    """The address of the membership is tried again after a while."""
    acquaintances, ways, clock = make()
    acquaintances.met(peer("n2", "localhost:1"))
    clock.advance(REMEMBERED_SECONDS + 1)
    acquaintances.forget()
    assert ways.addresses == {"n2": "n2:1"}


def test_another_disk_does_not_speak_for_a_member() -> None:
    """It is somebody else under the same name."""
    acquaintances, ways, _ = make()
    acquaintances.met(peer("n2", "n2:9", "another disk"))
    assert ways.addresses == {"n2": "n2:1"}


def test_a_stranger_who_talks_is_answered_for_a_while() -> None:
    """A fresh node knows nobody, and a removed one is in nobody's membership."""
    acquaintances, ways, clock = make()
    acquaintances.met(peer("n3", "n3:1"))
    assert ways.addresses == {"n2": "n2:1", "n3": "n3:1"}
    clock.advance(REMEMBERED_SECONDS + 1)
    acquaintances.forget()
    assert ways.addresses == {"n2": "n2:1"}
