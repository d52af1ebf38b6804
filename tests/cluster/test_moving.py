"""Nodes that come back at other addresses, one of them or all at once."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from twisted.internet.defer import gatherResults

from callfs.cluster.logfile import LogFile
from callfs.identifiers import new_store_id
from callfs.raft.boundary import first_write
from callfs.raft.membership import Member, Membership
from tests.cluster.nodes import Cluster, Place, turns, until
from tests.cluster.test_driver import ClusterCase
from tests.support.ports import free_port

FOUND_SECONDS = 15.0
"""Long enough for a busy machine; by themselves nodes find each other in 3 s."""


def move(place: Place) -> None:
    """A stopped node will be elsewhere."""
    place.address = place.bind_address = f"127.0.0.1:{free_port()}"


def addresses_known_by(place: Place) -> dict[str, str]:
    """Where the members are by the membership that a node knows."""
    return {member.node_id: member.raft_address for member in place.node.membership().members}


async def all_know(cluster: Cluster) -> None:
    """Wait until the membership says on all nodes where they are."""
    places = cluster.places
    true = {name: place.address for name, place in places.items()}
    await until(
        lambda: all(addresses_known_by(place) == true for place in places.values()), "addresses", FOUND_SECONDS
    )


def write_beginning(places: Sequence[Place], disks: dict[str, str], members: Sequence[Place]) -> None:
    """Let stopped nodes belong to a cluster, as forming it does."""
    cluster_id = new_store_id(secrets.token_bytes)
    voters = [Member(each.node_id, disks[each.node_id], each.address, "", True) for each in members]
    write = first_write(Membership(cluster_id, tuple(voters)))
    for place in places:
        log = LogFile(place.folder, place.node_id)
        log.open(secrets.token_bytes)
        log.connection.execute("BEGIN IMMEDIATE")
        log.put_fact("cluster", cluster_id)
        log.carry_out(write)
        log.connection.execute("COMMIT")
        log.close()


class MovingTests(ClusterCase):
    """Over real sockets, where an address is something."""

    async def test_a_node_that_moved_is_found(self) -> None:
        """It tells whom it reaches where it is, so the leader reaches it, and all learn its new address."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        await follower.node.stop()
        await leader.node.propose(b"meanwhile")
        move(follower)
        follower.options = {**follower.options, "peers": {}}
        await follower.start()
        await all_know(cluster)
        assert await follower.node.propose(b"moved")

    async def test_a_member_that_moved_before_it_knew_of_its_cluster_is_found(self) -> None:
        """It was found when the cluster was formed, and came back elsewhere before anybody else talked to it."""
        cluster = self.make()
        places = [cluster[f"n{number}"] for number in (1, 2, 3)]
        disks = {}
        for place in places:
            await place.start()
            disks[place.node_id] = place.node.status().disk_id
            await place.node.stop()
        write_beginning(places[:2], disks, places)
        move(places[2])
        places[2].options = {"peers": {place.node_id: place.address for place in places}}
        for place in places:
            await place.start()
        await all_know(cluster)
        assert await places[2].node.propose(b"moved")

    async def test_all_moved_at_once(self) -> None:
        """It is enough that one of them is told where the others are; the membership follows."""
        cluster = await self.formed()
        await (await cluster.leader()).node.propose(b"before")
        await self.everybody_stopped(cluster)
        for place in cluster.places.values():
            move(place)
            place.options = {**place.options, "bootstrap": False, "peers": {}}
        cluster["n2"].options["peers"] = {name: place.address for name, place in cluster.places.items()}
        for place in cluster.places.values():
            await place.start()
        await all_know(cluster)
        await cluster["n1"].node.propose(b"after")
        assert await cluster.agree() == ["before", "after"]

    async def test_two_that_moved_find_each_other_through_the_third(self) -> None:
        """Each tells the third where it is, and that one tells whichever of them leads."""
        cluster = await self.formed()
        await (await cluster.leader()).node.propose(b"before")
        await cluster.agree()
        await self.everybody_stopped(cluster)
        for place in cluster.places.values():
            place.options = {**place.options, "bootstrap": False, "peers": {}}
        stayed, first, second = cluster.places.values()
        move(first)
        await gatherResults([stayed.start(), first.start()])
        await (await cluster.leader()).node.propose(b"by two")
        if stayed.leads:
            await stayed.node.transfer(first.node_id)
        move(second)
        await second.start()
        await all_know(cluster)
        await second.node.propose(b"after")
        assert await cluster.agree() == ["before", "by two", "after"]

    async def test_a_mistyped_address_changes_nothing(self) -> None:
        """The leader takes only an address where it finds the node; the one that was known serves on."""
        cluster = await self.formed()
        leader, follower = await cluster.leader_and_follower()
        await cluster.agree()
        true = follower.address
        await follower.node.stop()
        follower.address = leader.address
        await follower.start()
        await follower.node.propose(b"x")
        await turns(2.5)
        assert addresses_known_by(leader)[follower.node_id] == true
        assert await follower.node.propose(b"y")

    async def test_two_that_took_each_others_place_are_found(self) -> None:
        """Addresses that were dealt out anew may be in the membership already, as another node's."""
        cluster = await self.formed()
        await (await cluster.leader()).node.propose(b"before")
        await cluster.agree()
        await self.everybody_stopped(cluster)
        first, second = cluster["n1"], cluster["n2"]
        first.address, second.address = second.address, first.address
        first.bind_address, second.bind_address = first.address, second.address
        addresses = {name: place.address for name, place in cluster.places.items()}
        for place in cluster.places.values():
            place.options = {**place.options, "bootstrap": False, "peers": addresses}
            await place.start()
        await all_know(cluster)
        await cluster["n3"].node.propose(b"after")
        assert await cluster.agree() == ["before", "after"]

    async def everybody_stopped(self, cluster: Cluster) -> None:
        """Stop all, followers first."""
        leader = await cluster.leader()
        for place in [*(each for each in cluster.places.values() if each is not leader), leader]:
            await place.node.stop()
