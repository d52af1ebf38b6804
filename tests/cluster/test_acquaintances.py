"""Whom a node keeps connections to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from twisted.internet.task import Clock

from callfs.cluster.acquaintances import MOST_SOUGHT_SECONDS, REMEMBERED_SECONDS, SOUGHT_SECONDS, Acquaintances
from callfs.cluster.identity import PeerIdentity
from callfs.raft.membership import NOBODY, Member, Membership


class Ways:
    """What is asked of a transport."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.known: Mapping[str, Sequence[str]] | None = None
        self.open: tuple[str, ...] = ()

    def set_peers(self, addresses: Mapping[str, str], known: Mapping[str, Sequence[str]] | None = None) -> None:
        self.addresses, self.known = dict(addresses), known

    def connected(self) -> tuple[str, ...]:
        return self.open


def member(name: str, address: str) -> Member:
    return Member(name, f"disk of {name}", address, "", True)


def peer(name: str, address: str, disk_id: str = "") -> PeerIdentity:
    return PeerIdentity(name, "c1", disk_id or f"disk of {name}", 1, address, "")


def make(configured: Mapping[str, str] | None = None) -> tuple[Acquaintances, Ways, Clock]:
    ways, clock = Ways(), Clock()
    acquaintances = Acquaintances("n1", ways, clock.seconds, configured)  # type: ignore[arg-type]
    acquaintances.know(Membership("c1", (member("n1", "n1:1"), member("n2", "n2:1"))))
    return acquaintances, ways, clock


def test_a_member_that_moved_is_dialled_where_it_says() -> None:
    """Nobody reaches it at the address that the membership has; once that has the new one, it counts again."""
    acquaintances, ways, clock = make()
    acquaintances.met(peer("n2", "n2:9"))
    assert ways.addresses == {"n2": "n2:9"}
    ways.open = ("n2",)
    clock.advance(10 * REMEMBERED_SECONDS)
    acquaintances.look()
    assert ways.addresses == {"n2": "n2:9"}
    acquaintances.know(Membership("c1", (member("n1", "n1:1"), member("n2", "n2:9"))))
    assert ways.addresses == {"n2": "n2:9"}


def test_a_member_that_is_reached_is_not_sought_elsewhere() -> None:
    """It may be wrong about its own address."""
    acquaintances, ways, _ = make()
    ways.open = ("n2",)
    acquaintances.met(peer("n2", "localhost:1"))
    assert ways.addresses == {"n2": "n2:1"}


def test_certificates_are_held_against_what_nobody_says_of_himself() -> None:
    """Where the membership and the configuration have a member; strangers aren't known."""
    acquaintances, ways, _ = make({"n1": "n1:1", "n2": "n2:5", "n3": "n3:1"})
    acquaintances.met(peer("n2", "n2:9"))
    acquaintances.met(peer("n4", "n4:1"))
    assert ways.addresses == {"n2": "n2:9", "n4": "n4:1"}
    assert ways.known == {"n2": ["n2:1", "n2:5"]}


def test_a_place_where_a_member_is_not_found_is_forgotten() -> None:
    """The address of the membership is tried again after a while."""
    acquaintances, ways, clock = make()
    acquaintances.met(peer("n2", "localhost:1"))
    clock.advance(REMEMBERED_SECONDS + 1)
    acquaintances.look()
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
    acquaintances.look()
    assert ways.addresses == {"n2": "n2:1"}


def test_a_member_that_only_connects_is_found_where_it_says() -> None:
    """It may have nothing to send before it is reached itself."""
    acquaintances, ways, _ = make()
    acquaintances.reached_by(peer("n2", "n2:9"))
    assert ways.addresses == {"n2": "n2:9"}
    acquaintances.reached_by(peer("n3", "n3:1"))
    assert ways.addresses == {"n2": "n2:9"}


def test_the_word_of_a_member_that_seemed_to_be_there_is_not_lost() -> None:
    """It moved, and its old connection takes a while to break: then it is sought where it said."""
    acquaintances, ways, clock = make()
    ways.open = ("n2",)
    acquaintances.reached_by(peer("n2", "n2:9"))
    assert ways.addresses == {"n2": "n2:1"}
    ways.open = ()
    clock.advance(SOUGHT_SECONDS)
    acquaintances.look()
    assert ways.addresses == {"n2": "n2:9"}


def test_a_member_is_sought_where_the_configuration_has_it() -> None:
    """When it isn't where the membership says, in turn, and ever more rarely, until it is found."""
    acquaintances, ways, clock = make({"n1": "elsewhere:1", "n2": "n2:5", "n7": "n7:1"})
    sought = []
    for _ in range(1000):
        clock.advance(1.0)
        acquaintances.look()
        sought.append(ways.addresses["n2"])
    turns = sum(before != after for before, after in pairwise(sought))
    assert 1000 / MOST_SOUGHT_SECONDS <= turns <= 2 * 1000 / MOST_SOUGHT_SECONDS
    assert sought[: int(SOUGHT_SECONDS) + 1] == ["n2:1", "n2:1", "n2:5", "n2:5"]
    ways.open = ("n2",)
    clock.advance(MOST_SOUGHT_SECONDS)
    acquaintances.look()
    found = ways.addresses
    clock.advance(MOST_SOUGHT_SECONDS)
    acquaintances.look()
    assert ways.addresses == found


def test_who_knows_nobody_goes_by_the_configuration() -> None:
    """Until there is a membership: then it alone says who belongs to the cluster."""
    ways, clock = Ways(), Clock()
    acquaintances = Acquaintances("n1", ways, clock.seconds, {"n1": "n1:1", "n2": "n2:5", "n7": "n7:1"})  # type: ignore[arg-type]
    acquaintances.begin()
    acquaintances.know(NOBODY)
    clock.advance(10 * REMEMBERED_SECONDS)
    acquaintances.look()
    assert ways.addresses == {"n2": "n2:5", "n7": "n7:1"}
    acquaintances.know(Membership("c1", (member("n1", "n1:1"), member("n2", "n2:1"))))
    assert ways.addresses == {"n2": "n2:1"}


def test_where_a_member_was_found_others_are_told() -> None:
    """Only what the membership doesn't say, and only where the member proved to be."""
    acquaintances, ways, _ = make()
    assert acquaintances.sightings() == {}
    acquaintances.reached_by(peer("n2", "n2:9"))
    assert acquaintances.sightings() == {}
    ways.open = ("n2",)
    assert acquaintances.sightings() == {"n2": "n2:9"}
    acquaintances.know(Membership("c1", (member("n1", "n1:1"), member("n2", "n2:9"))))
    assert acquaintances.sightings() == {}


def test_a_member_is_sought_where_another_node_found_it() -> None:
    """At once, if it isn't reached; and whoever isn't a member isn't sought at all."""
    acquaintances, ways, _ = make()
    acquaintances.heard_of("n7", "n7:1")
    acquaintances.heard_of("n2", "n2:9")
    assert ways.addresses == {"n2": "n2:9"}
    ways.open = ("n2",)
    acquaintances.heard_of("n2", "n2:10")
    assert ways.addresses == {"n2": "n2:9"}
