"""Connections between peers, over real sockets."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from callfs.cluster.connections import DeclinedQuestion
from callfs.cluster.frames import MAX_FRAME_BYTES, framed
from callfs.cluster.handshake import NONCE_BYTES, Dialer, HandshakeRefused
from callfs.cluster.identity import PeerIdentity
from callfs.cluster.link import MAX_PAYLOAD_BYTES, DeclinedByPeer, LinkTiming, Unanswered, Unsent
from callfs.cluster.peers import MAX_UNPROVEN, PeerTransport
from callfs.cluster.tls import PeerTLS, TLSUnusable
from callfs.cluster.wire import Answer, Malformed, encode
from tests.cluster.certificates import Authority
from tests.cluster.nodes import SECRET, logged, reactor, temporary_folder, turns, until
from tests.cluster.proxy import TcpProxy
from tests.support.ports import free_port
from tests.support.raft import Recording


class Peer:
    """A transport, and what reaches it."""

    def __init__(
        self,
        name: str,
        secrets_: list[bytes] | None = None,
        tls: PeerTLS | None = None,
        idle_seconds: float = 0.4,
    ) -> None:
        self.name = name
        self.secrets = secrets_ or [SECRET]
        self.cluster_id = "c1"
        self.address = f"127.0.0.1:{free_port()}"
        self.observer = Recording()
        self.messages: list[tuple[str, bytes]] = []
        self.reached: list[str] = []
        self.judged: list[str] = []
        self.refusal: str | None = None
        self.answer: Callable[[bytes], Deferred[bytes]] = lambda question: succeed(b"answer to " + question)
        self.transport = PeerTransport(
            self.address,
            reactor=reactor,
            secrets=lambda: self.secrets,
            token_bytes=secrets.token_bytes,
            random=random.random,
            observer=self.observer,
            timing=LinkTiming(connect_seconds=1.0, idle_seconds=idle_seconds, longest_retry_seconds=0.1),
            tls=tls,
        )

    def identity(self) -> PeerIdentity:
        return PeerIdentity(self.name, self.cluster_id, f"disk of {self.name}", 1, self.address, "")

    def admit(self, peer: PeerIdentity) -> str | None:
        self.judged.append(peer.node_id)
        return self.refusal

    def opened(self, peer: PeerIdentity) -> None:
        pass

    def reached_by(self, peer: PeerIdentity) -> None:
        self.reached.append(peer.node_id)

    def message(self, peer: PeerIdentity, payload: bytes) -> None:
        if payload == b"nonsense":
            raise Malformed("nonsense")
        self.messages.append((peer.node_id, payload))

    def asked(self, peer: PeerIdentity, payload: bytes) -> Deferred[bytes]:
        return self.answer(payload)

    async def knows(self, *others: Peer, through: str | None = None) -> None:
        """Connect, and wait for it."""
        self.transport.set_peers({other.name: through or other.address for other in others})
        names = tuple(sorted(other.name for other in others))
        await until(lambda: self.transport.connected() == names, "connections")


async def error_of(deferred: Deferred[Any]) -> BaseException:
    """What it fails with."""
    try:
        await deferred
    except BaseException as error:
        return error
    raise AssertionError("it didn't fail")


class PeerCase(TestCase):
    """Makes peers, and stops them."""

    timeout = 30

    async def peer(self, name: str, **options: Any) -> Peer:
        """A peer that listens."""
        peer = Peer(name, **options)
        await peer.transport.start(peer.identity, peer)
        self.addCleanup(peer.transport.stop)
        return peer

    def proxy(self, to: Peer) -> TcpProxy:
        """A way to a peer that can be disturbed."""
        proxy = TcpProxy(reactor, to.transport.port)
        self.addCleanup(lambda: Deferred.fromCoroutine(proxy.close()))
        return proxy


class TalkingTests(PeerCase):
    """Messages and questions."""

    async def test_messages_arrive_in_order_with_their_sender(self) -> None:
        """What one peer sends the other gets, and knows from whom."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        for number in range(100):
            a.transport.send("b", b"%d" % number)
        await until(lambda: len(b.messages) == 100, "all messages")
        assert b.messages == [("a", b"%d" % number) for number in range(100)]

    async def test_who_is_reached_is_told_by_whom(self) -> None:
        """Also when nothing is sent: a member that moved says so by connecting."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        assert b.reached == ["a"]
        assert a.reached == []

    async def test_questions_are_answered_or_declined(self) -> None:
        """An answer, a refusal with its reason, and a failure are told apart."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        assert await a.transport.ask("b", b"this", 5) == b"answer to this"
        b.answer = lambda _: fail(DeclinedQuestion("not_leader"))
        declined = await error_of(a.transport.ask("b", b"this", 5))
        assert isinstance(declined, DeclinedByPeer)
        assert declined.reason == "not_leader"
        b.answer = lambda _: fail(RuntimeError("broken"))
        broken = await error_of(a.transport.ask("b", b"this", 5))
        assert isinstance(broken, DeclinedByPeer)
        assert broken.reason == "failed"

    async def test_a_question_without_an_answer_is_given_up(self) -> None:
        """Whoever asked learns that the question may have arrived."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        b.answer = lambda _: Deferred()
        assert isinstance(await error_of(a.transport.ask("b", b"this", 0.1)), Unanswered)

    async def test_without_a_way_a_question_is_certainly_not_sent(self) -> None:
        """Unknown peers, unreachable ones, and questions that are too long."""
        # Who sends the longest answer there can be doesn't listen meanwhile, for longer where much else runs.
        a, b = await self.peer("a", idle_seconds=8.0), await self.peer("b", idle_seconds=8.0)
        assert isinstance(await error_of(a.transport.ask("b", b"this", 1)), Unsent)
        a.transport.set_peers({"c": "127.0.0.1:1"})
        assert isinstance(await error_of(a.transport.ask("c", b"this", 1)), Unsent)
        await a.knows(b)
        assert isinstance(await error_of(a.transport.ask("b", bytes(MAX_PAYLOAD_BYTES + 1), 1)), Unsent)
        answered = await a.transport.ask("b", bytes(MAX_PAYLOAD_BYTES - 10), 10)
        assert len(answered) == MAX_PAYLOAD_BYTES

    async def test_a_broken_way_fails_what_was_asked(self) -> None:
        """A question whose connection ends may have arrived; the way is made anew."""
        a, b = await self.peer("a"), await self.peer("b")
        proxy = self.proxy(b)
        await a.knows(b, through=proxy.address)
        b.answer = lambda _: Deferred()
        asking = a.transport.ask("b", b"this", 5)
        await until(lambda: len(proxy.sides) == 2, "a connection")
        proxy.cut()
        assert isinstance(await error_of(asking), Unanswered)
        await until(lambda: a.transport.connected() == ("b",), "a new connection")

    async def test_a_peer_that_starts_later_is_found(self) -> None:
        """Dialling goes on until somebody answers."""
        a, b = await self.peer("a"), Peer("b")
        a.transport.set_peers({"b": b.address})
        a.transport.send("b", b"lost")
        assert a.observer.lost == ["b"]
        await b.transport.start(b.identity, b)
        self.addCleanup(b.transport.stop)
        await until(lambda: a.transport.connected() == ("b",), "a connection")

    async def test_peers_that_are_no_longer_named_are_let_go(self) -> None:
        """Connections are kept to those that are named, and to no others."""
        a, b, c = await self.peer("a"), await self.peer("b"), await self.peer("c")
        await a.knows(b, c)
        await a.knows(c)
        await until(lambda: a.observer.connected == {"b": False, "c": True}, "the end of one connection")
        await a.knows()

    async def test_a_new_identity_is_told_by_new_connections(self) -> None:
        """After a change all connections are made anew, in both directions."""
        a, b = await self.peer("a"), await self.peer("b")
        a.cluster_id = ""
        await a.knows(b)
        a.cluster_id = "c1"
        a.transport.identity_changed()
        await until(lambda: a.transport.connected() == (), "the end of the old connection")
        await until(lambda: a.transport.connected() == ("b",), "a connection")

    async def test_a_slow_peer_loses_messages_not_memory(self) -> None:
        """When a peer doesn't read, a bounded number waits and the rest is thrown away and counted."""
        a, b = await self.peer("a"), await self.peer("b")
        proxy = self.proxy(b)
        await a.knows(b, through=proxy.address)
        proxy.stop_reading()
        for _ in range(200):
            a.transport.send("b", bytes(1024 * 1024))
        assert len(a.observer.lost) > 100


class StrangersTests(PeerCase):
    """Who isn't let in, and what is done about it."""

    async def test_a_peer_with_another_secret_is_refused_and_counted(self) -> None:
        """Neither side hears anything from the other, and both count it."""
        a, b = await self.peer("a", secrets_=[b"another"]), await self.peer("b")
        a.transport.set_peers({"b": b.address})
        await until(lambda: "secret" in a.observer.refused and "secret" in b.observer.refused, "refusals")
        assert a.transport.connected() == ()

    async def test_a_replaced_secret_is_used_without_a_restart(self) -> None:
        """Secrets are looked up for every handshake."""
        a, b = await self.peer("a", secrets_=[b"new"]), await self.peer("b")
        a.transport.set_peers({"b": b.address})
        await until(lambda: "secret" in a.observer.refused, "a refusal")
        b.secrets = [SECRET, b"new"]
        await until(lambda: a.transport.connected() == ("b",), "a connection")

    async def test_another_node_at_the_address_is_refused(self) -> None:
        """A node that isn't who it should be gets no messages."""
        a, b = await self.peer("a"), await self.peer("b")
        a.transport.set_peers({"c": b.address})
        await until(lambda: "node" in a.observer.refused, "a refusal")
        assert a.transport.connected() == ()

    async def test_a_probe_says_who_is_there(self) -> None:
        """A probe finds a node, or says what is wrong."""
        a, b = await self.peer("a"), await self.peer("b")
        assert await a.transport.probe(b.address, "", 5) == b.identity()
        assert await a.transport.probe(b.address, "b", 5) == b.identity()
        for address, node_id, wanted in (
            (b.address, "c", HandshakeRefused),
            (a.address, "", HandshakeRefused),
            ("127.0.0.1:1", "", Unsent),
            ("no address", "", Unsent),
            (":1", "", Unsent),
        ):
            assert isinstance(await error_of(a.transport.probe(address, node_id, 5)), wanted), address

    async def test_a_probe_does_not_disturb_a_connection(self) -> None:
        """Who is connected already is asked nothing, and stays connected."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        b.answer = lambda _: Deferred()
        asking = a.transport.ask("b", b"this", 1.0)
        assert await a.transport.probe(b.address, "b", 5) == b.identity()
        assert isinstance(await error_of(asking), Unanswered)
        assert a.observer.connected == {"b": True}
        assert b.observer.refused == []

    async def test_a_probe_of_a_silent_address_ends(self) -> None:
        """Somebody who accepts and says nothing isn't waited for forever."""
        a = await self.peer("a")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            error = await error_of(a.transport.probe(f"127.0.0.1:{silent.getsockname()[1]}", "", 0.2))
        assert isinstance(error, Unsent)

    async def raw(self, peer: Peer, data: bytes) -> bytes:
        """Send bytes to a peer, and read until it closes the connection."""

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", peer.transport.port), timeout=10) as connection:
                received = b""
                with contextlib.suppress(ConnectionError):
                    connection.sendall(data)
                    while piece := connection.recv(65536):
                        received += piece
                return received

        answer: bytes = await deferToThread(talk)
        return answer

    async def test_garbage_is_dropped_and_counted(self) -> None:
        """Bytes that are no handshake end the connection, and nothing else."""
        b = await self.peer("b")
        await self.raw(b, framed(b"garbage"))
        assert b.observer.refused == ["malformed"]
        await self.raw(b, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b.observer.refused == ["malformed", "too_long"]

    async def test_a_large_frame_of_a_stranger_is_refused_before_it_is_read(self) -> None:
        """Who isn't proven may send little; the length alone is enough to refuse."""
        b = await self.peer("b")
        assert await self.raw(b, (9000).to_bytes(4, "big")) == b""
        assert b.observer.refused == ["too_long"]

    async def test_a_silent_stranger_is_sent_away(self) -> None:
        """A connection on which no handshake comes is closed in time."""
        b = await self.peer("b")
        assert await self.raw(b, b"") == b""
        assert b.observer.refused == ["handshake_timeout"]

    async def test_a_crowd_of_strangers_is_kept_out(self) -> None:
        """Only so many connections may be unproven at a time; peers that are in stay."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        crowd = [socket.create_connection(("127.0.0.1", b.transport.port)) for _ in range(MAX_UNPROVEN + 5)]
        try:
            await until(lambda: b.observer.refused.count("crowded") >= 5, "refusals")
            assert await a.transport.ask("b", b"still", 5) == b"answer to still"
        finally:
            for each in crowd:
                each.close()

    async def test_a_silent_crowd_does_not_keep_a_peer_out(self) -> None:
        """Whoever has been silent for longest makes room for who comes."""
        a, b = await self.peer("a"), await self.peer("b")
        crowd = [socket.create_connection(("127.0.0.1", b.transport.port)) for _ in range(MAX_UNPROVEN)]
        try:
            await a.knows(b)
            assert b.observer.refused == ["crowded"]
            assert a.observer.refused == []
        finally:
            for each in crowd:
                each.close()

    async def proven(self, b: Peer, *frames: bytes) -> None:
        """Come in with the secret, then send frames, and wait for the end."""

        def talk() -> None:
            identity = PeerIdentity("a", "c1", "disk of a", 1, "127.0.0.1:1", "")
            dialer = Dialer(identity, "b", [SECRET], bytes(NONCE_BYTES), lambda _: None)
            with socket.create_connection(("127.0.0.1", b.transport.port), timeout=10) as connection:
                connection.sendall(framed(dialer.first()))
                proof = dialer.received(_frame(connection))
                assert proof is not None
                connection.sendall(framed(proof))
                assert dialer.received(_frame(connection)) is None
                with contextlib.suppress(ConnectionError):
                    for each in frames:
                        connection.sendall(each)
                    while connection.recv(65536):
                        pass

        await deferToThread(talk)

    async def test_a_proven_peer_that_talks_nonsense_is_dropped(self) -> None:
        """The secret is no licence: what isn't understood ends the connection."""
        b = await self.peer("b")
        await self.proven(b, framed(b"\xc1"))
        await self.proven(b, framed(encode(Answer(1, b"nobody asked"))))
        await self.proven(b, framed(msgspec.msgpack.encode([2, b"nonsense"])))
        assert b.observer.refused == ["malformed"] * 3

    async def test_a_frame_over_the_limit_is_refused_before_it_is_read(self) -> None:
        """Of a proven peer's frame over 16 MiB nothing is kept."""
        b = await self.peer("b")
        await self.proven(b, (MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
        assert b.observer.refused == ["too_long"]

    async def test_random_bytes_hurt_nobody(self) -> None:
        """Streams of chance, before and after the proof, end at most their own connection."""
        a, b = await self.peer("a"), await self.peer("b")
        chance = random.Random(5)
        for _ in range(30):
            await self.raw(b, framed(chance.randbytes(chance.randrange(1, 200))))
        for _ in range(30):
            frames = [framed(chance.randbytes(chance.randrange(1, 200))) for _ in range(3)]
            await self.proven(b, *frames, framed(b"\xc1"))
        await a.knows(b)
        assert await a.transport.ask("b", b"well", 5) == b"answer to well"

    async def test_a_copy_of_a_peer_is_refused_while_that_is_heard(self) -> None:
        """Two processes with one name and one disk would be taken for one; a node that moved is gone elsewhere."""
        one, two, copy = await self.peer("one"), await self.peer("two"), await self.peer("two")
        await two.knows(one)
        copy.transport.set_peers({"one": one.address})
        await until(lambda: "twin" in copy.observer.refused, "the refusal of the copy")
        two.transport.send("one", b"the node itself")
        await until(lambda: one.messages == [("two", b"the node itself")], "the node's own message")
        assert copy.transport.connected() == ()
        await two.transport.stop()
        await copy.knows(one)

    async def test_a_second_connection_of_a_peer_replaces_the_first(self) -> None:
        """A peer that comes again has forgotten its earlier connection."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        again = Peer("a")
        await again.transport.start(again.identity, again)
        self.addCleanup(again.transport.stop)
        again.address = a.address
        again.transport.set_peers({"b": b.address})
        await until(lambda: again.transport.connected() == ("b",), "the second")
        await until(lambda: a.observer.connected["b"] is False, "the end of the first")
        await a.transport.stop()


class DeadConnectionsTests(PeerCase):
    """Connections that die without a word."""

    async def test_a_way_that_swallows_everything_is_noticed_by_both_sides(self) -> None:
        """Both give the connection up; when the way is good again a new one is made."""
        a, b = await self.peer("a"), await self.peer("b")
        proxy = self.proxy(b)
        await a.knows(b, through=proxy.address)
        proxy.swallows = True
        await until(lambda: "idle" in a.observer.refused or "idle" in b.observer.refused, "notice")
        assert a.transport.connected() == ()
        proxy.swallows = False
        await until(lambda: a.transport.connected() == ("b",), "a new connection")

    async def test_a_quiet_connection_stays(self) -> None:
        """Nothing to say is no reason to hang up."""
        a, b = await self.peer("a"), await self.peer("b")
        await a.knows(b)
        deferred: Deferred[None] = Deferred()
        reactor.callLater(1.5, deferred.callback, None)
        await deferred
        assert a.observer.connected == {"b": True}
        assert a.observer.refused == b.observer.refused == []


class LosingTests(PeerCase):
    """What is said of connections that end."""

    async def test_a_lost_connection_is_told_once(self) -> None:
        """With what the network says; as long as it stays so, nothing more."""
        a, b = await self.peer("a"), await self.peer("b")
        proxy = self.proxy(b)
        with logged("raft_peer_lost") as lines:
            await a.knows(b, through=proxy.address)
            assert lines == []
            await proxy.close()
            await until(lambda: a.transport.connected() == (), "the end")
            await until(lambda: len(lines) >= 2, "the first attempt")
            await turns(0.5)
        assert lines[0].startswith("no raft connection to b: Connection")
        assert len(lines) == 2
        assert "refused" in lines[1]

    async def test_one_who_joins_a_cluster_and_is_gone_is_told_of(self) -> None:
        """That it makes its connections anew is in order; that it can't be reached then isn't."""
        a, b = await self.peer("a"), await self.peer("b")
        b.cluster_id = ""
        with logged("raft_peer_lost") as lines:
            await a.knows(b)
            b.cluster_id = "c1"
            b.transport.identity_changed()
            await until(lambda: a.transport.connected() == (), "the end")
            await until(lambda: a.transport.connected() == ("b",), "another connection")
            assert lines == []
            b.cluster_id = ""
            b.transport.identity_changed()
            await until(lambda: lines, "the loss of a member")
            await until(lambda: a.transport.connected() == ("b",), "another connection")
            del lines[:]
            await b.transport.stop()
            await until(lambda: lines, "the failed attempt")
        assert "refused" in lines[0]


class TLSTests(PeerCase):
    """Mutual TLS."""

    def authority(self, name: str = "authority") -> Authority:
        """An authority with a folder of its own."""
        return Authority(temporary_folder(self), name)

    async def test_peers_with_certificates_of_one_authority_talk(self) -> None:
        """TLS first, then the same handshake."""
        authority = self.authority()
        a, b = await self.peer("a", tls=authority.tls("a")), await self.peer("b", tls=authority.tls("b"))
        await a.knows(b)
        await b.knows(a)
        assert await a.transport.ask("b", b"this", 5) == b"answer to this"
        assert await b.transport.ask("a", b"that", 5) == b"answer to that"

    async def test_a_peer_with_a_foreign_certificate_is_refused(self) -> None:
        """Another authority's certificate opens nothing, even with the secret."""
        ours, theirs = self.authority("ours"), self.authority("theirs")
        a, b = await self.peer("a", tls=theirs.tls("a", trusts=ours)), await self.peer("b", tls=ours.tls("b"))
        a.transport.set_peers({"b": b.address})
        assert isinstance(await error_of(a.transport.probe(b.address, "b", 2)), Unsent)
        assert a.transport.connected() == ()

    async def test_the_secret_is_needed_with_tls_too(self) -> None:
        """A certificate alone opens nothing."""
        authority = self.authority()
        a = await self.peer("a", tls=authority.tls("a"), secrets_=[b"another"])
        b = await self.peer("b", tls=authority.tls("b"))
        error = await error_of(a.transport.probe(b.address, "b", 5))
        assert isinstance(error, HandshakeRefused)
        assert error.reason == "secret"

    async def test_certificates_are_replaced_without_a_restart(self) -> None:
        """After a reload new connections show the new certificate; files that can't be used change nothing."""
        authority = self.authority()
        stale, fresh = authority.tls("a"), authority.tls("b", "IP:127.0.0.9", host="127.0.0.9")
        a, b = await self.peer("a", tls=stale), await self.peer("b", tls=fresh)
        a.transport.set_peers({"b": b.address})
        assert isinstance(await error_of(a.transport.probe(b.address, "b", 1)), HandshakeRefused)
        cert_file, _ = authority.certificate("b", "IP:127.0.0.9", "DNS:b")
        fresh.reload()
        await until(lambda: a.transport.connected() == ("b",), "a connection")
        cert_file.write_text("nothing")
        with pytest.raises(TLSUnusable):
            fresh.reload()
        b.transport.identity_changed()
        a.transport.identity_changed()
        await until(lambda: a.observer.connected["b"] is False, "the end of the connection")
        await until(lambda: a.transport.connected() == ("b",), "a new connection")

    async def test_plain_and_tls_peers_do_not_meet(self) -> None:
        """Whoever isn't configured for TLS can't talk to who is, in either direction."""
        authority = self.authority()
        a, b = await self.peer("a"), await self.peer("b", tls=authority.tls("b"))
        assert isinstance(await error_of(a.transport.probe(b.address, "b", 1)), Unsent)
        assert isinstance(await error_of(b.transport.probe(a.address, "a", 1)), Unsent)

    def test_files_that_do_not_fit_are_refused(self) -> None:
        """Missing files, files that are no certificates, and keys of others are told from the start."""
        authority = self.authority()
        cert_file, key_file = authority.certificate("a", "DNS:a")
        _, other_key = authority.certificate("b", "DNS:b")
        for files in (
            (cert_file, other_key, authority.ca_file),
            (cert_file, key_file, cert_file.with_name("missing")),
            (key_file, key_file, authority.ca_file),
            (cert_file, cert_file, authority.ca_file),
        ):
            with pytest.raises(TLSUnusable):
                PeerTLS(*files, node_id="a", raft_address="127.0.0.1:7000")


def _frame(connection: socket.socket) -> bytes:
    """The next frame."""

    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = connection.recv(size - len(data))
            assert piece, "the connection ended"
            data += piece
        return data

    return exactly(int.from_bytes(exactly(4), "big"))
