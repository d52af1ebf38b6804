"""
Single-use links.

A token is 16 random bytes and an HMAC-SHA256 over them, the file's id and the expiry, both base64url, joined by a
dot. The store knows the hash of the random part alone, so a copy of the store makes no valid token, and without
the secret no token can be made for a row that is there.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from callfs.deferreds import returns_deferred
from callfs.engine.messages import IssuedLink, OpenFile
from callfs.engine.ports import Ports
from callfs.engine.read import content, open_found, stat
from callfs.engine.routing import backend_type
from callfs.engine.settings import microseconds
from callfs.errors import BadRequest, LinkExpired, LinkNotFound, LinkUsed
from callfs.identifiers import TokenBytes
from callfs.metadata.commands import ConsumeLink, IssueLink
from callfs.model import Inode, Link, Principal

RANDOM_BYTES = 16
MIN_EXPIRY_SECONDS = 1
MAX_EXPIRY_SECONDS = 86_400

_SIGNATURE_BYTES = hashlib.sha256().digest_size
_NOT_FOUND = "there is no such link"


class LinkTokens:
    """
    Makes and checks tokens.

    :param secrets: the first signs, all are accepted.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = _usable(secrets)

    def replace_secrets(self, secrets: Sequence[bytes]) -> None:
        """Use other secrets from now on; a token of one that isn't among them is unknown then."""
        self._secrets = _usable(secrets)

    def new_random(self, token_bytes: TokenBytes) -> bytes:
        """The random part of a new token."""
        return token_bytes(RANDOM_BYTES)

    def token(self, random: bytes, inode_id: str, expires_at: int) -> str:
        """The token of a link."""
        return f"{_encoded(random)}.{_encoded(_signature(self._secrets[0], random, inode_id, expires_at))}"

    def is_authentic(self, random: bytes, signature: bytes, link: Link) -> bool:
        """Whether one of the secrets has signed; each is tried, each comparison takes constant time."""
        matches = [
            hmac.compare_digest(_signature(secret, random, link.inode_id, link.expires_at), signature)
            for secret in self._secrets
        ]
        return any(matches)


def parse_token(token: str) -> tuple[bytes, bytes]:
    """
    Take a token apart.

    :return: the random part and the signature.
    :raises callfs.errors.LinkNotFound: it has another form. There is one spelling of a token, without padding.
    """
    random, _, signature = token.partition(".")
    return _decoded(random, RANDOM_BYTES), _decoded(signature, _SIGNATURE_BYTES)


def token_hash(random: bytes) -> bytes:
    """What the store knows of a token."""
    return hashlib.sha256(random).digest()


def _usable(secrets: Sequence[bytes]) -> tuple[bytes, ...]:
    if not secrets or not all(secrets):
        raise ValueError("links need at least one secret, and none may be empty")
    return tuple(secrets)


def _signature(secret: bytes, random: bytes, inode_id: str, expires_at: int) -> bytes:
    """Every part has a fixed length or its own type of byte, so that no two links share a message."""
    message = random + inode_id.encode("ascii") + b"." + str(expires_at).encode("ascii")
    return hmac.digest(secret, message, "sha256")


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str, size: int) -> bytes:
    """Python's decoder skips what it doesn't know and ignores spare bits: encoding again tells."""
    try:
        data = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        raise LinkNotFound(_NOT_FOUND) from None
    if len(data) != size or _encoded(data) != text:
        raise LinkNotFound(_NOT_FOUND)
    return data


async def issue(
    ports: Ports, tokens: LinkTokens, principal: Principal, path: str, expiry_seconds: int
) -> IssuedLink:
    """See :meth:`callfs.engine.filesystem.Filesystem.issue_link`."""
    if not MIN_EXPIRY_SECONDS <= expiry_seconds <= MAX_EXPIRY_SECONDS:
        raise BadRequest(f"expiry_seconds must be from {MIN_EXPIRY_SECONDS} to {MAX_EXPIRY_SECONDS}")
    inode = await stat(ports, principal, path)
    content(inode)
    random = tokens.new_random(ports.token_bytes)
    at = ports.now()
    link = await ports.metadata.apply(
        IssueLink(
            at=at,
            principal=principal,
            path=path,
            inode_id=inode.id,
            token_hash=token_hash(random),
            expires_at=at + microseconds(expiry_seconds),
        )
    )
    return IssuedLink(tokens.token(random, link.inode_id, link.expires_at), link.expires_at)


async def look_up(ports: Ports, tokens: LinkTokens, token: str) -> Inode:
    """See :meth:`callfs.engine.filesystem.Filesystem.look_up_link`."""
    random, signature = parse_token(token)
    link = await ports.metadata.get_link(token_hash(random))
    if link is None or not tokens.is_authentic(random, signature, link):
        raise LinkNotFound(_NOT_FOUND)
    inode = await _linked(ports, link)
    if ports.now() >= link.expires_at:
        raise LinkExpired("the link has expired")
    if link.used_at is not None:
        raise LinkUsed("the link has been used")
    return inode


async def _linked(ports: Ports, link: Link) -> Inode:
    inode = await ports.metadata.get_by_id(link.inode_id)
    if inode is None:
        raise LinkNotFound(_NOT_FOUND)
    return inode


async def redeem(ports: Ports, tokens: LinkTokens, token: str) -> OpenFile:
    """See :meth:`callfs.engine.filesystem.Filesystem.redeem_link`."""
    opened = await open_found(ports, lambda: look_up(ports, tokens, token))
    try:
        await ports.unattended.shield(_consume(ports, token))
    except Exception:
        opened.reader.close()
        raise
    ports.metrics.file_operation("read", backend_type(opened.inode))
    return opened


@returns_deferred
async def _consume(ports: Ports, token: str) -> None:
    random, _ = parse_token(token)
    await ports.metadata.apply(ConsumeLink(at=ports.now(), token_hash=token_hash(random)))
