"""TLS to S3 is verified against what the system trusts."""

from __future__ import annotations

import os
from unittest import mock

from twisted.trial.unittest import TestCase

from callfs.backends.s3_unusable import S3Unusable
from callfs.errors import PeerUnavailable
from tests.backends.s3_support import FaultyServer, names_nothing
from tests.backends.support import new_folder
from tests.backends.test_peer_tls import Authority
from tests.contract.backends import MIB, content, get, new_id, put


class TlsTests(FaultyServer, TestCase):
    """An authority of the test's own, which the system trusts or not."""

    def setUp(self) -> None:
        self.authority = Authority("the system's")

    def trust(self, authority: Authority) -> None:
        """As far as OpenSSL knows."""
        path = new_folder(self) / "trusted.pem"
        path.write_bytes(authority.pem)
        patch = mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(path)})
        patch.start()
        self.addCleanup(patch.stop)

    async def test_trusted(self) -> None:
        """A certificate of a trusted authority, for this host: content of any size goes both ways."""
        self.trust(self.authority)
        await self.begin(self.authority.server("127.0.0.1"))
        backend = self.backend()
        for size in (10, 20 * MIB):
            data = content(size)
            blob_id = await put(backend, data)
            assert await get(backend, blob_id) == data
        reader = await backend.open(blob_id)
        await reader.read(0, 2 * MIB)
        reader.close()

    async def test_untrusted(self) -> None:
        """Another authority's certificate, or one for another host, is refused, and the message says so."""
        self.trust(self.authority)
        for authority, name in ((Authority("a stranger's"), "127.0.0.1"), (self.authority, "s3.example.org")):
            await self.begin(authority.server(name))
            backend = self.backend({"random": lambda: 0.0})
            error = await self.assertFailure(backend.recognise("a" * 32, True, names_nothing), S3Unusable)  # type: ignore[func-returns-value]
            assert "Its TLS certificate isn't good. Correct backend.s3_endpoint" in str(error)
            await self.assertFailure(backend.open(new_id()), PeerUnavailable)
            assert self.faulty.seen == []
