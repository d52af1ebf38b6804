"""Exported metadata in a file, or on standard input or output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from callfs.metadata.importing import MOST_RECORDS
from callfs.metadata.transfer import Counts, Record
from callfs.metadata.transfer_reading import MAX_LINE_BYTES, Reading

STANDARD = "-"
"""The name of standard input or output."""


@contextmanager
def written(name: str) -> Iterator[BinaryIO]:
    """
    A new file, readable by its owner alone; on the disk after the block, removed when the block fails.

    :raises OSError: as it says; ``FileExistsError`` for one that is there already.
    """
    if name == STANDARD:
        with _written_to_output() as stream:
            yield stream
        return
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(Path(name).absolute().parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


@contextmanager
def _written_to_output() -> Iterator[BinaryIO]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError:
        # Nobody takes it: what is still in the buffer must not fail a second time when the interpreter ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """
    The file to read.

    :raises OSError: as it says.
    """
    if name == STANDARD:
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


class Batches:
    """
    The records of an export in batches.

    :param stream: at its beginning.
    :ivar reading: what was read so far; it has the header once the first batch is there.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.reading = Reading()
        self._stream = stream

    def next(self) -> Sequence[Record]:
        """
        The next batch; an empty one at the end, which was checked then. Blocks.

        :raises callfs.metadata.transfer_reading.Unreadable: as it says.
        """
        records: list[Record] = []
        while len(records) < MOST_RECORDS:
            line = self._stream.readline(MAX_LINE_BYTES)
            if not line:
                self.reading.end()
                break
            record = self.reading.line(line)
            if record is not None:
                records.append(record)
        return records


def checked(name: str) -> Counts:
    """
    Read a whole file before anything is done with it. Blocks.

    :return: how many records it has.
    :raises callfs.metadata.transfer_reading.Unreadable: as it says.
    :raises OSError: it can't be read.
    """
    with opened(name) as file:
        batches = Batches(file)
        while batches.next():
            pass
    return batches.reading.tally.counts
