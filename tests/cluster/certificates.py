"""An authority, and certificates from it, made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from callfs.cluster.tls import PeerTLS


class Authority:
    """
    :param folder: for its files; must exist.
    :param name: what it is called.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._signed(self._key.public_key(), name, ())
        self.ca_file = folder / f"{name}.pem"
        self.ca_file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(self, key: ec.EllipticCurvePublicKey, name: str, names: Sequence[str] | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == self.name, path_length=None), critical=True)
        )
        if names:
            alternative = x509.SubjectAlternativeName([_general_name(each) for each in names])
            builder = builder.add_extension(alternative, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def certificate(self, name: str, *names: str) -> tuple[Path, Path]:
        """The files of a certificate for these names, such as ``IP:127.0.0.1`` and ``DNS:n1``, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate = self._signed(key.public_key(), name, names)
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file

    def tls(
        self, name: str, *names: str, node_id: str = "", host: str = "", trusts: Authority | None = None
    ) -> PeerTLS:
        """
        What a node uses; it trusts this authority or another.

        :param names: of its certificate; its address when none is given.
        :param node_id: who it takes itself for, if another than ``name``.
        :param host: where it takes itself to be.
        """
        names = names or ("IP:127.0.0.1",)
        return PeerTLS(
            *self.certificate(name, *names),
            (trusts or self).ca_file,
            node_id=node_id or name,
            raft_address=f"{host or '127.0.0.1'}:7000",
        )


def _general_name(text: str) -> x509.GeneralName:
    kind, _, value = text.partition(":")
    if kind == "IP":
        return x509.IPAddress(ipaddress.ip_address(value))
    return x509.DNSName(value) if kind == "DNS" else x509.UniformResourceIdentifier(value)
