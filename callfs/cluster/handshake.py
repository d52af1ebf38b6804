"""
How two peers prove to each other that they know the internal secret, and who they are.

=======================  ==================  ===================================================================
sender                   message             contents
=======================  ==================  ===================================================================
dialer                   :class:`Hello`      versions, own identity, whom it wants to reach, a nonce
acceptor                 :class:`Challenge`  the version chosen, own identity, a nonce
dialer                   :class:`Proof`      HMAC(secret, "dialer", Hello, Challenge)
acceptor                 :class:`Proof`      HMAC(secret, "acceptor", Hello, Challenge)
acceptor, instead        :class:`Refusal`    why not
=======================  ==================  ===================================================================

Both proofs cover every byte of both first messages, so both nonces, names, disks and the cluster are bound to them,
and each says which side made it: a proof sent back to its maker, or carried into another conversation, is worth
nothing. The dialer proves itself first, so that who merely connects gets nothing to guess secrets with.

Of several secrets the dialer uses the first and the acceptor the one that the dialer used, and all are accepted, so
that a secret can be replaced node by node.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

import msgspec

from callfs.cluster.identity import PeerIdentity

LOWEST_VERSION = 1
HIGHEST_VERSION = 1
"""The versions of what follows the handshake that this program speaks."""

HANDSHAKE_FRAME_BYTES = 8192
"""The longest frame before both sides are proven."""

NONCE_BYTES = 32

Admit = Callable[[PeerIdentity], str | None]
"""Says why a peer that is who it claims to be can't come in, as a code."""

_MAGIC = "callfs-raft"
_ACCEPTOR = b"callfs raft acceptor\0"
_DIALER = b"callfs raft dialer\0\0\0"


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Hello(_Message, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """The dialer's first words; ``target`` is the node it wants, empty when any will do."""

    magic: str
    lowest_version: int
    highest_version: int
    identity: PeerIdentity
    target: str
    nonce: bytes


class Challenge(_Message, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """The acceptor's first words."""

    version: int
    identity: PeerIdentity
    nonce: bytes


class Proof(_Message, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Knowledge of the secret."""

    mac: bytes


class Refusal(_Message, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """The acceptor's last words; the reason is a code of :class:`HandshakeRefused`."""

    reason: str


_DECODER = msgspec.msgpack.Decoder(Hello | Challenge | Proof | Refusal)
_encode = msgspec.msgpack.Encoder().encode


class HandshakeRefused(Exception):
    """
    The peers don't come together.

    :param reason: ``malformed``, ``version``, ``secret``, ``node`` (somebody else is at this address), ``self`` (it
        is this very node), ``cluster`` (it belongs to another one), ``certificate`` (it shows one that is
        another's), or what the ``admit`` of the acceptor said.
    :param told: whether the other side said so, rather than this one.
    """

    def __init__(self, reason: str, *, told: bool = False) -> None:
        said = "the other side refused the raft handshake" if told else "the raft handshake was refused"
        super().__init__(f"{said}: {reason}")
        self.reason = reason
        self.told = told


def _decoded(body: bytes) -> Hello | Challenge | Proof | Refusal:
    try:
        message: Hello | Challenge | Proof | Refusal = _DECODER.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise HandshakeRefused("malformed") from None
    return message


def _mac(secret: bytes, role: bytes, hello: bytes, challenge: bytes) -> bytes:
    transcript = b"".join((role, len(hello).to_bytes(4, "big"), hello, challenge))
    return hmac.digest(secret, transcript, hashlib.sha256)


def _proven_with(secrets: Sequence[bytes], role: bytes, hello: bytes, challenge: bytes, mac: bytes) -> bytes:
    """
    The secret that made the proof. All are compared, in constant time each, so that the time doesn't tell which.

    :raises HandshakeRefused: none did.
    """
    fitting = [secret for secret in secrets if hmac.compare_digest(_mac(secret, role, hello, challenge), mac)]
    if not fitting:
        raise HandshakeRefused("secret")
    return fitting[0]


def _check_company(own: PeerIdentity, other: PeerIdentity) -> None:
    if other.node_id == own.node_id or other.disk_id == own.disk_id:
        raise HandshakeRefused("self")
    if own.cluster_id and other.cluster_id and own.cluster_id != other.cluster_id:
        raise HandshakeRefused("cluster")


def _check_admitted(admit: Admit, peer: PeerIdentity) -> None:
    reason = admit(peer)
    if reason is not None:
        raise HandshakeRefused(reason)


class Dialer:
    """
    The side that made the connection.

    :param identity: this node.
    :param target: the node that is expected; empty for any.
    :param secrets: at least one; the first makes the proof.
    :param nonce: random, :data:`NONCE_BYTES` long.
    :param admit: asked about a peer that is proven; says why it isn't wanted, or nothing.
    :ivar peer: the other side, once :meth:`received` said that it is proven.
    """

    def __init__(
        self, identity: PeerIdentity, target: str, secrets: Sequence[bytes], nonce: bytes, admit: Admit
    ) -> None:
        self.peer: PeerIdentity | None = None
        self._admit = admit
        self._identity = identity
        self._target = target
        self._secrets = tuple(secrets)
        self._hello = _encode(Hello(_MAGIC, LOWEST_VERSION, HIGHEST_VERSION, identity, target, nonce))
        self._challenge: bytes | None = None
        self._claimed: PeerIdentity | None = None

    def first(self) -> bytes:
        """What to send first."""
        return self._hello

    def received(self, body: bytes) -> bytes | None:
        """
        Take the other side's next message.

        :return: what to send next; nothing when :attr:`peer` is proven.
        :raises HandshakeRefused: close the connection.
        """
        message = _decoded(body)
        if isinstance(message, Refusal):
            raise HandshakeRefused(message.reason[:64], told=True)
        if isinstance(message, Challenge) and self._challenge is None:
            return self._answer(message, body)
        if isinstance(message, Proof) and self._challenge is not None:
            self._finish(message)
            return None
        raise HandshakeRefused("malformed")

    def _answer(self, challenge: Challenge, body: bytes) -> bytes:
        if not LOWEST_VERSION <= challenge.version <= HIGHEST_VERSION:
            raise HandshakeRefused("version")
        if len(challenge.nonce) != NONCE_BYTES or not challenge.identity.is_plausible():
            raise HandshakeRefused("malformed")
        self._challenge = body
        self._claimed = challenge.identity
        return _encode(Proof(_mac(self._secrets[0], _DIALER, self._hello, body)))

    def _finish(self, proof: Proof) -> None:
        assert self._challenge is not None
        assert self._claimed is not None
        _proven_with(self._secrets, _ACCEPTOR, self._hello, self._challenge, proof.mac)
        _check_company(self._identity, self._claimed)
        if self._target not in ("", self._claimed.node_id):
            raise HandshakeRefused("node")
        _check_admitted(self._admit, self._claimed)
        self.peer = self._claimed


class Acceptor:
    """
    The side that was connected to.

    :param identity: this node.
    :param secrets: at least one.
    :param nonce: random, :data:`NONCE_BYTES` long.
    :param admit: asked about a peer that is proven; says why it can't come in, or nothing.
    :ivar peer: the other side, once it is proven and admitted.
    """

    def __init__(
        self,
        identity: PeerIdentity,
        secrets: Sequence[bytes],
        nonce: bytes,
        admit: Admit,
    ) -> None:
        self.peer: PeerIdentity | None = None
        self._identity = identity
        self._secrets = tuple(secrets)
        self._nonce = nonce
        self._admit = admit
        self._hello: Hello | None = None
        self._transcript = (b"", b"")

    def received(self, body: bytes) -> bytes:
        """
        Take the other side's next message.

        :return: what to send next; it is the last when :attr:`peer` is set.
        :raises HandshakeRefused: send :func:`refusal` and close the connection.
        """
        message = _decoded(body)
        if isinstance(message, Hello) and self._hello is None:
            return self._challenge(message, body)
        if isinstance(message, Proof) and self._hello is not None and self.peer is None:
            return self._finish(self._hello, message)
        raise HandshakeRefused("malformed")

    def _challenge(self, hello: Hello, body: bytes) -> bytes:
        if hello.magic != _MAGIC or len(hello.nonce) != NONCE_BYTES or not hello.identity.is_plausible():
            raise HandshakeRefused("malformed")
        version = min(HIGHEST_VERSION, hello.highest_version)
        if version < max(LOWEST_VERSION, hello.lowest_version):
            raise HandshakeRefused("version")
        self._hello = hello
        challenge = _encode(Challenge(version, self._identity, self._nonce))
        self._transcript = (body, challenge)
        return challenge

    def _finish(self, hello: Hello, proof: Proof) -> bytes:
        secret = _proven_with(self._secrets, _DIALER, *self._transcript, proof.mac)
        if hello.target not in ("", self._identity.node_id):
            raise HandshakeRefused("node")
        _check_company(self._identity, hello.identity)
        _check_admitted(self._admit, hello.identity)
        self.peer = hello.identity
        return _encode(Proof(_mac(secret, _ACCEPTOR, *self._transcript)))


def refusal(error: HandshakeRefused) -> bytes:
    """What an acceptor says before it closes the connection."""
    return _encode(Refusal(error.reason))
