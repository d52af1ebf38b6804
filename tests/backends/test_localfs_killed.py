"""The local backend after ``kill -9`` in the middle of a write."""

from __future__ import annotations

import signal
import sys
from typing import Any

from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import BlobMissing
from tests.backends.support import make_local, new_folder
from tests.backends.test_localfs_files import files
from tests.contract.backends import MIB, content, get, listed, new_id
from tests.support.forking import run

STEPS = ("blob.staged", "blob.written", "blob.fsynced", "blob.renamed", "blob.committed")
VISIBLE = ("blob.renamed", "blob.committed")


def run_writer(arguments: list[str]) -> int:
    """The exit status of a process that writes a blob."""
    return run([sys.executable, "-m", "tests.backends.killed_writer", *arguments]).returncode


class KilledTests(TestCase):
    """A crash leaves nothing or the whole blob, never a torn one."""

    async def killed_at(self, step: str, size: int) -> None:
        """Kill a writer at the step, then start anew on its root."""
        root, blob_id = new_folder(self), new_id()
        arguments = [str(root), blob_id, str(size), step]
        assert run_writer(arguments) == -signal.SIGKILL
        backend: Any = make_local(self, root)
        await backend.remove_stale_staged(2**60)
        assert files(root / "staging") == []
        if step in VISIBLE:
            assert await get(backend, blob_id) == content(size)
            assert await listed(backend) == [blob_id]
        else:
            await self.assertFailure(backend.open(blob_id), BlobMissing)
            assert await listed(backend) == []

    async def test_small(self) -> None:
        """A blob that is written in one job."""
        for step in STEPS:
            await self.killed_at(step, 1000)

    async def test_large(self) -> None:
        """A blob that is written in many."""
        for step in STEPS:
            await self.killed_at(step, 5 * MIB + 1)
