"""
Who asks: bearer tokens become principals.

Keys are held as BLAKE2b keyed with a pepper that is random for each process, in one dictionary. A look-up costs the
same whatever the number of keys, and its timing tells nothing: it depends on the digest of what was sent, which a
client can neither choose nor compute without the pepper, so that a guess that is nearly right behaves as any other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from callfs.errors import AuthenticationFailed
from callfs.model import INTERNAL_USER, ROOT_USER, Principal
from callfs.web.routes import Access

NOBODY = Principal("")
INTERNAL = Principal(INTERNAL_USER, is_admin=True)

PEPPER_BYTES = 32

_BEARER = re.compile(r"bearer[ \t]+(.+)", re.IGNORECASE | re.ASCII | re.DOTALL)


class ApiKeys:
    """
    The keys that are accepted, by digest.

    :param pepper: :data:`PEPPER_BYTES` random bytes of this process.
    :param users: user id → the keys of this user, any of which is accepted.
    :param legacy: keys without a name; the n-th belongs to ``api-user-<n>``, from 0.
    :param admins: user ids that may do everything.
    :param internal_secrets: what peers send; any of them is the user ``internal-proxy``.
    """

    def __init__(
        self,
        pepper: bytes,
        users: Mapping[str, Sequence[str]],
        legacy: Sequence[str] = (),
        admins: Iterable[str] = (),
        internal_secrets: Sequence[str] = (),
    ) -> None:
        self._pepper = pepper
        self.replace(users, legacy, admins, internal_secrets)

    def replace(
        self,
        users: Mapping[str, Sequence[str]],
        legacy: Sequence[str] = (),
        admins: Iterable[str] = (),
        internal_secrets: Sequence[str] = (),
    ) -> None:
        """Other keys from now on, after a reload of the configuration; parameters as for the class."""
        administrators = {ROOT_USER, *admins}
        named = [(user, key) for user, keys in users.items() for key in keys]
        named += [(f"api-user-{number}", key) for number, key in enumerate(legacy)]
        principals = {self._digest(key): Principal(user, user in administrators) for user, key in named}
        internal = {self._digest(secret): INTERNAL for secret in internal_secrets}
        self._internal = internal
        self._known = principals | internal

    def principal(self, key: str) -> Principal | None:
        """Whose key this is; the internal secret is one of ``internal-proxy``."""
        return self._known.get(self._digest(key))

    def internal_principal(self, secret: str) -> Principal | None:
        """``internal-proxy`` if it is an internal secret; an API key is none."""
        return self._internal.get(self._digest(secret))

    def _digest(self, key: str) -> bytes:
        # Not HMAC: Python gives up its lock for that, and a busy server waits long to get it back.
        return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=self._pepper, digest_size=32).digest()


class Authenticator:
    """
    Decides on the ``Authorization`` header of a request.

    :param keys: replaced in place when the configuration is reloaded.
    """

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    def authenticate(self, authorization: str | None, access: Access) -> Principal:
        """
        Who asks.

        :param authorization: the header's value, ``None`` without one.
        :param access: what the route wants; on a public one the header isn't looked at.
        :raises AuthenticationFailed: missing, malformed, empty or unknown credentials, with one message for all
            but the first, so that the answer doesn't say which.
        """
        if access is Access.PUBLIC:
            return NOBODY
        if authorization is None:
            raise AuthenticationFailed("send the header Authorization: Bearer <api key>")
        token = bearer_token(authorization)
        principal = None
        if token is not None:
            internal = access is Access.INTERNAL
            principal = self._keys.internal_principal(token) if internal else self._keys.principal(token)
        if principal is None:
            raise AuthenticationFailed("the credentials aren't valid")
        return principal


def bearer_token(authorization: str) -> str | None:
    """The token of a bearer header; the scheme in any case, surrounding blanks ignored (RFC 6750, section 2.1)."""
    match = _BEARER.fullmatch(authorization.strip(" \t"))
    return match[1] if match else None
