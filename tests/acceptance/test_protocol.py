"""HTTP/1.1 on the wire: limits, malformed requests, pipelining, slow, stalled and vanishing peers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import DaemonShare, StartDaemon, shown_on_failure
from tests.acceptance.test_common import assert_common_headers
from tests.support.daemon import Daemon
from tests.support.http import Client, Wire
from tests.support.waiting import eventually, pace, stays

TIMEOUT_SECONDS = 1.5


@pytest.fixture(scope="module")
def swift_share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonShare]:
    """Keeps a daemon with short timeouts for this module."""
    timeouts = {"server": {"read_timeout": TIMEOUT_SECONDS, "write_timeout": TIMEOUT_SECONDS}}
    share = DaemonShare(lambda: tmp_path_factory.mktemp("swift-daemon"), timeouts)
    yield share
    share.close()


@pytest.fixture
def swift(swift_share: DaemonShare, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon whose read and write timeouts are 1.5 s."""
    daemon = swift_share.daemon()
    shown_on_failure(request, daemon)
    yield daemon
    assert daemon.running


@pytest.fixture
def dora(swift: Daemon, request: pytest.FixtureRequest) -> Iterator[Client]:
    """An ordinary user of the daemon with short timeouts."""
    client = swift.client("alice")
    yield client
    client.close()


def refusal(wire: Wire, status: int, code: str) -> None:
    """The parser's own refusal looks like all others, and the connection ends."""
    answer = wire.read_answer()
    answer.refused(status, code)
    assert_common_headers(answer)
    assert answer.closes
    assert wire.ends()


class TestMalformed:
    @pytest.mark.parametrize(
        "head",
        [
            b"GARBAGE",
            b"GET",
            b"GET /health",
            b"GET /health HTTP/1.1 x",
            b"GET /health HTTX/1.1",
            b"GET /health HTTP/1.1.1",
            b"G\x00T /health HTTP/1.1\r\nHost: x",
            b"GET /he\x00alth HTTP/1.1\r\nHost: x",
            b"GET /health HTTP/1.1\r\nHost: x\r\nno colon",
            b"GET /health HTTP/1.1\r\nHost: x\r\nspace before : colon",
            b"GET /health HTTP/1.1\r\nHost: x\r\n: no name",
            b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\x00b",
            b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y",
            b"GET /health HTTP/1.1",
            b"GET /health HTTP/1.1\r\n first: folded\r\nHost: x",
            b"GET /health#x HTTP/1.1\r\nHost: x",
            b"GET http:///health HTTP/1.1\r\nHost: x",
            b"GET http://user@x/health HTTP/1.1\r\nHost: x",
        ],
    )
    def test_head(self, nobody: Client, head: bytes) -> None:
        """A malformed request is 400 BAD_REQUEST with all the usual headers, then the connection closes."""
        with nobody.connect() as wire:
            wire.send(head + b"\r\n\r\n")
            refusal(wire, 400, "BAD_REQUEST")

    @pytest.mark.parametrize(
        "length", ["abc", "-1", "+5", "5.0", "0x5", "1_0", "5,6", "5 5", "", "99999999999999999999999999", "\u0665"]
    )
    def test_content_length(self, alice: Client, home: str, length: str) -> None:
        """A Content-Length that is no number, or out of all measure, is refused."""
        with alice.connect() as wire:
            wire.send_request("PUT", f"/v1/files{home}/f", {**alice.authorization(), "Content-Length": length})
            wire.send(b"hello")
            assert wire.read_answer().status in (400, 413)
            assert wire.ends()
        assert alice.names(home) == []

    @pytest.mark.parametrize(
        "framing",
        [
            b"Content-Length: 5\r\nContent-Length: 6",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding:\x0bchunked",
            b"Content-Length: 5\r\nTransfer-Encoding: nonsense",
        ],
    )
    def test_framing(self, alice: Client, home: str, framing: bytes) -> None:
        """Where the end of a body isn't beyond doubt, the request is refused and the connection closes."""
        head = f"PUT /v1/files{home}/f HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.key}\r\n".encode()
        with alice.connect() as wire:
            wire.send(head + framing + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = wire.read_answer()
            assert answer.status in (400, 501)
            assert_common_headers(answer)
            assert wire.ends()
        assert alice.names(home) == []

    @pytest.mark.parametrize(
        "body",
        [
            b"zz\r\nhello\r\n0\r\n\r\n",
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"ffffffffffffffffffff\r\nhello",
            b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        ],
        ids=[
            "letters",
            "minus",
            "plus",
            "hex",
            "longer",
            "no end",
            "empty",
            "two",
            "huge",
            "extension",
            "trailers",
        ],
    )
    @pytest.mark.parametrize("old", [False, True])
    def test_chunk(self, alice: Client, home: str, body: bytes, old: bool) -> None:
        """A malformed chunked body is refused, the connection closes, and nothing is stored."""
        path = f"{home}/f"
        if old:
            alice.stored(path, b"old")
        with alice.connect() as wire:
            wire.send_request("PUT", f"/v1/files{path}", {**alice.authorization(), "Transfer-Encoding": "chunked"})
            wire.send_while_unanswered([body])
            answer = wire.read_answer()
            assert answer.status in (400, 413, 431)
            assert_common_headers(answer)
            assert wire.ends()
        assert stays(lambda: (alice.content(path) == b"old") if old else not alice.exists(path), for_seconds=0.1)

    def test_chunk_extension_and_trailers(self, alice: Client, home: str) -> None:
        """Chunk extensions and trailers are legal, in any case of the digits."""
        with alice.connect() as wire:
            head = {**alice.authorization(), "Transfer-Encoding": "Chunked"}
            wire.send_request("PUT", f"/v1/files{home}/f", head)
            wire.send(b'00A;name="value"\r\n0123456789\r\n5\r\nhello\r\n0\r\nX-Trailer: x\r\n\r\n')
            wire.send_request("GET", "/health")
            assert wire.read_answer().status == 201
            assert wire.read_answer().json() == {"status": "ok"}
        assert alice.content(f"{home}/f") == b"0123456789hello"

    def test_noise(self, daemon: Daemon, nobody: Client) -> None:
        """Whatever bytes arrive, the daemon goes on and no error goes unhandled."""
        rng = random.Random(9)
        seeds = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PUT /v1/files/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
        ]
        before = len(daemon.log_text())
        for number in range(150):
            noise = bytearray(rng.randbytes(rng.randrange(1, 300)) if number % 2 else rng.choice(seeds))
            for _ in range(rng.randrange(4)):
                noise[rng.randrange(len(noise))] = rng.randrange(256)
            with Wire(daemon.address) as wire, contextlib.suppress(ConnectionResetError, BrokenPipeError):
                wire.send(bytes(noise))
                wire.half_close()
                wire.read_to_end()
        assert nobody.request("GET", "/health").status == 200
        assert "Traceback" not in daemon.log_text()[before:]

    def test_tls_hello(self, daemon: Daemon, nobody: Client) -> None:
        """A TLS handshake on the plain port is ended at once."""
        with Wire(daemon.address, timeout_seconds=10) as wire:
            wire.send(bytes.fromhex("16030100a5010000a10303") + bytes(160) + b"\r\n\r\n")
            wire.read_to_end()
        assert nobody.request("GET", "/health").status == 200


class TestLimits:
    def test_target(self, nobody: Client) -> None:
        """A request target beyond limits is 414 URI_TOO_LONG."""
        with nobody.connect() as wire:
            wire.send_while_unanswered([b"GET /v1/files/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"])
            refusal(wire, 414, "URI_TOO_LONG")

    def test_endless_target(self, nobody: Client) -> None:
        """A target that never ends is refused before it ends."""
        with nobody.connect() as wire:
            assert not wire.send_while_unanswered([b"GET /"] + [b"a" * 10_000] * 2000)
            assert wire.read_answer().refused(414, "URI_TOO_LONG")

    @pytest.mark.parametrize(
        "headers",
        [b"X: " + b"a" * 200_000, b"X" * 200_000 + b": a", b"\r\n".join(b"X-%d: a" % n for n in range(5000))],
        ids=["value", "name", "number"],
    )
    def test_headers(self, nobody: Client, headers: bytes) -> None:
        """Headers too large or too many are 431 HEADERS_TOO_LARGE."""
        with nobody.connect() as wire:
            wire.send_while_unanswered([b"GET /health HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n"])
            refusal(wire, 431, "HEADERS_TOO_LARGE")

    def test_endless_headers(self, nobody: Client) -> None:
        """Headers that never end are refused before they end."""
        with nobody.connect() as wire:
            assert not wire.send_while_unanswered([b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X: a\r\n" * 1000] * 2000])
            assert wire.read_answer().refused(431, "HEADERS_TOO_LARGE")

    def test_ordinary_headers(self, alice: Client) -> None:
        """Fifty headers and a cookie of 4 KiB are nothing unusual."""
        headers = {f"X-Header-{number}": "value" for number in range(50)} | {"Cookie": "c" * 4096}
        assert alice.request("GET", "/v1/files/", None, headers).status == 200

    def test_two_thousand_idle_connections(self, start_daemon: StartDaemon) -> None:
        """Thousands of connections are taken at once, and idle they don't keep others from being served."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard >= 6000, "this test needs more open files: raise the hard limit (ulimit -Hn) to 6000"
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 6000), hard))
        daemon = start_daemon({"server": {"read_timeout": "120s"}})
        alice = daemon.client()
        idle: list[socket.socket] = []
        try:
            began = time.monotonic()
            for _ in range(2000):
                idle.append(socket.create_connection(daemon.address))
            assert time.monotonic() - began < 10, "connections wait in line: is the listening queue too short?"
            eventually(lambda: daemon.open_descriptors() > 2000, what="two thousand connections")
            began = time.monotonic()
            for number in range(50):
                assert alice.content(alice.stored(f"/f{number}", b"x")) == b"x"
            assert time.monotonic() - began < 10
            idle[0].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle[0].recv(100).startswith(b"HTTP/1.1 200 ")
        finally:
            for connection in idle:
                connection.close()
            alice.close()
        eventually(lambda: daemon.open_descriptors() < 100, what="their descriptors")

    def test_max_connections(self, start_daemon: StartDaemon) -> None:
        """Beyond limits.max_connections a new connection gets 503; when one ends there is room again."""
        daemon = start_daemon({"limits": {"max_connections": 5}})
        eventually(lambda: daemon.health("/health"), what="an answer")
        wires: list[Wire] = []

        def full() -> bool:
            wire = Wire(daemon.address)
            wire.send_request("GET", "/health")
            if wire.read_answer().status == 503:
                wire.close()
                return True
            wires.append(wire)
            return False

        eventually(full, what="the limit")
        assert len(wires) == 5
        assert full()
        wires[0].send_request("GET", "/health")
        assert wires[0].read_answer().status == 200
        wires[1].close()
        eventually(lambda: not full(), what="room for another")
        for wire in wires:
            wire.close()


class TestConnections:
    def test_keep_alive(self, alice: Client, home: str) -> None:
        """Many requests share one connection, whatever the answers."""
        path = alice.stored(f"{home}/f", b"x")
        with alice.connect() as wire:
            for _ in range(30):
                for method, target, status in (("GET", path, 200), ("HEAD", path, 200), ("GET", path + "-", 404)):
                    wire.send_request(method, f"/v1/files{target}", alice.authorization())
                    assert wire.read_answer(method).status == status

    def test_close(self, nobody: Client) -> None:
        """Connection: close is honoured and repeated."""
        with nobody.connect() as wire:
            wire.send_request("GET", "/health", {"Connection": "close"})
            assert wire.read_answer().closes
            assert wire.ends()

    def test_pipelined_reads(self, alice: Client, home: str) -> None:
        """Requests sent without waiting are answered in order."""
        paths = [alice.stored(f"{home}/{n}", b"%d" % n * (1 + 70_000 * (n % 3))) for n in range(9)]
        with alice.connect() as wire:
            for path in paths:
                wire.send_request("GET", f"/v1/files{path}", alice.authorization())
            for number, _ in enumerate(paths):
                assert wire.read_answer().body == b"%d" % number * (1 + 70_000 * (number % 3))

    @pytest.mark.parametrize("chunked", [False, True])
    def test_pipelined_write_and_read(self, alice: Client, home: str, chunked: bool) -> None:
        """A body followed at once by the next request: the write happens, then the read sees it."""
        framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 5"
        body = b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n" if chunked else b"hello"
        common = f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.key}\r\n"
        post = f"POST /v1/files{home}/f{common}{framing}\r\n\r\n".encode() + body
        get = f"GET /v1/files{home}/f{common}\r\n".encode()
        with alice.connect() as wire:
            wire.send(post + get + post + get)
            assert wire.read_answer().status == 201
            assert wire.read_answer().body == b"hello"
            assert wire.read_answer().status == 409
            with contextlib.suppress(EOFError):  # after the refusal the connection may close
                assert wire.read_answer().body == b"hello"

    def test_byte_by_byte(self, alice: Client, home: str) -> None:
        """A request may arrive in pieces of one byte."""
        common = f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {alice.key}\r\n"
        with alice.connect() as wire:
            for (
                byte
            ) in f"PUT /v1/files{home}/f{common}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".encode():
                wire.send(bytes([byte]))
            assert wire.read_answer().status == 201
        assert alice.content(f"{home}/f") == b"hi"

    def test_http_1_0(self, alice: Client, home: str) -> None:
        """HTTP/1.0 is answered without chunks, streamed listings too, and the connection ends."""
        path = alice.stored(f"{home}/f", b"hello")
        for target in (f"/v1/files{path}", f"/v1/files{home}", f"/v1/directories{home}", "/health"):
            with alice.connect() as wire:
                wire.send(f"GET {target} HTTP/1.0\r\nAuthorization: Bearer {alice.key}\r\n\r\n".encode())
                answer = wire.read_answer()
                assert answer.status == 200
                assert answer.get("Transfer-Encoding") is None
                assert answer.body == b"hello" if target.endswith("/f") else json.loads(answer.body)
                assert wire.ends()

    def test_absolute_form(self, alice: Client, home: str) -> None:
        """A target in absolute form is understood (RFC 9112, 3.2.2)."""
        path = alice.stored(f"{home}/f", b"hello")
        assert alice.request("GET", f"http://127.0.0.1/v1/files{path}").body == b"hello"


class TestVanishing:
    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("how", ["half_close", "close", "reset"])
    @pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
    def test_in_an_upload(self, alice: Client, home: str, how: str, framing: str, old: bool) -> None:
        """A body shorter than declared stores nothing, and what was there stays."""
        path = f"{home}/f"
        if old:
            alice.stored(path, b"old")
        name, _, value = framing.partition(": ")
        wire = alice.connect()
        wire.send_request("PUT", f"/v1/files{path}", {**alice.authorization(), name: value})
        wire.send(b"5\r\nhello\r\n" * 10)
        getattr(wire, how)()
        if how == "half_close":
            received = wire.read_to_end()
            assert b" 20" not in received[:12]
            wire.close()
        assert stays(lambda: (alice.content(path) == b"old") if old else not alice.exists(path), for_seconds=0.3)

    def test_resources_are_given_back(self, daemon: Daemon, alice: Client, home: str) -> None:
        """Clients that vanish, in either direction, leave no descriptor and no staged bytes behind."""
        path = alice.stored(f"{home}/large", bytes(8 << 20))
        before = daemon.open_descriptors()
        staged_before = len(list((daemon.root / "staging").iterdir()))
        for _ in range(10):
            down, up = alice.connect(receive_buffer_bytes=32_768), alice.connect()
            down.send_request("GET", f"/v1/files{path}", alice.authorization())
            up.send_request("PUT", f"/v1/files{home}/f", {**alice.authorization(), "Content-Length": "10000000"})
            up.send(bytes(200_000))
            assert down.read_exactly(10_000)
            down.reset()
            up.reset()
        eventually(lambda: daemon.open_descriptors() <= before + 1, what="the descriptors")
        eventually(
            lambda: len(list((daemon.root / "staging").iterdir())) <= staged_before,
            what="the end of the staged files",
        )
        assert alice.content(path) == bytes(8 << 20)


class TestTimeouts:
    def test_slow_headers(self, dora: Client) -> None:
        """Headers that aren't complete within read_timeout of their first byte are 408, however they trickle."""
        with dora.connect() as wire:
            began = time.monotonic()
            wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX: ")
            while not wire.readable(0.2):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    wire.send(b"a")
                assert time.monotonic() - began < TIMEOUT_SECONDS + 4
            assert time.monotonic() - began > TIMEOUT_SECONDS - 0.3
            refusal(wire, 408, "REQUEST_TIMEOUT")

    def test_second_request_too(self, dora: Client) -> None:
        """The limit holds for every request of a connection."""
        with dora.connect() as wire:
            wire.send_request("GET", "/health")
            assert wire.read_answer().status == 200
            wire.send(b"GET /health HT")
            refusal(wire, 408, "REQUEST_TIMEOUT")

    @pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
    def test_idle_connection(self, dora: Client, first: bytes) -> None:
        """A connection on which nothing comes is ended."""
        with dora.connect() as wire:
            wire.send(first)
            if first:
                assert wire.read_answer().status == 200
            began = time.monotonic()
            wire.read_to_end()
            assert TIMEOUT_SECONDS - 0.5 < time.monotonic() - began < TIMEOUT_SECONDS + 4

    @pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
    def test_stalled_upload(self, dora: Client, framing: str) -> None:
        """An upload that stalls is cut after read_timeout, and stores nothing."""
        name, _, value = framing.partition(": ")
        with dora.connect() as wire:
            wire.send_request("PUT", "/v1/files/stalled", {**dora.authorization(), name: value})
            wire.send(b"5\r\nhello\r\n")
            began = time.monotonic()
            received = wire.read_to_end()
            assert time.monotonic() - began < TIMEOUT_SECONDS + 4
            assert not received or received.startswith(b"HTTP/1.1 408 ")
        assert not dora.exists("/stalled")

    def test_stalled_download(self, swift: Daemon, dora: Client) -> None:
        """A download whose reader stalls is cut after write_timeout."""
        path = dora.stored("/large", bytes(48 << 20))
        before = swift.open_descriptors()
        with dora.connect(receive_buffer_bytes=32_768) as wire:
            wire.send_request("GET", f"/v1/files{path}", dora.authorization())
            assert wire.read_head().status == 200
            eventually(lambda: swift.open_descriptors() > before, what="the transfer")
            eventually(
                lambda: swift.open_descriptors() <= before, within_seconds=10, what="the end of the transfer"
            )
            with pytest.raises((EOFError, ConnectionResetError)):
                wire.read_exactly(48 << 20)

    def test_slow_upload(self, dora: Client) -> None:
        """A slow upload that moves is never cut."""
        with dora.connect() as wire:
            wire.send_request("PUT", "/v1/files/slow-up", {**dora.authorization(), "Content-Length": "8"})
            for _ in range(8):
                pace(TIMEOUT_SECONDS / 2)
                wire.send(b"x")
            assert wire.read_answer().status == 201
        assert dora.content("/slow-up") == b"x" * 8

    def test_slow_download(self, dora: Client) -> None:
        """A slow download that moves is never cut, though the server's socket takes new bytes only now and then."""
        content = random.Random(10).randbytes(12 << 20)
        path = dora.stored("/slow-down", content)
        received = bytearray()
        with dora.connect(receive_buffer_bytes=65_536) as wire:
            wire.send_request("GET", f"/v1/files{path}", dora.authorization())
            assert wire.read_head().status == 200
            ends = time.monotonic() + 8 * TIMEOUT_SECONDS
            while time.monotonic() < ends:
                received += wire.read_some(50_000)
                pace(0.25)
            received += wire.read_exactly(len(content) - len(received))
        assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()

    def test_pause_between_requests(self, dora: Client) -> None:
        """A connection that is used within the limit stays."""
        with dora.connect() as wire:
            for _ in range(4):
                wire.send_request("GET", "/health")
                assert wire.read_answer().status == 200
                pace(TIMEOUT_SECONDS / 2)
