"""What has gone bad in the midst of a log's write-ahead log is told from a torn end."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest

from callfs.cluster.logfile import FILE_NAME, LogFile, LogUnusable
from callfs.raft.boundary import Saved, Write
from callfs.raft.messages import Entry, EntryKind
from callfs.writeahead import first_lost_frame

HEADER_BYTES = 32
FRAME_BYTES = 24 + 4096
WAL_NAME = FILE_NAME + "-wal"


def commit(file: LogFile, index: int) -> None:
    """Make one entry durable, in a commit of its own."""
    file.connection.execute("BEGIN IMMEDIATE")
    file.carry_out(Write(number=index, entries=(Entry(index, 1, EntryKind.COMMAND, b"%d" % index * 50),)))
    file.connection.execute("COMMIT")


def crashed(folder: Path, entries: int, checkpoint_after: int = 0) -> Path:
    """What the disk has when a node is killed after so many commits."""
    (folder / "living").mkdir()
    file = LogFile(folder / "living", "n1")
    file.open(secrets.token_bytes)
    for index in range(1, entries + 1):
        commit(file, index)
        if index == checkpoint_after:
            file.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    left = folder / "left"
    shutil.copytree(folder / "living", left)
    file.close()
    return left


def started(folder: Path) -> Saved:
    """What a node would start from."""
    file = LogFile(folder, "n1")
    try:
        return file.open(secrets.token_bytes).saved
    finally:
        file.close()


def frames(folder: Path) -> int:
    return ((folder / WAL_NAME).stat().st_size - HEADER_BYTES) // FRAME_BYTES


def spoil(folder: Path, offset: int) -> None:
    """One bit goes bad."""
    path = folder / WAL_NAME
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def frame(number: int) -> int:
    """Where a frame begins, counted from 1."""
    return HEADER_BYTES + (number - 1) * FRAME_BYTES


@pytest.mark.parametrize("within", [4, 8, 16, 24 + 2000], ids=["commit mark", "salt", "checksum", "page"])
def test_a_bad_frame_with_commits_behind_it_is_refused(tmp_path: Path, within: int) -> None:
    """SQLite would drop what was acknowledged; the node doesn't start instead, however often it is tried."""
    left = crashed(tmp_path, entries=20)
    middle = frames(left) // 2
    spoil(left, frame(middle) + within)
    before = (left / WAL_NAME).read_bytes()
    for _ in range(2):
        with pytest.raises(LogUnusable, match=f"frame {middle} of its write-ahead log is bad.*cluster join"):
            started(left)
    assert (left / WAL_NAME).read_bytes() == before


def test_a_bad_header_with_frames_behind_it_is_refused(tmp_path: Path) -> None:
    """SQLite would ignore the whole write-ahead log."""
    left = crashed(tmp_path, entries=5)
    spoil(left, 16)
    with pytest.raises(LogUnusable, match="damaged"):
        started(left)


@pytest.mark.parametrize("missing", [1, FRAME_BYTES - 1, FRAME_BYTES], ids=["byte", "most of a frame", "frame"])
def test_a_torn_end_is_healed(tmp_path: Path, missing: int) -> None:
    """The commit under way in a power failure is gone, and nobody was told of it; the others are there."""
    left = crashed(tmp_path, entries=20)
    data = (left / WAL_NAME).read_bytes()
    (left / WAL_NAME).write_bytes(data[:-missing])
    assert len(started(left).entries) == 19


def test_a_last_commit_of_which_only_the_end_arrived_is_healed(tmp_path: Path) -> None:
    """A disk writes the pages of one commit in any order."""
    left = crashed(tmp_path, entries=1)
    whole = frames(left)
    (tmp_path / "more").mkdir()
    left = crashed(tmp_path / "more", entries=2)
    assert frames(left) > whole
    spoil(left, frame(whole + 1) + 500)
    assert len(started(left).entries) == 1


def test_frames_from_before_the_log_was_begun_anew_count_for_nothing(tmp_path: Path) -> None:
    """After a checkpoint the file is written again from its beginning; old frames stay behind the new ones."""
    left = crashed(tmp_path, entries=60, checkpoint_after=55)
    assert first_lost_frame(left / FILE_NAME) is None
    assert len(started(left).entries) == 60


def test_a_log_without_a_write_ahead_log_is_whole(tmp_path: Path) -> None:
    """After an orderly end there is none, and an empty one says nothing."""
    left = crashed(tmp_path, entries=3)
    assert len(started(left).entries) == 3
    assert not (left / WAL_NAME).exists()
    assert first_lost_frame(left / FILE_NAME) is None
    (left / WAL_NAME).write_bytes(b"")
    assert len(started(left).entries) == 3
