"""Whom a certificate names, and which peers are believed because of it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from twisted.internet.threads import deferToThread

from callfs.cluster.certified import CertifiedNames, expected
from callfs.cluster.handshake import HandshakeRefused
from callfs.cluster.interfaces import ChangeRefused
from callfs.cluster.tls import PeerTLS, TLSUnusable
from callfs.cluster.vetting import MAX_TOLD, Vetting
from tests.cluster.certificates import Authority
from tests.cluster.nodes import Cluster, Place, logged, temporary_folder, until
from tests.cluster.test_driver import ClusterCase
from tests.cluster.test_moving import all_know
from tests.cluster.test_peers import Peer, PeerCase, error_of

GUIDE = Path(__file__).parents[2] / "docs/operations.rst"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs what the tests show."""
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


def names_of(authority: Authority, *names: str) -> CertifiedNames:
    """What is read from a certificate for these names."""
    file, _ = authority.certificate("somebody", *names)
    return CertifiedNames.of(x509.load_pem_x509_certificate(file.read_bytes()))


@pytest.mark.parametrize(
    ("names", "address"),
    [
        (["DNS:n1"], "10.0.0.1:7000"),
        (["URI:callfs:n1"], "10.0.0.1:7000"),
        (["IP:10.0.0.1"], "10.0.0.1:7000"),
        (["IP:2001:db8::1"], "[2001:0db8:0::1]:7000"),
        (["IP:fe80::1"], "[fe80::1%eth0]:7000"),
        (["DNS:one.example"], "one.example:7000"),
        (["DNS:One.Example"], "oNE.eXAMPLE.:7000"),
        (["DNS:other.example", "IP:10.9.9.9", "DNS:n1"], "10.0.0.1:7000"),
    ],
)
def test_a_certificate_names_a_node_by_its_id_or_its_host(
    authority: Authority, names: list[str], address: str
) -> None:
    """One of the names is enough; hosts are compared as hosts are."""
    assert names_of(authority, *names).fit("n1", [address])


@pytest.mark.parametrize(
    ("names", "address"),
    [
        ([], "10.0.0.1:7000"),
        (["DNS:n2"], "10.0.0.1:7000"),
        (["DNS:N1"], "10.0.0.1:7000"),
        (["DNS:n1.example"], "10.0.0.1:7000"),
        (["URI:n1"], "10.0.0.1:7000"),
        (["URI:spiffe://example/n1"], "10.0.0.1:7000"),
        (["DNS:10.0.0.1"], "10.0.0.1:7000"),
        (["IP:10.0.0.2"], "10.0.0.1:7000"),
        (["DNS:*.example"], "one.example:7000"),
        (["DNS:*"], "one:7000"),
        (["DNS:example"], "one.example:7000"),
        (["IP:10.0.0.1"], "one.example:7000"),
        (["DNS:one.example"], ":7000"),
        (["DNS:one.example"], "nonsense"),
    ],
)
def test_a_certificate_that_names_somebody_else_does_not_do(
    authority: Authority, names: list[str], address: str
) -> None:
    """Not another id or host, not a wildcard, not the common name, and an address only as an address."""
    assert not names_of(authority, *names).fit("n1", [address])


def test_what_a_certificate_says_and_what_was_expected_can_be_read(authority: Authority) -> None:
    """With the kind of each name; a long list is cut, and none at all is said, too."""
    assert str(names_of(authority, "DNS:x", "IP:10.0.0.9", "URI:callfs:y")) == "DNS:x, IP:10.0.0.9, URI:callfs:y"
    assert str(names_of(authority)) == "nobody"
    assert str(names_of(authority, *(f"DNS:h{number}" for number in range(20)))).endswith("DNS:h11, and 8 more")
    assert expected("n1", ["10.0.0.1:1", "n1:2", "h.:3"]) == "DNS:n1 or URI:callfs:n1 or IP:10.0.0.1 or DNS:h"


def test_a_refusal_is_told_once(authority: Authority) -> None:
    """A peer that tries again and again fills no log; something else that is wrong is told again."""
    vetting, names = Vetting(), names_of(authority, "DNS:x")
    with logged("raft_certificate_refused") as lines:
        for _ in range(3):
            assert vetting.met(names, "n1", "10.0.0.1:7000") == "certificate"
        assert vetting.met(names_of(authority, "DNS:z"), "n1", "10.0.0.1:7000") == "certificate"
        for number in range(3 * MAX_TOLD):
            vetting.met(names, f"stranger-{number}", "10.0.0.1:7000")
    assert lines[:2] == [
        f"refused a raft connection with n1: its certificate is for {found}, and has to be for "
        "DNS:n1 or URI:callfs:n1 or IP:10.0.0.1"
        for found in ("DNS:x", "DNS:z")
    ]
    assert len(lines) == 2 + 3 * MAX_TOLD


def test_a_node_whose_own_certificate_names_another_does_not_start(authority: Authority) -> None:
    """It says so itself rather than that nobody lets it in; when certificates are reread the old ones stay."""
    with pytest.raises(TLSUnusable, match=r"is for DNS:n2: .* DNS:n1 or URI:callfs:n1 or IP:127\.0\.0\.1"):
        authority.tls("n1", "DNS:n2")
    tls = authority.tls("n1", "DNS:n1")
    authority.certificate("n1", "DNS:n2")
    with pytest.raises(TLSUnusable):
        tls.reload()


class BoundTests(PeerCase):
    """Certificates of one authority, shown by the wrong peer."""

    async def pair(self, a: Sequence[str], b: Sequence[str], a_is: str = "a", b_is: str = "b") -> tuple[Peer, Peer]:
        """Two peers, and the names in their certificates, which they take for their own."""
        authority = Authority(temporary_folder(self), "authority")
        return (
            await self.peer("a", tls=authority.tls("a", *a, node_id=a_is, host="127.0.0.9")),
            await self.peer("b", tls=authority.tls("b", *b, node_id=b_is, host="127.0.0.9")),
        )

    async def refused(self, asking: Peer, asked: Peer) -> HandshakeRefused:
        """Why a connection doesn't come about."""
        error = await error_of(asking.transport.probe(asked.address, asked.name, 5))
        assert isinstance(error, HandshakeRefused)
        assert error.reason == "certificate"
        return error

    async def test_a_certificate_with_the_nodes_id_opens_in_both_directions(self) -> None:
        """Wherever the node is."""
        a, b = await self.pair(["DNS:a"], ["URI:callfs:b"])
        await a.knows(b)
        await b.knows(a)
        assert await a.transport.ask("b", b"this", 5) == b"answer to this"

    async def test_the_commands_of_the_guide_make_certificates_that_open(self) -> None:
        """As they are written there."""
        folder = temporary_folder(self)
        guide = GUIDE.read_text()
        commands, _, _ = guide[guide.index("    openssl req -x509") :].partition("\n\n")
        await deferToThread(
            subprocess.run, ["sh", "-e", "-c", commands], cwd=folder, check=True, capture_output=True
        )
        first, second = (
            PeerTLS(
                folder / f"{node_id}.crt",
                folder / f"{node_id}.key",
                folder / "ca.crt",
                node_id=node_id,
                raft_address="10.0.0.1:7000",
            )
            for node_id in ("node-1", "node-2")
        )
        a, b = await self.peer("node-1", tls=first), await self.peer("node-2", tls=second)
        await a.knows(b)
        await b.knows(a)

    async def test_who_is_reached_has_to_show_its_own_certificate(self) -> None:
        """One for another host or node opens nothing, though it is the authority's and the secret is known."""
        for names in (["IP:127.0.0.9"], ["DNS:a", "IP:127.0.0.9"]):
            a, b = await self.pair(["DNS:a"], names)
            with logged("raft_certificate_refused") as lines:
                error = await self.refused(a, b)
            assert not error.told
            assert lines == [
                f"refused a raft connection with b: its certificate is for {', '.join(names)}, and has to be for "
                "DNS:b or URI:callfs:b or IP:127.0.0.1"
            ]
            assert a.judged == []

    async def test_who_comes_in_has_to_show_its_own_certificate(self) -> None:
        """The same in the other direction: the acceptor refuses, and counts it."""
        a, b = await self.pair(["DNS:c", "IP:127.0.0.9"], ["DNS:b"], a_is="c")
        with logged("raft_certificate_refused") as lines:
            error = await self.refused(a, b)
        assert error.told
        assert str(error) == "the other side refused the raft handshake: certificate"
        assert lines == [
            "refused a raft connection with a: its certificate is for DNS:c, IP:127.0.0.9, and has to be for "
            "DNS:a or URI:callfs:a or IP:127.0.0.1"
        ]
        await until(lambda: b.observer.refused == ["certificate"], "the count")
        assert b.judged == b.reached == []

    async def test_a_member_is_not_believed_about_its_place(self) -> None:
        """Whoever has a certificate for some host could say otherwise that the member has moved there."""
        a, b = await self.pair(["IP:127.0.0.1", "IP:127.0.0.9"], ["DNS:b"])
        b.transport.set_peers({}, {"a": ["127.0.0.2:7000"]})
        assert (await self.refused(a, b)).told
        b.transport.set_peers({}, {"a": ["127.0.0.2:7000", a.address]})
        await a.knows(b)
        a.transport.set_peers({"b": b.address}, {"b": ["127.0.0.2:7000"]})
        assert a.transport.connected() == ("b",)

    async def test_who_is_sought_elsewhere_has_to_be_named_all_the_same(self) -> None:
        """A member that is dialled where it said that it is shows a certificate for its id or its known host."""
        a, b = await self.pair(["DNS:a"], ["IP:127.0.0.1", "IP:127.0.0.9"])
        with logged("raft_certificate_refused") as lines:
            a.transport.set_peers({"b": b.address}, {"b": ["127.0.0.2:7000"]})
            await until(lambda: a.observer.refused, "a refusal")
        assert lines[0].endswith("has to be for DNS:b or URI:callfs:b or IP:127.0.0.2")
        assert a.transport.connected() == ()

    async def test_an_address_is_confirmed_only_by_a_certificate_for_it(self) -> None:
        """A member that asks to be known elsewhere with one for the old place would be lost to the others there."""
        a, b = await self.pair(["DNS:a"], ["IP:127.0.0.9"])
        a.transport.set_peers({}, {"b": ["127.0.0.9:7000"]})
        assert not (await self.refused(a, b)).told

    async def test_who_turns_out_to_be_another_is_dropped(self) -> None:
        """A connection of a stranger ends when the membership says that the name is somebody else's."""
        a, b = await self.pair(["IP:127.0.0.1", "IP:127.0.0.9"], ["IP:127.0.0.1", "IP:127.0.0.9"])
        await a.knows(b)
        a.transport.set_peers({"b": b.address}, {"b": ["127.0.0.2:7000"]})
        await until(lambda: a.transport.connected() == (), "the end of the outgoing connection")
        a.transport.set_peers({"b": b.address}, {"b": [b.address]})
        await until(lambda: a.transport.connected() == ("b",), "a connection")
        b.transport.set_peers({}, {"a": ["127.0.0.2:7000"]})
        await until(lambda: a.transport.connected() == (), "the end of the incoming connection")
        await until(lambda: "certificate" in b.observer.refused, "the count")


class ClusterTests(ClusterCase):
    """Clusters whose nodes show certificates."""

    def certify(self, place: Place, *names: str, host: str = "127.0.0.1") -> None:
        """Give a stopped node another certificate."""
        place.tls = self.authority.tls(place.node_id, *names, host=host)

    async def begun(self, second: str) -> Cluster:
        """
        Two nodes, of which the second has joined.

        :param second: the name in its certificate.
        """
        self.authority = Authority(temporary_folder(self), "authority")
        cluster = self.make(2)
        first, other = cluster.places.values()
        self.certify(first, "DNS:n1")
        self.certify(other, second)
        first.options = {"bootstrap": True}
        await first.start()
        await other.start()
        await cluster.leader()
        await first.node.join("n2", other.address)
        await until(lambda: all(len(each.node.membership().voters) == 2 for each in (first, other)), "its voice")
        await other.node.propose(b"joined")
        return cluster

    async def move(self, place: Place, *names: str) -> None:
        """Start a node again, under another host name."""
        await place.node.stop()
        place.address = place.bind_address.replace("127.0.0.1", "localhost")
        self.certify(place, *names, host="localhost")
        await place.start()

    async def test_a_node_with_a_certificate_for_its_id_moves_freely(self) -> None:
        """Nothing has to be done with it when the address changes."""
        cluster = await self.begun("DNS:n2")
        await self.move(cluster["n2"], "DNS:n2")
        await all_know(cluster)
        await cluster["n2"].node.propose(b"moved")

    async def test_a_node_with_a_certificate_for_both_hosts_moves(self) -> None:
        """The old one lets it in, and the new one is what it is found under."""
        cluster = await self.begun("IP:127.0.0.1")
        await self.move(cluster["n2"], "IP:127.0.0.1", "DNS:localhost")
        await all_know(cluster)
        await cluster["n2"].node.propose(b"moved")

    async def test_a_node_with_a_certificate_for_its_new_host_alone_needs_the_configuration(self) -> None:
        """The others refuse it where they don't know it, until raft.peers says that it is there."""
        cluster = await self.begun("IP:127.0.0.1")
        first, second = cluster["n1"], cluster["n2"]
        with logged("raft_certificate_refused") as lines:
            await self.move(second, "DNS:localhost")
            await until(lambda: lines, "a refusal")
        assert lines[0] == (
            "refused a raft connection with n2: its certificate is for DNS:localhost, and has to be for "
            "DNS:n2 or URI:callfs:n2 or IP:127.0.0.1"
        )
        await first.node.stop()
        first.options = {"peers": {"n2": second.address}}
        await first.start()
        await all_know(cluster)
        await second.node.propose(b"moved")

    async def test_a_join_says_what_is_wrong_with_a_certificate(self) -> None:
        """And nothing has changed."""
        cluster = await self.begun("DNS:n2")
        third = cluster.place("n3")
        third.tls = self.authority.tls("n3", "DNS:n9", node_id="n9")
        await third.start()
        leader = await cluster.leader()
        with pytest.raises(
            ChangeRefused, match=r"its certificate .* is neither for its id nor for the host"
        ) as said:
            await leader.node.join("n3", third.address)
        assert said.value.reason == "certificate"
        assert len(leader.node.membership().members) == 2
