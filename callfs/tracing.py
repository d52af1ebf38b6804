"""
On whose behalf something is done: the request that a user made, wherever in the cluster it arrived.

The web layer says it once per request; what the request sets going inherits it, because a coroutine runs in a copy
of the context of whoever started it. Calls to other nodes carry it along, so that the nodes' logs can be joined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

import msgspec

REQUEST_ID_HEADER = "X-CallFS-Request-ID"
USER_HEADER = "X-CallFS-User"

_REQUEST_ID = re.compile(r"[0-9a-f]{16}")
_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class Origin(msgspec.Struct, frozen=True):
    """
    A user's request.

    :param request_id: as the user's response has it in ``X-Request-ID``.
    :param user: who asked; empty where nobody had to say.
    """

    request_id: str
    user: str


_current: ContextVar[Origin | None] = ContextVar("callfs_origin", default=None)


def enter(origin: Origin) -> None:
    """From here on, in this coroutine and in what it starts, everything is done for ``origin``."""
    _current.set(origin)


def current() -> Origin | None:
    """On whose behalf this runs; ``None`` for what the node does by itself."""
    return _current.get()


def headers() -> dict[str, str]:
    """The headers that tell another node of it."""
    origin = _current.get()
    if origin is None:
        return {}
    told = {REQUEST_ID_HEADER: origin.request_id}
    return told | {USER_HEADER: origin.user} if origin.user else told


def from_headers(given: Mapping[str, str]) -> Origin | None:
    """
    What another node tells. To be believed of a bearer of the internal secret alone.

    :param given: by lower-case name.
    :return: ``None`` without a request id, or when anything of it isn't of the form that nodes send.
    """
    request_id = given.get(REQUEST_ID_HEADER.lower(), "")
    user = given.get(USER_HEADER.lower(), "")
    if _REQUEST_ID.fullmatch(request_id) is None or (user and _USER.fullmatch(user) is None):
        return None
    return Origin(request_id, user)
