"""Single-use links (HTTP API, section 7)."""

from __future__ import annotations

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, StartDaemon
from tests.support.daemon import Daemon
from tests.support.http import Answer, Client
from tests.support.waiting import eventually

CONTENT = b"the content of the file" * 100


@pytest.fixture
def path(alice: Client, home: str) -> str:
    """A file."""
    return alice.stored(f"{home}/f", CONTENT, Content_Type="text/plain")


def token_for(client: Client, path: str, expiry_seconds: int = 60) -> str:
    answer = client.link(path, expiry_seconds)
    assert answer.status == 201, answer.body
    return str(answer.json()["token"])


def redeem(client: Client, token: str, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
    return client.request(method, f"/download/{token}", None, headers)


class TestGenerate:
    def test_answer(self, daemon: Daemon, alice: Client, path: str) -> None:
        """A link has url, token, and one instant of expiry under two names."""
        answer = alice.link(path, 3600)
        assert answer.status == 201
        link = answer.json()
        assert set(link) == {"url", "token", "expires", "expires_at"}
        assert link["expires"] == link["expires_at"]
        expires = datetime.fromisoformat(link["expires"])
        assert abs(expires - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=30)
        assert urlsplit(link["url"]).path == f"/download/{link['token']}"
        assert urlsplit(link["url"]).port == daemon.port

    def test_external_url(self, start_daemon: StartDaemon) -> None:
        """The link's base is server.external_url, with or without scheme."""
        for given, base in (
            ("https://files.example.org/", "https://files.example.org"),
            ("files.example.org", None),
        ):
            alice = start_daemon({"server": {"external_url": given}}).client()
            url = alice.link(alice.stored("/f")).json()["url"]
            assert re.fullmatch(r"https?://files\.example\.org/download/[\w.-]+", url), url
            assert base is None or url.startswith(base)

    def test_token_form(self, alice: Client, path: str) -> None:
        """A token is 16 random bytes and an HMAC-SHA256, both base64url, joined by a dot; never the same twice."""
        tokens = {token_for(alice, path) for _ in range(20)}
        assert len({token.split(".")[0] for token in tokens}) == 20
        for token in tokens:
            parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
            assert [len(part) for part in parts] == [16, 32]
            assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", token)

    @pytest.mark.parametrize("expiry", [0, -1, 86_401, 1.5, "abc", True, [], 10**30])
    def test_bad_expiry(self, alice: Client, path: str, expiry: Any) -> None:
        """An expiry outside 1 to 86,400 seconds is 400."""
        alice.link(path, expiry).refused(400, "BAD_REQUEST")

    @pytest.mark.parametrize("expiry", [1, 86_400])
    def test_longest_and_shortest(self, alice: Client, path: str, expiry: int) -> None:
        """One second and one day are fine."""
        assert alice.link(path, expiry).status == 201

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"/f"',
            b"{}",
            b'{"expiry_seconds": 60}',
            b'{"path": 7, "expiry_seconds": 60}',
        ],
    )
    def test_bad_body(self, alice: Client, body: bytes) -> None:
        """What isn't a JSON object with a path is 400."""
        alice.request("POST", "/v1/links/generate", body).refused(400, "BAD_REQUEST")

    @pytest.mark.parametrize("chunked", [False, True])
    def test_large_body(self, alice: Client, path: str, chunked: bool) -> None:
        """A body over 4 KiB is 400."""
        body = json.dumps({"path": path, "expiry_seconds": 60}).encode() + b" " * 4096
        answer = alice.request("POST", "/v1/links/generate", [body[:2000], body[2000:]] if chunked else body)
        answer.refused(400, "BAD_REQUEST")

    def test_directory(self, alice: Client, home: str) -> None:
        """A directory has no link."""
        assert alice.link(home).status == 400
        assert alice.link(home + "/").status == 400

    def test_missing(self, alice: Client, home: str) -> None:
        """What doesn't exist has no link."""
        alice.link(f"{home}/missing").refused(404, "FILE_NOT_FOUND")


class TestRedeem:
    def test_once(self, alice: Client, nobody: Client, home: str) -> None:
        """A link gives the file as an attachment without any key, once; then it is 410 LINK_USED."""
        path = alice.stored(f'{home}/ä "b".txt', CONTENT, Content_Type="text/plain")
        token = token_for(alice, path)
        answer = redeem(nobody, token)
        assert (answer.status, answer.body) == (200, CONTENT)
        assert answer["Content-Type"] == "text/plain"
        kind, _, encoded = answer["Content-Disposition"].partition("; filename*=UTF-8''")
        assert (kind, unquote(encoded)) == ("attachment", 'ä "b".txt')
        redeem(nobody, token).refused(410, "LINK_USED")

    def test_simultaneous(self, daemon: Daemon, alice: Client, path: str) -> None:
        """Of thirty simultaneous requests exactly one gets the file."""
        token, barrier = token_for(alice, path), Barrier(30)

        def download(_: int) -> int:
            client = daemon.client(None)
            client.request("GET", "/health")  # the connection is there before the race
            barrier.wait(20)
            answer = redeem(client, token)
            client.close()
            assert answer.status != 200 or answer.body == CONTENT
            return answer.status

        with ThreadPoolExecutor(30) as pool:
            statuses = list(pool.map(download, range(30)))
        assert sorted(statuses) == [200] + [410] * 29

    def test_expired(self, alice: Client, nobody: Client, path: str) -> None:
        """After its expiry a link is 410 LINK_EXPIRED."""
        token = token_for(alice, path, 1)
        eventually(lambda: redeem(nobody, token, "HEAD").status == 410, within_seconds=5, what="the expiry")
        redeem(nobody, token).refused(410, "LINK_EXPIRED")

    def test_head_costs_nothing(self, alice: Client, nobody: Client, path: str) -> None:
        """HEAD answers with the file's headers and doesn't use the link up."""
        token = token_for(alice, path)
        for _ in range(3):
            answer = redeem(nobody, token, "HEAD")
            assert (answer.status, answer.body) == (200, b"")
            assert answer["Content-Length"] == str(len(CONTENT))
        assert redeem(nobody, token).status == 200
        assert redeem(nobody, token, "HEAD").status == 410

    @pytest.mark.parametrize(
        "token", ["", "x", "a.b", "A" * 22 + "." + "A" * 43, "%00", "%ff", ".", "a.b.c", "%C3%A9"]
    )
    def test_unknown(self, nobody: Client, token: str) -> None:
        """An unknown token is 404 LINK_NOT_FOUND."""
        redeem(nobody, token).refused(404, "LINK_NOT_FOUND")

    def test_forged(self, alice: Client, nobody: Client, path: str) -> None:
        """A token with another signature is 404 whatever the link's state, and doesn't use it up."""
        token = token_for(alice, path)
        random_part, signature = token.split(".")
        flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
        forged = f"{random_part}.{flipped}"
        redeem(nobody, forged).refused(404, "LINK_NOT_FOUND")
        assert redeem(nobody, token).status == 200
        redeem(nobody, forged).refused(404, "LINK_NOT_FOUND")

    def test_parts_of_two(self, alice: Client, nobody: Client, path: str) -> None:
        """The signature of one link doesn't fit another."""
        first, second = token_for(alice, path), token_for(alice, path)
        mixed = first.split(".")[0] + "." + second.split(".")[1]
        redeem(nobody, mixed).refused(404, "LINK_NOT_FOUND")

    @pytest.mark.parametrize("name", ["Range", "If-None-Match", "If-Modified-Since", "If-Match"])
    def test_conditions_are_ignored(self, alice: Client, nobody: Client, path: str, name: str) -> None:
        """Range and conditional headers don't matter: the link gives the whole file."""
        values = {"Range": "bytes=0-1", "If-None-Match": "*", "If-Match": '"other"'}
        headers = {name: values.get(name, "Fri, 01 Jan 2100 00:00:00 GMT")}
        answer = redeem(nobody, token_for(alice, path), headers=headers)
        assert (answer.status, answer.body) == (200, CONTENT)


class TestFollowing:
    def test_rename(self, alice: Client, nobody: Client, home: str, path: str) -> None:
        """A link belongs to the file: it follows renames and moves, its name too."""
        token = token_for(alice, path)
        assert alice.patch(path, name="g").status == 200
        alice.stored(path, b"another file at the old path")
        assert alice.patch(home, name=home[1:] + "-moved").status == 200
        answer = redeem(nobody, token)
        assert answer.body == CONTENT
        assert answer["Content-Disposition"].endswith("''g")

    def test_delete(self, alice: Client, nobody: Client, path: str) -> None:
        """After a delete the link is 404, even if another file takes the path."""
        token = token_for(alice, path)
        assert alice.delete(path).status == 204
        redeem(nobody, token).refused(404, "LINK_NOT_FOUND")
        alice.stored(path, b"another")
        redeem(nobody, token).refused(404, "LINK_NOT_FOUND")

    def test_replaced(self, alice: Client, nobody: Client, path: str) -> None:
        """A link to a file with new content gives the new content."""
        token = token_for(alice, path)
        alice.stored(path, b"new")
        assert redeem(nobody, token).body == b"new"

    def test_restart(self, start_daemon: StartDaemon) -> None:
        """A crash neither costs a link nor brings a used one back."""
        daemon = start_daemon({"limits": ROOMY_LIMITS})
        alice = daemon.client()
        path = alice.stored("/f", CONTENT)
        used, unused = token_for(alice, path), token_for(alice, path)
        assert redeem(daemon.client(None), used).status == 200
        daemon.kill()
        daemon.start()
        redeem(daemon.client(None), used).refused(410, "LINK_USED")
        assert redeem(daemon.client(None), unused).body == CONTENT


class TestSecrecy:
    def test_stored_as_a_hash(self, start_daemon: StartDaemon) -> None:
        """Neither the metadata nor the log holds a token, nor its random part."""
        daemon = start_daemon({"log": {"level": "debug"}, "limits": ROOMY_LIMITS})
        alice, nobody = daemon.client(), daemon.client(None)
        path = alice.stored("/f", CONTENT)
        tokens = [token_for(alice, path) for _ in range(2)]
        redeem(nobody, tokens[0], "HEAD")
        redeem(nobody, tokens[0])
        redeem(nobody, tokens[0])
        redeem(nobody, tokens[1] + "x")
        assert daemon.terminate() == 0
        kept = [file.read_bytes() for file in daemon.folder.iterdir() if file.is_file() and "sqlite" in file.name]
        assert kept
        for token in tokens:
            random_part = token.split(".")[0]
            assert random_part not in daemon.log_text()
            for data in kept:
                assert random_part.encode() not in data
                assert base64.urlsafe_b64decode(random_part + "==") not in data


class TestRates:
    @staticmethod
    def limited(answers: list[Answer]) -> list[Answer]:
        for answer in answers:
            if answer.status == 429:
                assert answer.code == "RATE_LIMITED"
                assert int(answer["Retry-After"]) >= 1
        return [answer for answer in answers if answer.status == 429]

    @staticmethod
    def pipelined(
        client: Client, count: int, method: str, target: str, body: bytes, headers: dict[str, str]
    ) -> list[Answer]:
        head = {**client.authorization(), **headers, "Content-Length": str(len(body))}
        with client.connect() as wire:
            for _ in range(count):
                wire.send_request(method, target, head)
                wire.send(body)
            return [wire.read_answer() for _ in range(count)]

    def test_generate(self, start_daemon: StartDaemon) -> None:
        """Links are generated at limits.link_generate_rate with a burst, then it is 429 with Retry-After."""
        alice = start_daemon({"limits": {"link_generate_rate": 1, "link_generate_burst": 2}}).client()
        path = alice.stored("/f")
        answers = [alice.link(path) for _ in range(5)]
        assert [answer.status for answer in answers[:2]] == [201, 201]
        assert self.limited(answers)
        assert eventually(lambda: alice.link(path).status == 201, within_seconds=5, what="the next permit")

    def test_download(self, start_daemon: StartDaemon) -> None:
        """By default five downloads at once pass, then it is 429 with Retry-After, and soon they pass again."""
        daemon = start_daemon()
        nobody = daemon.client(None)
        answers = self.pipelined(nobody, 20, "GET", "/download/a.b", b"", {})
        assert [answer.status for answer in answers[:5]] == [404] * 5
        assert self.limited(answers)
        assert eventually(lambda: redeem(nobody, "a.b").status == 404, within_seconds=5, what="the next permit")

    def test_limited_request_costs_nothing(self, start_daemon: StartDaemon) -> None:
        """A download over the rate doesn't use the link up."""
        daemon = start_daemon({"limits": {"download_rate": 1, "download_burst": 1}})
        alice, nobody = daemon.client(), daemon.client(None)
        token = token_for(alice, alice.stored("/f", CONTENT))
        assert redeem(nobody, "a.b").status == 404
        assert self.limited([redeem(nobody, token)])
        answer = eventually(lambda: (got := redeem(nobody, token)).status == 200 and got, within_seconds=5)
        assert answer.body == CONTENT

    def test_client_address(self, start_daemon: StartDaemon) -> None:
        """The limit is per client; X-Forwarded-For counts only from a trusted proxy."""
        limits = {"download_rate": 0.1, "download_burst": 1}
        for trusted, expected in (([], 429), (["127.0.0.0/8"], 404)):
            daemon = start_daemon({"limits": limits, "server": {"trusted_proxies": trusted}})
            nobody = daemon.client(None)
            statuses = [
                redeem(nobody, "a.b", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status
                for number in range(3)
            ]
            assert statuses == [404, expected, expected]
