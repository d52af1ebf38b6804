"""Metadata as lines: what is written is read, and what isn't whole is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.errors import InvalidPath
from callfs.metadata.transfer import (
    CondemnedRecord,
    GarbageRecord,
    Header,
    InodeRecord,
    InstanceRecord,
    LinkRecord,
    Record,
    ReplicationRecord,
    Tally,
    Writing,
)
from callfs.metadata.transfer_reading import Reading, Unreadable
from callfs.model import (
    ROOT_INODE,
    BlobRef,
    Inode,
    InodeType,
    Instance,
    Link,
    LocalPlacement,
    ReplicaOrder,
    Replication,
    S3Placement,
)
from callfs.paths import valid_name

STORE_ID = "5" * 32
HEADER = Header(store_id=STORE_ID, at=1_700_000_000_000_001)
ROOT = InodeRecord(inode=ROOT_INODE)
BLOB = BlobRef("0" * 26, 3, b"s" * 32, LocalPlacement("node-1"))
DIRECTORY = Inode(
    id="1" * 32,
    path="/d",
    parent_id=ROOT_INODE.id,
    type=InodeType.DIRECTORY,
    mode=0o755,
    owner="alice",
    mtime=1,
    ctime=2,
    created_at=3,
)
FILE = Inode(
    id="2" * 32,
    path="/d/f",
    parent_id="1" * 32,
    type=InodeType.FILE,
    mode=0o644,
    owner="alice",
    mtime=1,
    ctime=2,
    created_at=3,
    content_id="c" * 32,
    content_type="text/plain",
    blob=BLOB,
)
LINK = Link(token_hash=b"h" * 32, inode_id=FILE.id, created_by="alice", created_at=1, expires_at=2)
QUEUED = Replication(BLOB.id, FILE.id, ReplicaOrder(S3Placement(), "node-1"), queued_at=10, due_at=11, attempts=2)
VERSION_1 = """\
{"record":"header","format":"callfs-metadata","version":1,"store_id":"55555555555555555555555555555555","at":1}
{"record":"inode","inode":{"id":"00000000000000000000000000000000","path":"/",\
"parent_id":"00000000000000000000000000000000","type":"directory","mode":493,"owner":"root","mtime":0,"ctime":0,\
"created_at":0,"generation":1,"content_type":null,"content_id":null,"blob":null}}
{"record":"instance","instance":{"id":"node-1","root_id":null,"api_endpoint":"http://x","last_seen_at":9}}
{"record":"end","counts":{"inodes":1,"links":0,"garbage":0,"condemned":0,"instances":1},\
"sha256":"SUM"}
"""
"""An export as the first version wrote it, but for its checksum."""
RECORDS: list[Record] = [
    ROOT,
    InodeRecord(inode=DIRECTORY),
    InodeRecord(inode=FILE),
    LinkRecord(link=LINK),
    GarbageRecord(blob=msgspec.structs.replace(BLOB, id="1" * 26, placement=S3Placement()), not_before_at=7),
    CondemnedRecord(blob_id="2" * 26, condemned_at=8),
    InstanceRecord(instance=Instance("node-1", None, "http://x", 9)),
    ReplicationRecord(replication=QUEUED),
]


def is_name(text: str) -> bool:
    """Whether a file may be called that."""
    try:
        return valid_name(text) == text
    except InvalidPath:
        return False


NAMES = st.text(st.characters(min_codepoint=0x20), max_size=60).filter(is_name)


def lines(records: list[Record], header: Header = HEADER) -> list[bytes]:
    """An export of these records."""
    writing = Writing(header)
    parts = [writing.begin(), *(writing.records([record]) for record in records), writing.end()]
    return b"".join(parts).splitlines(keepends=True)


def read(given_lines: list[bytes]) -> tuple[Reading, list[Record]]:
    """Read all lines to the end."""
    reading = Reading()
    found = [record for line in given_lines if (record := reading.line(line)) is not None]
    reading.end()
    return reading, found


def refusal(given_lines: list[bytes]) -> str:
    """Why these lines are refused."""
    with pytest.raises(Unreadable) as caught:
        read(given_lines)
    return str(caught.value)


class TestRoundTrip:
    def test_everything_comes_back(self) -> None:
        """Records, header and counts are read as they were written."""
        reading, found = read(lines(RECORDS))
        assert found == RECORDS
        assert reading.header == HEADER
        counts = reading.tally.counts
        assert msgspec.structs.astuple(counts) == (3, 1, 1, 1, 1, 1)
        assert counts.all == len(RECORDS)

    @given(st.sets(NAMES))
    def test_names_of_every_kind(self, names: set[str]) -> None:
        """Any name that a file can have stays what it is, beside any other, in directories and below them."""
        inodes = []
        for number, name in enumerate(names, 1):
            directory_id = f"{number:032x}"
            inodes.append(msgspec.structs.replace(DIRECTORY, id=directory_id, path=f"/{name}"))
            inodes.append(msgspec.structs.replace(FILE, path=f"/{name}/{name}", parent_id=directory_id))
        ordered = sorted(inodes, key=lambda inode: inode.path.encode())
        _, found = read(lines([ROOT, *(InodeRecord(inode=inode) for inode in ordered)]))
        assert [record.inode for record in found[1:] if isinstance(record, InodeRecord)] == ordered

    def test_each_line_is_json(self) -> None:
        """Other programs can read it."""
        kinds = [json.loads(line)["record"] for line in lines(RECORDS)]
        assert kinds == [
            "header",
            "inode",
            "inode",
            "inode",
            "link",
            "garbage",
            "condemned",
            "instance",
            "replication",
            "end",
        ]

    def test_a_tally_does_not_depend_on_order(self) -> None:
        """Two stores that give the same in another order are the same; one record less or other isn't."""
        one, other, less, changed = Tally(), Tally(), Tally(), Tally()
        one.add(RECORDS)
        other.add(RECORDS[::-1])
        less.add(RECORDS[1:])
        changed.add([*RECORDS[:-2], InstanceRecord(instance=Instance("node-1", None, "http://x", 10)), RECORDS[-1]])
        assert one == other
        assert one != less
        assert one != changed


class TestOlder:
    def test_the_first_version_is_read(self) -> None:
        """What was written before there was a replication queue has none."""
        body, end = VERSION_1[: VERSION_1.index('{"record":"end"')], VERSION_1[VERSION_1.index('{"record":"end"') :]
        whole = body + end.replace("SUM", hashlib.sha256(body.encode()).hexdigest())
        reading, found = read(whole.encode().splitlines(keepends=True))
        assert found == [ROOT, InstanceRecord(instance=Instance("node-1", None, "http://x", 9))]
        assert (reading.header.version, reading.tally.counts.replications) == (1, 0)

    def test_this_version_is_the_second(self) -> None:
        """A program that knows only the first says so, rather than that the file is damaged."""
        assert b'"version":2' in lines(RECORDS)[0]


class TestDamage:
    def test_cut_anywhere(self) -> None:
        """However much of the end is missing, it is noticed."""
        whole = b"".join(lines(RECORDS))
        for length in range(len(whole)):
            assert refusal(whole[:length].splitlines(keepends=True))

    def test_empty(self) -> None:
        """Nothing is no export."""
        assert refusal([]) == "it is empty"

    def test_a_missing_line(self) -> None:
        """A line less is noticed at the end at the latest."""
        whole = lines(RECORDS)
        for number in range(len(whole)):
            assert refusal(whole[:number] + whole[number + 1 :])

    def test_a_changed_digit(self) -> None:
        """A line that was changed into another good one doesn't match the checksum."""
        whole = lines(RECORDS)
        changed = [line.replace(b'"condemned_at":8', b'"condemned_at":9') for line in whole]
        assert changed != whole
        assert "checksum" in refusal(changed)

    def test_a_damaged_line(self) -> None:
        """A line that isn't JSON, or no record, is named by its number."""
        whole = lines(RECORDS)
        for line in (b"{\n", b"\n", b"\xff\n", b'{"record":"dream"}\n', b'{"record":"inode"}\n'):
            assert refusal([*whole[:2], line, *whole[3:]]).startswith("line 3: it is damaged")

    def test_something_after_the_end(self) -> None:
        """Two exports in one file are none."""
        whole = lines(RECORDS)
        assert "follows the end" in refusal([*whole, *whole])

    def test_a_line_too_long(self) -> None:
        """A line without end isn't taken into memory."""
        assert "too long" in refusal([*lines(RECORDS)[:1], b" " * (1 << 20)])


class TestForeign:
    def test_another_program(self) -> None:
        """What isn't an export is called that."""
        for line in (b"SQLite format 3\0\n", b"{}\n", b"[]\n", b"12\n"):
            assert refusal([line]) == "it isn't an export of CallFS metadata"

    def test_another_version(self) -> None:
        """A newer version's export is refused, whatever is in it."""
        line = b'{"record":"header","format":"callfs-metadata","version":3,"new":1}\n'
        assert "version 3" in refusal([line])

    def test_a_bad_identity(self) -> None:
        """The store's identity has its form."""
        assert "no header" in refusal(lines(RECORDS, Header(store_id="x", at=1)))

    def test_two_headers(self) -> None:
        """A header is the first line and no other."""
        whole = lines(RECORDS)
        assert "second header" in refusal([whole[0], *whole])


def inode(base: Inode, **changes: Any) -> Record:
    """An inode that isn't right."""
    return InodeRecord(inode=msgspec.structs.replace(base, **changes))


def blob(**changes: Any) -> BlobRef:
    """A blob that isn't right."""
    return msgspec.structs.replace(BLOB, **changes)


def queued(**changes: Any) -> Record:
    """An entry of the replication queue that isn't right."""
    return ReplicationRecord(replication=msgspec.structs.replace(QUEUED, **changes))


WRONG: dict[str, tuple[list[Record], str]] = {
    "no root": ([inode(DIRECTORY)], "directory that it is in"),
    "nothing": ([], "root"),
    "a second root": ([ROOT, inode(DIRECTORY, id=ROOT_INODE.id)], "root"),
    "a root with a parent": ([inode(ROOT_INODE, parent_id="1" * 32)], "root"),
    "no order of paths": ([ROOT, inode(DIRECTORY), inode(DIRECTORY, path="/c")], "out of order"),
    "a path twice": ([ROOT, inode(DIRECTORY), inode(DIRECTORY, id="3" * 32)], "out of order"),
    "no order of groups": ([ROOT, RECORDS[5], LinkRecord(link=LINK)], "out of order"),
    "no parent": ([ROOT, inode(FILE)], "directory that it is in"),
    "a file as parent": ([ROOT, inode(FILE, path="/d", parent_id=ROOT_INODE.id), inode(FILE)], "directory"),
    "another parent": ([ROOT, inode(DIRECTORY, id="7" * 32), inode(FILE)], "directory that it is in"),
    "a path that climbs": ([ROOT, inode(DIRECTORY, path="/../d")], "canonical|climbs"),
    "a relative path": ([ROOT, inode(DIRECTORY, path="d")], "canonical"),
    "a forbidden path": ([ROOT, inode(DIRECTORY, path="/a\nb")], "isn't allowed"),
    "a long name": ([ROOT, inode(DIRECTORY, path="/" + "x" * 256)], "longer than 255 bytes"),
    "an id": ([ROOT, inode(DIRECTORY, id="x")], "32 hex digits"),
    "a file without content": ([ROOT, inode(DIRECTORY), inode(FILE, blob=None)], "a file has content"),
    "a directory with content": ([ROOT, inode(DIRECTORY, blob=BLOB)], "a directory none"),
    "a NUL": ([ROOT, inode(DIRECTORY, owner="a\0")], "NUL"),
    "a large number": ([ROOT, inode(DIRECTORY, mtime=1 << 63)], "64 bits"),
    "a blob id": ([ROOT, inode(DIRECTORY), inode(FILE, blob=blob(id="u"))], "wrong id"),
    "a blob's digest": ([ROOT, inode(DIRECTORY), inode(FILE, blob=blob(sha256=b"1"))], "digest"),
    "a blob's size": ([ROOT, inode(DIRECTORY), inode(FILE, blob=blob(size=-1))], "size"),
    "a replica": ([ROOT, inode(DIRECTORY), inode(FILE, blob=blob(replicas=(blob(size=4),)))], "replica"),
    "a link": ([ROOT, LinkRecord(link=msgspec.structs.replace(LINK, token_hash=b"1"))], "no link"),
    "a link's time": ([ROOT, LinkRecord(link=msgspec.structs.replace(LINK, used_at=1 << 63))], "64 bits"),
    "garbage": ([ROOT, GarbageRecord(blob=blob(replicas=(BLOB,)), not_before_at=1)], "garbage"),
    "a condemned blob": ([ROOT, CondemnedRecord(blob_id="x", condemned_at=1)], "condemned"),
    "a replication": ([ROOT, queued(blob_id="x")], "replication queue"),
    "a replication of nothing": ([ROOT, queued(inode_id="x")], "replication queue"),
    "a replication by nobody": ([ROOT, queued(order=ReplicaOrder(S3Placement(), ""))], "nodes"),
    "a replication to nowhere": ([ROOT, queued(order=ReplicaOrder(LocalPlacement(""), "a"))], "nodes"),
    "a replication's node": ([ROOT, queued(order=ReplicaOrder(LocalPlacement("b\0"), "a"))], "nodes"),
    "a replication's time": ([ROOT, queued(due_at=1 << 63)], "number"),
    "a replication's attempts": ([ROOT, queued(attempts=-1)], "replication queue"),
    "too many attempts": ([ROOT, queued(attempts=1 << 31)], "number"),
    "a node": ([ROOT, InstanceRecord(instance=Instance("", None, "http://x", 1))], "node"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_store_holds_is_refused(name: str) -> None:
    """A record that no store could have given out is refused, even where the checksum is right."""
    records, reason = WRONG[name]
    with pytest.raises(Unreadable, match=reason):
        read(lines(records))
