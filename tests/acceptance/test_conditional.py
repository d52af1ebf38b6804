"""Conditional requests (HTTP API, section 3; RFC 9110, section 13)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Client

EARLIER = "Mon, 01 Jan 2001 00:00:00 GMT"
LATER = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)


@pytest.fixture
def path(alice: Client, home: str) -> str:
    """A file."""
    return alice.stored(f"{home}/f", b"hello")


READS = [
    ({"If-None-Match": "{etag}"}, 304),
    ({"If-None-Match": "W/{etag}"}, 304),
    ({"If-None-Match": '"a", {etag}, "b"'}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"other"'}, 200),
    ({"If-Modified-Since": "{date}"}, 304),
    ({"If-Modified-Since": LATER}, 304),
    ({"If-Modified-Since": EARLIER}, 200),
    ({"If-Modified-Since": "yesterday"}, 200),
    ({"If-Modified-Since": LATER, "If-None-Match": '"other"'}, 200),
    ({"If-Modified-Since": EARLIER, "If-None-Match": "{etag}"}, 304),
    ({"If-Match": "{etag}"}, 200),
    ({"If-Match": '"a", {etag}'}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"other"'}, 412),
    ({"If-Match": "W/{etag}"}, 412),
    ({"If-Unmodified-Since": "{date}"}, 200),
    ({"If-Unmodified-Since": LATER}, 200),
    ({"If-Unmodified-Since": EARLIER}, 412),
    ({"If-Unmodified-Since": "yesterday"}, 200),
    ({"If-Unmodified-Since": EARLIER, "If-Match": "{etag}"}, 200),
    ({"If-Match": '"other"', "If-None-Match": "{etag}"}, 412),
]


class TestReads:
    @pytest.mark.parametrize(("conditions", "status"), READS)
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_condition(
        self, alice: Client, path: str, method: str, conditions: dict[str, str], status: int
    ) -> None:
        """A read is answered as RFC 9110, section 13.2.2 orders it."""
        head = alice.head(path)
        values = {"etag": head["ETag"], "date": head["Last-Modified"]}
        headers = {name: value.format(**values) for name, value in conditions.items()}
        answer = alice.request(method, f"/v1/files{path}", None, headers)
        assert answer.status == status
        if method == "GET":
            if status == 412:
                assert answer.code == "PRECONDITION_FAILED"
            else:
                assert answer.body == (b"" if status == 304 else b"hello")

    def test_not_modified_keeps_the_validators(self, alice: Client, path: str) -> None:
        """304 carries the ETag, and the connection goes on."""
        with alice.connect() as wire:
            tag = alice.head(path)["ETag"]
            wire.send_request("GET", f"/v1/files{path}", {**alice.authorization(), "If-None-Match": tag})
            wire.send_request("GET", "/health")
            answer = wire.read_answer()
            assert (answer.status, answer["ETag"]) == (304, tag)
            assert answer.get("Content-Length") in (None, "5"), "RFC 9110, section 8.6"
            assert wire.read_answer().json() == {"status": "ok"}

    def test_missing_file(self, alice: Client, home: str) -> None:
        """What doesn't exist is 404, whatever the condition."""
        for headers in ({"If-Match": '"x"'}, {"If-None-Match": "*"}, {"If-Modified-Since": LATER}):
            assert alice.get(f"{home}/missing", headers=headers).status == 404

    def test_last_modified_follows_the_content(self, alice: Client, path: str) -> None:
        """Last-Modified is the instant of the content, as given by mtime."""
        assert alice.patch(path, mtime="2020-01-02T03:04:05Z").status == 200
        moment = parsedate_to_datetime(alice.head(path)["Last-Modified"])
        assert moment == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert alice.put(path, b"new").status == 200
        assert parsedate_to_datetime(alice.head(path)["Last-Modified"]) > moment


class TestWrites:
    @pytest.mark.parametrize(
        ("conditions", "status"),
        [
            ({"If-Match": "{etag}"}, 200),
            ({"If-Match": "*"}, 200),
            ({"If-Match": '"other", {etag}'}, 200),
            ({"If-Match": '"other"'}, 412),
            ({"If-Match": "W/{etag}"}, 412),
            ({"If-None-Match": "*"}, 412),
        ],
    )
    def test_put_on_a_file(self, alice: Client, path: str, conditions: dict[str, str], status: int) -> None:
        """A conditional PUT on a file happens only while the condition holds."""
        tag = alice.head(path)["ETag"]
        headers = {name: value.format(etag=tag) for name, value in conditions.items()}
        answer = alice.put(path, b"new", headers=headers)
        assert answer.status == status
        if status == 412:
            assert answer.code == "PRECONDITION_FAILED"
        assert alice.content(path) == (b"new" if status == 200 else b"hello")

    @pytest.mark.parametrize(
        ("conditions", "status"),
        [({"If-Match": '"x"'}, 412), ({"If-Match": "*"}, 412), ({"If-None-Match": "*"}, 201)],
    )
    def test_put_where_nothing_is(self, alice: Client, home: str, conditions: dict[str, str], status: int) -> None:
        """If-Match fails where no file is, If-None-Match: * holds."""
        assert alice.put(f"{home}/new", b"new", headers=conditions).status == status
        assert alice.exists(f"{home}/new") == (status == 201)

    def test_delete(self, alice: Client, path: str) -> None:
        """DELETE honours If-Match."""
        tag = alice.head(path)["ETag"]
        alice.delete(path, headers={"If-Match": '"other"'}).refused(412, "PRECONDITION_FAILED")
        assert alice.exists(path)
        assert alice.delete(path, headers={"If-Match": tag}).status == 204

    @pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
    def test_one_of_many_wins(self, daemon: Daemon, alice: Client, home: str, name: str) -> None:
        """Of simultaneous writers with the same precondition exactly one succeeds."""
        path, value = f"{home}/f", "*"
        if name == "If-Match":
            value = alice.head(alice.stored(path, b"old"))["ETag"]

        def write(number: int) -> tuple[int, bytes]:
            client, content = daemon.client("alice"), b"%d" % number * 5000
            status = client.put(path, content, headers={name: value}).status
            client.close()
            return (1 if status in (200, 201) else status), content

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(write, range(8)))
        assert sorted(outcome for outcome, _ in outcomes) == [1] + [412] * 7
        assert alice.content(path) == dict(outcomes)[1]
