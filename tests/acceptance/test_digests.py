"""Digests of uploads: Content-Digest, Repr-Digest (RFC 9530), Content-MD5."""

from __future__ import annotations

import base64
import hashlib

import pytest

from tests.support.http import Body, Client

CONTENT = b"hello, world" * 1000


def encoded(algorithm: str, content: bytes) -> str:
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode()


def field(content: bytes, *algorithms: str) -> str:
    return ", ".join(f"{name}=:{encoded(name.replace('-', ''), content)}:" for name in algorithms)


RIGHT = {
    "content sha-256": ("Content-Digest", field(CONTENT, "sha-256")),
    "content sha-512": ("Content-Digest", field(CONTENT, "sha-512")),
    "content both": ("Content-Digest", field(CONTENT, "sha-512", "sha-256")),
    "content with unknown": ("Content-Digest", "future=:AAAA:, " + field(CONTENT, "sha-256")),
    "repr sha-256": ("Repr-Digest", field(CONTENT, "sha-256")),
    "repr sha-512": ("Repr-Digest", field(CONTENT, "sha-512")),
    "md5": ("Content-MD5", encoded("md5", CONTENT)),
}
WRONG = {
    "content sha-256": ("Content-Digest", field(b"other", "sha-256")),
    "content sha-512": ("Content-Digest", field(b"other", "sha-512")),
    "one of two": ("Content-Digest", field(CONTENT, "sha-256") + ", " + field(b"other", "sha-512")),
    "repr sha-256": ("Repr-Digest", field(b"other", "sha-256")),
    "repr sha-512": ("Repr-Digest", field(b"other", "sha-512")),
    "md5": ("Content-MD5", encoded("md5", b"other")),
}


def body(chunked: bool) -> Body:
    return [CONTENT[:5000], CONTENT[5000:]] if chunked else CONTENT


@pytest.mark.parametrize(("name", "value"), RIGHT.values(), ids=RIGHT.keys())
@pytest.mark.parametrize("chunked", [False, True])
def test_right(alice: Client, home: str, name: str, value: str, chunked: bool) -> None:
    """A body that is what its digest says is stored."""
    assert alice.put(f"{home}/f", body(chunked), headers={name: value}).status == 201
    assert alice.content(f"{home}/f") == CONTENT


@pytest.mark.parametrize(("name", "value"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_wrong(alice: Client, home: str, name: str, value: str, method: str) -> None:
    """A body that isn't what its digest says is 400 CHECKSUM_MISMATCH, and nothing is stored."""
    for chunked in (False, True):
        answer = alice.request(method, f"/v1/files{home}/f", body(chunked), {name: value})
        answer.refused(400, "CHECKSUM_MISMATCH")
    assert alice.names(home) == []


def test_wrong_digest_keeps_what_was_there(alice: Client, home: str) -> None:
    """A mismatch leaves the old content and its ETag as they were."""
    path = alice.stored(f"{home}/f", b"old")
    tag = alice.head(path)["ETag"]
    headers = {"Content-Digest": field(b"other", "sha-256")}
    alice.put(path, CONTENT, headers=headers).refused(400, "CHECKSUM_MISMATCH")
    assert (alice.content(path), alice.head(path)["ETag"]) == (b"old", tag)


def test_empty_body(alice: Client, home: str) -> None:
    """An empty body has a digest too."""
    good = {"Content-Digest": field(b"", "sha-256")}
    bad = {"Content-Digest": field(CONTENT, "sha-256")}
    assert alice.put(f"{home}/f", b"", headers=good).status == 201
    alice.put(f"{home}/g", b"", headers=bad).refused(400, "CHECKSUM_MISMATCH")
