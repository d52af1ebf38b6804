"""Nodes that speak TLS: whose word is taken."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, KeyPair, PrivateCertificate
from twisted.trial.unittest import TestCase
from twisted.web.iweb import IPolicyForHTTPS

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.peertls import (
    UnusableCertificates,
    UnverifiedPeers,
    VerifiedPeers,
    policy_for,
    read_certificates,
)
from callfs.errors import PeerUnavailable
from tests.backends.peersupport import THERE, Holder, Log, Observed, make_client, make_peers
from tests.backends.support import make_local, new_folder
from tests.contract.backends import MIB, content, get, new_id, put


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._signed(self._name, self._key, [], is_authority=True)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate(self) -> Certificate:
        """The same for Twisted."""
        return Certificate.loadPEM(self.pem)

    def server(self, *names: str) -> Any:
        """What a server with a certificate for these names and addresses needs."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a node")])
        signed = self._signed(subject, key, list(names), is_authority=False)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate = Certificate.loadPEM(signed.public_bytes(serialization.Encoding.PEM))
        return PrivateCertificate.fromCertificateAndKeyPair(certificate, KeyPair.load(pem, 1)).options()

    def _signed(self, subject: x509.Name, key: Any, names: list[str], *, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class PeerTlsTests(TestCase):
    """A node at an https endpoint."""

    timeout = 60

    def setUp(self) -> None:
        self.authority = Authority("the cluster's authority")
        self.backend = make_local(self)
        self.observed = Observed()
        self.log = Log(self)

    async def blobs(self, policy: IPolicyForHTTPS, *names: str, host: str = "127.0.0.1") -> IBlobBackend:
        """The blobs of a node whose certificate is for ``names``, reached as ``host``."""
        holder = Holder(self, self.backend, tls=self.authority.server(*names))
        url = f"https://{host}:{holder.port}"
        blobs: IBlobBackend = await make_peers(self, {THERE: url}, policy=policy, observer=self.observed).blobs(
            THERE
        )
        return blobs

    async def assert_works(self, blobs: IBlobBackend) -> None:
        """A large blob there and back."""
        data = content(5 * MIB)
        assert await get(blobs, await put(blobs, data)) == data

    async def assert_refused(self: Any, blobs: IBlobBackend, text: str) -> None:
        """Every call fails, and the reason is clear to the client's administrator and in the log."""
        for call in (blobs.open(new_id()), blobs.stat(new_id())):
            error = await self.assertFailure(call, PeerUnavailable)
            assert text in error.message
        error = await self.assertFailure(Deferred.fromCoroutine(put(blobs, b"data")), PeerUnavailable)
        assert text in error.message
        assert set(self.observed.failures) == {(THERE, "tls")}
        assert text in self.log.named("peer_failed")[0]["reason"]

    async def test_trusted(self) -> None:
        """A certificate of the configured authority for the endpoint's address or name is good."""
        policy = VerifiedPeers([self.authority.certificate])
        await self.assert_works(await self.blobs(policy, "127.0.0.1"))
        await self.assert_works(await self.blobs(policy, "localhost", host="localhost"))

    async def test_wrong_authority(self) -> None:
        """One that somebody else signed isn't."""
        policy = VerifiedPeers([Authority("another").certificate])
        await self.assert_refused(
            await self.blobs(policy, "127.0.0.1"), "isn't signed by an authority that is trusted here"
        )

    async def test_the_systems_authorities(self) -> None:
        """Without a configured authority the system's count, which don't know ours."""
        await self.assert_refused(await self.blobs(VerifiedPeers(), "127.0.0.1"), "isn't signed by an authority")

    async def test_wrong_name(self) -> None:
        """A certificate for another name is refused, whoever signed it."""
        policy = VerifiedPeers([self.authority.certificate])
        blobs = await self.blobs(policy, "elsewhere.example", "127.0.0.2")
        await self.assert_refused(blobs, "is for another name")

    async def test_unverified(self) -> None:
        """Without verification anything goes, by address and by name."""
        await self.assert_works(await self.blobs(UnverifiedPeers(), "elsewhere.example"))
        await self.assert_works(await self.blobs(UnverifiedPeers(), "elsewhere.example", host="localhost"))

    async def test_as_configured(self) -> None:
        """The configuration names a file of authorities, or says that nothing is to be verified."""
        ca_file = new_folder(self) / "ca.pem"
        ca_file.write_bytes(self.authority.pem)
        await self.assert_works(await self.blobs(policy_for(False, ca_file), "127.0.0.1"))
        await self.assert_works(await self.blobs(policy_for(True, None), "elsewhere.example"))
        await self.assert_refused(await self.blobs(policy_for(False, None), "127.0.0.1"), "isn't signed")

    async def test_a_changed_policy(self: Any) -> None:
        """Other authorities count from the next connection on."""
        holder = Holder(self, self.backend, tls=self.authority.server("127.0.0.1"))
        client = make_client(self, policy=VerifiedPeers([Authority("another").certificate]))
        blobs = await make_peers(self, {THERE: holder.url}, client=client).blobs(THERE)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)
        client.replace_policy(VerifiedPeers([self.authority.certificate]))
        await self.assert_works(blobs)

    async def test_plain_http(self: Any) -> None:
        """A node that doesn't speak TLS at an https endpoint."""
        holder = Holder(self, self.backend)
        blobs = await make_peers(self, {THERE: f"https://127.0.0.1:{holder.port}"}, timeout_seconds=1).blobs(THERE)
        await self.assertFailure(blobs.open(new_id()), PeerUnavailable)


class CertificateFileTests(TestCase):
    """The file of ``backend.internal_proxy_ca_file``."""

    def written(self, data: bytes) -> Path:
        """A file with this content."""
        path = new_folder(self) / "ca.pem"
        path.write_bytes(data)
        return path

    def test_several(self) -> None:
        """A file may have several certificates, with text around them."""
        pems = [Authority(f"authority {number}").pem for number in range(3)]
        assert len(read_certificates(self.written(b"# ours\n" + b"\n# and\n".join(pems)))) == 3

    def test_none(self) -> None:
        """A file without any, or with a broken one, is refused by name."""
        for data in (b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"):
            path = self.written(data)
            with pytest.raises(UnusableCertificates, match=str(path)):
                read_certificates(path)
        with pytest.raises(FileNotFoundError):
            read_certificates(Path("/nonexistent/ca.pem"))
