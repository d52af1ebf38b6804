"""Blobs in a bucket."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.s3 import S3Backend
from tests.backends.s3_support import make_s3
from tests.contract.backends import BlobBackendContract


class S3BackendTests(BlobBackendContract, TestCase):
    """S3 keeps the port's promises."""

    provider = S3Backend

    def make_backend(self) -> IBlobBackend:
        return make_s3(self, now=self.now)
