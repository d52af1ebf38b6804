"""What stores on the local disk need of a test: threads, and folders that go away with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.python.threadpool import ThreadPool


class OnDisk:
    """
    To be mixed with trial's ``TestCase``.

    :cvar base_folder: where the folders are made; the system's temporary folder when ``None``.
    """

    base_folder: Path | None = None
    timeout = 100
    addCleanup: Callable[..., None]
    _pool: ThreadPool | None = None

    def pool(self) -> ThreadPool:
        """Threads that end after everything else of the test."""
        if self._pool is None:
            self._pool = ThreadPool(0, 4)
            self._pool.start()
            self.addCleanup(self._pool.stop)
        return self._pool

    def folder(self) -> Path:
        """A new folder."""
        folder = Path(tempfile.mkdtemp(prefix="callfs-metadata-", dir=self.base_folder))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return folder
