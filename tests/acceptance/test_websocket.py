"""Files over WebSocket (HTTP API, section 4; RFC 6455)."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable

import pytest

from tests.acceptance.conftest import StartDaemon
from tests.support.daemon import Daemon
from tests.support.http import Client
from tests.support.waiting import eventually, pace, stays
from tests.support.websocket import BINARY, CONTINUATION, PING, PONG, TEXT, WebSocket, frame, websocket_target

KIB = 1024
CONTENT = random.Random(6).randbytes(200_001)

Connect = Callable[..., WebSocket]


@pytest.fixture
def path(alice: Client, home: str) -> str:
    """A file of alice's."""
    return alice.stored(f"{home}/f", CONTENT)


def upload(client: Client, path: str, query: str = "") -> WebSocket:
    connection = WebSocket(client, websocket_target(path, "mode=upload" + (f"&{query}" if query else "")))
    assert connection.open, connection.answer
    return connection


def close_code(client: Client, path: str, query: str) -> int:
    """With what the server closes a connection whose client only listens."""
    with WebSocket(client, websocket_target(path, query)) as connection:
        assert connection.open, connection.answer
        frames, code = connection.receive_all()
        assert frames == []
        return code


class TestHandshake:
    def test_without_a_key(self, nobody: Client, path: str) -> None:
        """Without a key the answer is 401, before the upgrade."""
        for headers in ({}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}):
            with WebSocket(nobody, websocket_target(path), headers) as connection:
                connection.answer.refused(401, "AUTHENTICATION_FAILED")

    def test_subprotocol(self, alice: Client, nobody: Client, path: str) -> None:
        """A browser gives its key in a subprotocol; only the other one is echoed."""
        key = base64.urlsafe_b64encode((alice.key or "").encode()).decode().rstrip("=")
        for offer in (f"callfs, callfs.bearer.{key}", f"callfs.bearer.{key},callfs"):
            with WebSocket(nobody, websocket_target(path), {"Sec-WebSocket-Protocol": offer}) as connection:
                assert connection.open
                assert connection.answer["Sec-WebSocket-Protocol"] == "callfs"
                frames, code = connection.receive_all()
                assert (b"".join(received.payload for received in frames), code) == (CONTENT, 1000)

    @pytest.mark.parametrize("key", ["d3Jvbmctd3Jvbmctd3Jvbmc", "!!!", "", "_w"])
    def test_wrong_subprotocol(self, nobody: Client, path: str, key: str) -> None:
        """A wrong or malformed key in the subprotocol is 401."""
        headers = {"Sec-WebSocket-Protocol": f"callfs, callfs.bearer.{key}"}
        with WebSocket(nobody, websocket_target(path), headers) as connection:
            assert connection.answer.status in (401, 400 if key == "!!!" else 401)

    def test_origin(self, daemon: Daemon, alice: Client, path: str) -> None:
        """A browser's Origin must be the request's host."""
        with WebSocket(alice, websocket_target(path), {"Origin": daemon.origin}) as connection:
            assert connection.open
        for origin in (
            "http://evil.example",
            f"http://evil.example:{daemon.port}",
            f"{daemon.origin}.evil.example",
            "null",
        ):
            with WebSocket(alice, websocket_target(path), {"Origin": origin}) as connection:
                connection.answer.refused(403, "PERMISSION_DENIED")

    @pytest.mark.parametrize("query", ["mode=append", "mode=", "mode=DOWNLOAD"])
    def test_other_mode(self, alice: Client, path: str, query: str) -> None:
        """Another mode is 400."""
        with WebSocket(alice, websocket_target(path, query)) as connection:
            connection.answer.refused(400, "BAD_REQUEST")

    @pytest.mark.parametrize("mode", ["download", "upload"])
    def test_trailing_slash(self, alice: Client, home: str, mode: str) -> None:
        """A path with a trailing slash is 400."""
        with WebSocket(alice, websocket_target(f"{home}/", f"mode={mode}")) as connection:
            assert connection.answer.status == 400

    def test_bad_path(self, alice: Client) -> None:
        """A path that is refused elsewhere is refused here."""
        with WebSocket(alice, "/v1/files/ws/../../x") as connection:
            connection.answer.refused(400, "INVALID_PATH")

    @pytest.mark.parametrize("headers", [{"Sec-WebSocket-Version": "12"}, {"Sec-WebSocket-Key": "short"}])
    def test_malformed(self, alice: Client, path: str, headers: dict[str, str]) -> None:
        """A malformed handshake is refused."""
        with WebSocket(alice, websocket_target(path), headers) as connection:
            assert connection.answer.status in (400, 426)

    def test_no_upgrade_is_an_ordinary_file(self, alice: Client, home: str) -> None:
        """A request under /v1/files/ws/ that asks for no upgrade is about an ordinary file of that name."""
        path = f"/ws{home}/f"
        alice.stored(path, b"ordinary")
        assert alice.content(path) == b"ordinary"
        assert alice.names(f"/ws{home}") == ["f"]
        assert alice.delete(f"/ws{home}", "recursive=true").status == 204


class TestDownload:
    @pytest.mark.parametrize("query", ["", "mode=download"])
    def test_whole(self, alice: Client, path: str, query: str) -> None:
        """The file comes in binary messages of 64 KiB, then the connection closes with 1000."""
        with WebSocket(alice, websocket_target(path, query)) as connection:
            frames, code = connection.receive_all()
        assert b"".join(received.payload for received in frames) == CONTENT
        assert {(received.opcode, received.final) for received in frames} == {(BINARY, True)}
        assert [len(received.payload) for received in frames] == [64 * KIB] * 3 + [len(CONTENT) - 3 * 64 * KIB]
        assert code == 1000

    @pytest.mark.parametrize("offset", [0, 1, 65_536, 200_000, 200_001])
    def test_offset(self, alice: Client, path: str, offset: int) -> None:
        """offset starts there, at the very end too."""
        with WebSocket(alice, websocket_target(path, f"offset={offset}")) as connection:
            frames, code = connection.receive_all()
        assert b"".join(received.payload for received in frames) == CONTENT[offset:]
        assert code == 1000

    def test_another_user(self, bob: Client, path: str) -> None:
        """Another's file may be read here too."""
        with WebSocket(bob, websocket_target(path)) as connection:
            frames, code = connection.receive_all()
        assert (sum(len(received.payload) for received in frames), code) == (len(CONTENT), 1000)

    def test_empty_file(self, alice: Client, home: str) -> None:
        """An empty file is no message, and 1000."""
        assert close_code(alice, alice.stored(f"{home}/empty", b""), "") == 1000

    def test_unknown_file(self, alice: Client, home: str) -> None:
        """An unknown file is 1008."""
        assert close_code(alice, f"{home}/missing", "mode=download") == 1008

    def test_directory(self, alice: Client, home: str) -> None:
        """A directory is 1003."""
        assert close_code(alice, home, "mode=download") == 1003

    def test_slow_readers(self, start_daemon: StartDaemon) -> None:
        """Readers that don't read cost little memory, and get everything when they do."""
        daemon = start_daemon({"server": {"write_timeout": "60s"}})
        alice = daemon.client()
        content = random.Random(7).randbytes(1 << 20) * 24
        path = alice.stored("/f", content)
        before = daemon.resident_bytes()
        connections = [WebSocket(alice, websocket_target(path), receive_buffer_bytes=32 * KIB) for _ in range(12)]
        pace(1.0)
        assert daemon.resident_bytes() - before < 12 * 4 * KIB * KIB
        for connection in connections[:2]:
            received = hashlib.sha256()
            frames, code = connection.receive_all()
            for each in frames:
                received.update(each.payload)
            assert (received.digest(), code) == (hashlib.sha256(content).digest(), 1000)
        for connection in connections:
            connection.wire.close()

    def test_ping(self, alice: Client, home: str) -> None:
        """A ping is answered with its payload."""
        with upload(alice, f"{home}/new") as connection:
            connection.send(b"are you there", PING)
            received = connection.receive()
            assert (received.opcode, received.payload) == (PONG, b"are you there")


class TestUpload:
    def test_with_size(self, alice: Client, home: str) -> None:
        """With size the server commits when the bytes are there: ok:<size>, then 1000."""
        with upload(alice, f"{home}/x/f", f"size={len(CONTENT)}") as connection:
            for start in range(0, len(CONTENT), 50_000):
                connection.send(CONTENT[start : start + 50_000])
            frames, code = connection.receive_all()
        assert [(received.opcode, received.payload) for received in frames] == [(TEXT, b"ok:200001")]
        assert code == 1000
        assert alice.content(f"{home}/x/f") == CONTENT
        assert alice.head(f"{home}/x/f")["X-CallFS-Owner"] == "alice"

    def test_without_size(self, alice: Client, home: str) -> None:
        """Without size the client's close with 1000 commits, and is answered only when all is durable."""
        with upload(alice, f"{home}/f") as connection:
            connection.send(CONTENT)
            connection.close(1000)
            assert connection.receive_all()[1] == 1000
            assert alice.content(f"{home}/f") == CONTENT

    def test_empty(self, alice: Client, home: str) -> None:
        """An empty file can be uploaded, in both ways."""
        with upload(alice, f"{home}/a", "size=0") as connection:
            frames, code = connection.receive_all()
            assert ([received.payload for received in frames], code) == ([b"ok:0"], 1000)
        with upload(alice, f"{home}/b") as connection:
            connection.close(1000)
            assert connection.receive_all()[1] == 1000
        assert alice.content(f"{home}/a") == alice.content(f"{home}/b") == b""

    def test_text_and_fragments(self, alice: Client, home: str) -> None:
        """Text messages are taken too, and messages in fragments."""
        with upload(alice, f"{home}/f") as connection:
            connection.send("grüße ".encode(), TEXT)
            connection.send(b"in ", BINARY, final=False)
            connection.send(b"", PING)
            connection.send(b"three ", CONTINUATION, final=False)
            connection.send(b"parts", CONTINUATION)
            connection.close(1000)
            connection.receive_all()
        assert alice.content(f"{home}/f") == "grüße in three parts".encode()

    def test_large(self, alice: Client, home: str) -> None:
        """Messages of 1 MiB are taken, many of them."""
        content = random.Random(8).randbytes(1 << 20)
        with upload(alice, f"{home}/f", f"size={16 << 20}") as connection:
            for _ in range(16):
                connection.send(content)
            assert connection.receive_all()[1] == 1000
        assert alice.content(f"{home}/f") == content * 16

    def test_replaces(self, alice: Client, carol: Client, path: str) -> None:
        """An existing file is replaced at the commit, not before, and keeps its owner."""
        with upload(carol, path, "size=6") as connection:
            connection.send(b"new")
            assert alice.content(path) == CONTENT
            connection.send(b"new")
            assert connection.receive_all()[1] == 1000
        assert alice.content(path) == b"newnew"
        assert alice.head(path)["X-CallFS-Owner"] == "alice"


class TestNothingCommitted:
    @staticmethod
    def absent(client: Client, path: str) -> bool:
        return stays(lambda: not client.exists(path))

    @pytest.mark.parametrize("query", ["", "size=6"])
    @pytest.mark.parametrize("how", ["close", "reset"])
    def test_drop(self, alice: Client, home: str, query: str, how: str) -> None:
        """A connection that just drops commits nothing."""
        connection = upload(alice, f"{home}/f", query)
        connection.send(b"half")
        connection.send(b"", PING)
        assert connection.receive().opcode == PONG  # the server has it
        if how == "reset":
            connection.wire.reset()
        connection.wire.close()
        assert self.absent(alice, f"{home}/f")

    @pytest.mark.parametrize("code", [1001, 1002, 1011, 3000, None])
    def test_another_close_code(self, alice: Client, home: str, code: int | None) -> None:
        """A close that isn't 1000 (a browser tab going away is 1001) commits nothing."""
        with upload(alice, f"{home}/f") as connection:
            connection.send(b"half")
            connection.close(code)
            connection.wire.read_to_end()
        assert self.absent(alice, f"{home}/f")

    def test_old_content_stays(self, alice: Client, path: str) -> None:
        """A broken upload leaves what was there."""
        with upload(alice, path) as connection:
            connection.send(b"half")
            connection.close(1001)
            connection.wire.read_to_end()
        assert stays(lambda: alice.content(path) == CONTENT)

    def test_close_before_size(self, alice: Client, home: str) -> None:
        """A close with 1000 before all declared bytes are there commits nothing."""
        with upload(alice, f"{home}/f", "size=10") as connection:
            connection.send(b"half")
            connection.close(1000)
            connection.wire.read_to_end()
        assert self.absent(alice, f"{home}/f")

    def test_more_than_size(self, alice: Client, home: str) -> None:
        """More bytes than declared commit nothing."""
        with upload(alice, f"{home}/f", "size=3") as connection:
            connection.send(b"more than that")
            frames, code = connection.receive_all()
            assert frames == []
            assert code not in (1000, 1005)
        assert self.absent(alice, f"{home}/f")

    @pytest.mark.parametrize("size", ["-1", "abc", "1.5", ""])
    def test_bad_size(self, alice: Client, home: str, size: str) -> None:
        """A size that is no number is 400."""
        with WebSocket(alice, websocket_target(f"{home}/f", f"mode=upload&size={size}")) as connection:
            assert connection.answer.status == 400

    def test_forbidden(self, alice: Client, bob: Client, path: str) -> None:
        """Another's file can't be uploaded: 1008."""
        assert close_code(bob, path, "mode=upload") == 1008
        assert alice.content(path) == CONTENT

    def test_directory(self, alice: Client, home: str) -> None:
        """A directory can't be uploaded: 1003."""
        assert close_code(alice, home, "mode=upload") == 1003

    def test_too_large_a_message(self, alice: Client, home: str) -> None:
        """A message over 1 MiB is 1009, in one frame or in fragments."""
        for final in (True, False):
            with upload(alice, f"{home}/f") as connection:
                connection.wire.send_while_unanswered([frame(bytes((1 << 20) + 1), final=final)])
                assert connection.receive_all()[1] == 1009
        assert self.absent(alice, f"{home}/f")

    def test_too_large_a_file(self, start_daemon: StartDaemon) -> None:
        """Over max_websocket_upload_bytes the upload is 1009, declared or not; exactly that much is fine."""
        alice = start_daemon({"server": {"max_websocket_upload_bytes": "100KiB"}}).client()
        with upload(alice, "/f") as connection:
            connection.send(bytes(60 * KIB))
            connection.send(bytes(60 * KIB))
            assert connection.receive_all()[1] == 1009
        assert close_code(alice, "/f", f"mode=upload&size={100 * KIB + 1}") == 1009
        assert not alice.exists("/f")
        with upload(alice, "/f") as connection:
            connection.send(bytes(100 * KIB))
            connection.close(1000)
            assert connection.receive_all()[1] == 1000
        assert alice.content("/f") == bytes(100 * KIB)

    def test_unmasked(self, alice: Client, home: str) -> None:
        """A client's frame without a mask is a protocol error: 1002 (RFC 6455, 5.1)."""
        with upload(alice, f"{home}/f") as connection:
            connection.send(b"x", masked=False)
            assert connection.receive_all()[1] == 1002
        assert self.absent(alice, f"{home}/f")

    def test_descriptors_are_given_back(self, daemon: Daemon, alice: Client, home: str) -> None:
        """Dropped connections leave no descriptor behind."""
        before = daemon.open_descriptors()
        for number in range(20):
            connection = upload(alice, f"{home}/f{number}")
            connection.send(b"x")
            connection.wire.reset()
        eventually(lambda: daemon.open_descriptors() <= before + 2, what="the descriptors")
