"""Copies made on the server: POST with copy_from."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest

from tests.support.http import Client


def test_copy(alice: Client, home: str) -> None:
    """A copy is a new file with the same bytes."""
    content = random.Random(5).randbytes(3_000_001)
    source = alice.stored(f"{home}/f", content)
    answer = alice.post(f"{home}/x/g", query=f"copy_from={source}")
    assert answer.status == 201
    assert answer["ETag"] == alice.head(f"{home}/x/g")["ETag"]
    assert alice.content(f"{home}/x/g") == content


def test_independent(alice: Client, home: str) -> None:
    """Neither a change nor the end of one touches the other."""
    source = alice.stored(f"{home}/f", b"old")
    assert alice.post(f"{home}/g", query=f"copy_from={source}").status == 201
    alice.stored(source, b"new")
    assert alice.content(f"{home}/g") == b"old"
    assert alice.delete(source).status == 204
    assert alice.content(f"{home}/g") == b"old"


@pytest.mark.parametrize("name", ["a b", "a+b", "100%", "a&b=c", "😀", "a?b#c"])
def test_any_name(alice: Client, home: str, name: str) -> None:
    """The source may have any legal name, percent-encoded in the query."""
    source = alice.stored(f"{home}/{name}", b"x")
    assert alice.post(f"{home}/copy", query=f"copy_from={quote(source, safe='')}").status == 201
    assert alice.content(f"{home}/copy") == b"x"


def test_body(alice: Client, home: str) -> None:
    """A copy with a body is 400."""
    source = alice.stored(f"{home}/f", b"x")
    alice.post(f"{home}/g", b"body", f"copy_from={source}").refused(400, "BAD_REQUEST")
    assert not alice.exists(f"{home}/g")


def test_missing_source(alice: Client, home: str) -> None:
    """A copy of what doesn't exist is 404."""
    alice.post(f"{home}/g", query=f"copy_from={home}/missing").refused(404, "FILE_NOT_FOUND")


def test_directory(alice: Client, home: str) -> None:
    """A directory can't be copied."""
    assert alice.post(f"{home}/g", query=f"copy_from={home}").status == 400


def test_destination_exists(alice: Client, home: str) -> None:
    """A copy never replaces anything, itself included."""
    source, there = alice.stored(f"{home}/f", b"x"), alice.stored(f"{home}/g", b"y")
    for path in (source, there):
        alice.post(path, query=f"copy_from={source}").refused(409, "FILE_ALREADY_EXISTS")
    assert (alice.content(source), alice.content(there)) == (b"x", b"y")
