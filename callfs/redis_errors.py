"""What goes wrong between CallFS and a Redis server, and what it means to whoever asked."""

from __future__ import annotations

import re

from callfs.errors import CallFSError, InsufficientStorage, InternalError, MetadataUnavailable

_PASSING = frozenset(["LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN"])
_MOVED_AWAY = frozenset(["READONLY", "MOVED", "ASK", "CLUSTERDOWN"])
_CODE = re.compile(r"[A-Z]{3,}")
_WRAPPED = re.compile(r"^Error running script .*?: -?(?P<inner>[A-Z]{3,} .*)$", re.DOTALL)


class RedisFault(Exception):
    """Base of what :class:`callfs.redis_pool.RedisPool` raises."""


class NotAsked(RedisFault):
    """Nothing was sent: there was no connection in time."""


class Unanswered(RedisFault):
    """It was sent and no reply came; whether it was done isn't known."""


class Refused(RedisFault):
    """
    The server replied with an error: nothing was done.

    :ivar code: its first word.
    """

    def __init__(self, text: str) -> None:
        wrapped = _WRAPPED.match(text)
        self.text = text if wrapped is None else wrapped["inner"]
        self.code = self.text.partition(" ")[0].lstrip("-")
        super().__init__(self.text)

    @property
    def is_passing(self) -> bool:
        """Whether the server will answer soon: it loads its data, or runs a long script."""
        return self.code in _PASSING

    @property
    def is_elsewhere(self) -> bool:
        """Whether this server isn't the one that takes writes (any more), so that connecting again may help."""
        return self.code in _MOVED_AWAY

    @property
    def is_known(self) -> bool:
        """Whether this is a state of the server, rather than a mistake in what was asked."""
        return _CODE.fullmatch(self.code) is not None and self.code not in ("ERR", "WRONGTYPE", "NOSCRIPT")


def translated(fault: RedisFault) -> CallFSError:
    """
    The error for the caller, when it is certain that nothing was changed; no address and no script in it.

    :return: ``InsufficientStorage`` when the server is at its memory limit, ``InternalError`` when a script was
        wrong, else ``MetadataUnavailable``.
    """
    if not isinstance(fault, Refused):
        return MetadataUnavailable("the Redis server doesn't answer; nothing was changed")
    if fault.code == "OOM":
        return InsufficientStorage("the memory of the metadata store is full; nothing was changed")
    if fault.code == "FOREIGN":
        return MetadataUnavailable(
            "the Redis server doesn't have this store's data; its operator has to act", retry_after_seconds=60
        )
    if fault.is_known:
        return MetadataUnavailable(f"the Redis server refuses for now ({fault.code}); nothing was changed")
    return InternalError("the metadata store couldn't do this")
