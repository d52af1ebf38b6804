"""Range requests (HTTP API, section 3; RFC 9110, section 14)."""

from __future__ import annotations

import email.parser
import email.policy
import random

import pytest

from tests.support.http import Answer, Client

CONTENT = bytes(range(256)) * 4  # 1,024 bytes


@pytest.fixture
def path(alice: Client, home: str) -> str:
    """A file of 1,024 bytes."""
    return alice.stored(f"{home}/f", CONTENT, Content_Type="text/plain")


def parts_of(answer: Answer) -> list[tuple[str, bytes]]:
    """Content-Range and bytes of each part of a multipart/byteranges answer."""
    assert answer["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert int(answer["Content-Length"]) == len(answer.body)
    head = f"Content-Type: {answer['Content-Type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.body)
    parts = []
    boundary = b"--" + message.get_boundary("").encode()
    for raw in answer.body.split(boundary)[1:-1]:  # by hand: the parser may alter binary line ends
        part_head, _, part_body = raw.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in part_head.split(b"\r\n"))
        lower = {name.lower(): value.decode() for name, value in fields.items()}
        assert lower[b"content-type"] == "text/plain"
        parts.append((lower[b"content-range"], part_body.removesuffix(b"\r\n")))
    assert answer.body.rstrip().endswith(boundary + b"--")
    return parts


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 1023),
        ("bytes=5-9", 5, 9),
        ("bytes=1023-", 1023, 1023),
        ("bytes=1000-5000", 1000, 1023),
        ("bytes=0-99999999999999999999999", 0, 1023),
        ("bytes=-1", 1023, 1023),
        ("bytes=-24", 1000, 1023),
        ("bytes=-5000", 0, 1023),
        ("bytes=5-9,", 5, 9),
        ("bytes=5-9, 5000-", 5, 9),
    ],
)
def test_one_range(alice: Client, path: str, value: str, first: int, last: int) -> None:
    """One satisfiable range is 206 with exactly those bytes."""
    answer = alice.get(path, headers={"Range": value})
    assert answer.status == 206
    assert answer["Content-Range"] == f"bytes {first}-{last}/1024"
    assert answer["Content-Length"] == str(last - first + 1)
    assert answer.body == CONTENT[first : last + 1]


def test_headers_of_a_part(alice: Client, path: str) -> None:
    """A partial answer has the headers of the whole file, its digest included."""
    whole = alice.get(path)
    part = alice.get(path, headers={"Range": "bytes=1-2"})
    for name in ("ETag", "Last-Modified", "Content-Type", "X-CallFS-Size", "X-CallFS-Owner", "Repr-Digest"):
        assert part[name] == whole[name]


@pytest.mark.parametrize("value", ["bytes=1024-", "bytes=5000-6000", "bytes=-0", "bytes=2000-,3000-"])
def test_unsatisfiable(alice: Client, path: str, value: str) -> None:
    """A range outside of the file is 416 and tells the size."""
    answer = alice.get(path, headers={"Range": value})
    answer.refused(416, "RANGE_NOT_SATISFIABLE")
    assert answer["Content-Range"] == "bytes */1024"


def test_empty_file(alice: Client, home: str) -> None:
    """An empty file has no first byte."""
    path = alice.stored(f"{home}/empty", b"")
    answer = alice.get(path, headers={"Range": "bytes=0-"})
    answer.refused(416, "RANGE_NOT_SATISFIABLE")
    assert answer["Content-Range"] == "bytes */0"


@pytest.mark.parametrize(
    "value",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=1", "bytes=1-2-3", "bytes=+1-2",
     "bytes=1_0-2_0", "bytes=1-2;3-4", "items=0-1", "0-1", "bytes=0x1-0x2", "bytes=1-2,x", "bytes=\u0661-\u0662"],
)  # fmt: skip
def test_malformed_is_ignored(alice: Client, path: str, value: str) -> None:
    """A malformed range is ignored: 200 with the whole file."""
    answer = alice.get(path, headers={"Range": value})
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.get("Content-Range") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-1,10-12", [(0, 1), (10, 12)]),
        ("bytes=10-12, 0-1", [(10, 12), (0, 1)]),
        ("bytes=0-0,-1", [(0, 0), (1023, 1023)]),
        ("bytes=0-0,5000-,7-7", [(0, 0), (7, 7)]),
        (",".join(["bytes=0-0", *(f"{60 * i}-{60 * i + 5}" for i in range(1, 16))]), None),
    ],
)
def test_several_ranges(alice: Client, path: str, value: str, expected: list[tuple[int, int]] | None) -> None:
    """Several ranges, up to 16, come as multipart/byteranges, in the order asked for."""
    if expected is None:
        expected = [(0, 0), *((60 * i, 60 * i + 5) for i in range(1, 16))]
    answer = alice.get(path, headers={"Range": value})
    assert answer.status == 206
    assert answer.get("Content-Range") is None
    assert parts_of(answer) == [(f"bytes {a}-{b}/1024", CONTENT[a : b + 1]) for a, b in expected]


def test_at_most_sixteen(alice: Client, path: str) -> None:
    """More than 16 ranges aren't served as such."""
    value = "bytes=" + ",".join(f"{20 * i}-{20 * i + 5}" for i in range(17))
    assert alice.get(path, headers={"Range": value}).status in (200, 400, 416)


def test_never_more_than_the_file(alice: Client, path: str) -> None:
    """Overlapping ranges never make the answer larger than the file."""
    answer = alice.get(path, headers={"Range": "bytes=0-,0-,0-,0-,0-"})
    if answer.status == 206 and answer.get("Content-Range") is None:
        assert sum(len(body) for _, body in parts_of(answer)) <= len(CONTENT)
    else:
        assert answer.status in (200, 206, 416)
        assert answer.status == 416 or answer.body == CONTENT


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("etag", 206),
        ("date", 206),
        ('"other"', 200),
        ("W/{etag}", 200),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 200),
        ("x", 200),
    ],
)
def test_if_range(alice: Client, path: str, condition: str, status: int) -> None:
    """If-Range lets the range count only while the file is the same, compared strongly."""
    head = alice.head(path)
    if condition == "date":  # a date is a strong validator only when it is old enough (RFC 9110, 8.8.2.2)
        assert alice.patch(path, mtime="2020-01-02T03:04:05Z").status == 200
        head = alice.head(path)
    value = {"etag": head["ETag"], "date": head["Last-Modified"]}.get(
        condition, condition.format(etag=head["ETag"])
    )
    answer = alice.get(path, headers={"Range": "bytes=1-2", "If-Range": value})
    assert answer.status == status
    assert answer.body == (CONTENT[1:3] if status == 206 else CONTENT)


def test_conditions_come_first(alice: Client, path: str) -> None:
    """A failed or matching condition is decided before the range."""
    tag = alice.head(path)["ETag"]
    assert alice.get(path, headers={"Range": "bytes=5000-", "If-None-Match": tag}).status == 304
    assert alice.get(path, headers={"Range": "bytes=0-1", "If-Match": '"other"'}).status == 412


def test_random_ranges_of_a_large_file(alice: Client, home: str) -> None:
    """Any range of a large file is exactly those bytes."""
    rng = random.Random(3)
    content = rng.randbytes(9_000_001)
    path = alice.stored(f"{home}/large", content)
    for _ in range(30):
        first = rng.randrange(len(content))
        last = min(first + rng.choice([0, 100, 65_535, 1_048_576, 5_000_000]), len(content) - 1)
        answer = alice.get(path, headers={"Range": f"bytes={first}-{last}"})
        assert (answer.status, answer.body) == (206, content[first : last + 1])


def test_several_large_ranges(alice: Client, home: str) -> None:
    """Large parts of a large file are whole in a multipart answer."""
    content = random.Random(4).randbytes(6_000_000)
    path = alice.stored(f"{home}/large", content, Content_Type="text/plain")
    answer = alice.get(path, headers={"Range": "bytes=0-2000000,3000000-5999999"})
    assert answer.status == 206
    assert parts_of(answer) == [
        ("bytes 0-2000000/6000000", content[:2_000_001]),
        ("bytes 3000000-5999999/6000000", content[3_000_000:]),
    ]
