"""Blobs on the local disk."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.localfs import LocalBackend
from tests.backends.support import make_local
from tests.contract.backends import BlobBackendContract


class LocalBackendTests(BlobBackendContract, TestCase):
    """The local disk keeps the port's promises."""

    provider = LocalBackend

    def make_backend(self) -> IBlobBackend:
        return make_local(self, now=self.now)


class PortableLocalBackendTests(BlobBackendContract, TestCase):
    """So it does where the system has nothing beyond POSIX."""

    provider = LocalBackend

    def make_backend(self) -> IBlobBackend:
        return make_local(self, now=self.now, linux_calls=False)
