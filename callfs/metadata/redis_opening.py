"""Opening a Redis store: the server is one that can be used, the store is there, its data are safe enough."""

from __future__ import annotations

import re

from twisted.logger import Logger

from callfs.errors import MetadataUnavailable
from callfs.identifiers import TokenBytes, new_store_id
from callfs.metadata.interfaces import StoreUnusable, UnfinishedImport
from callfs.metadata.redis_records import inode_record, unframed
from callfs.metadata.redis_scripts import OPEN, UPGRADE
from callfs.model import ROOT_INODE
from callfs.redis_errors import RedisFault, Refused
from callfs.redis_pool import RedisPool

FORMAT = 2
"""
The number of the form that keys and records have; a store with a greater one is of a newer version.

1 had no list of the blobs on each node's disk, and no replication queue, and its identity elsewhere: nodes that
know only that one are refused by the store from the upgrade on.
"""

_UPGRADED_AT_ONCE = 500

_OLDEST_SERVER = (5, 0)
_CREDENTIALS = frozenset(["NOAUTH", "WRONGPASS", "NOPERM"])

_log = Logger()


async def open_store(pool: RedisPool, key: str, token_bytes: TokenBytes, importing: bool) -> tuple[str, bool]:
    """
    Find the store or make it.

    :param importing: whether it may have an unfinished import.
    :return: its identity, and whether nothing but the root is in it.
    :raises StoreUnusable: as it says.
    :raises callfs.errors.MetadataUnavailable: the server can't be asked.
    """
    deadline = pool.deadline()
    try:
        _check_version(await pool.ask("INFO", "server", deadline=deadline))
        await _check_eviction(pool, deadline)
        root = (ROOT_INODE.id, inode_record(ROOT_INODE))
        reply = await pool.run_again(OPEN, (key,), new_store_id(token_bytes), FORMAT, *root, deadline=deadline)
        store_id, form, count, import_id = unframed(reply)
        if form.isdigit() and int(form) < FORMAT:
            await _upgrade(pool, key, store_id)
    except Refused as refusal:
        raise _unusable(refusal) from refusal
    except RedisFault as fault:
        raise MetadataUnavailable("the Redis server of the metadata store doesn't answer") from fault
    if not form.isdigit() or int(form) > FORMAT:
        raise StoreUnusable(
            f"the metadata in Redis have format {form.decode()!r}, this version knows {FORMAT} at most: "
            "use the version of CallFS that wrote them"
        )
    if import_id and not importing:
        raise UnfinishedImport
    return store_id.decode(), count == b"1"


async def _upgrade(pool: RedisPool, key: str, store_id: bytes) -> None:
    """Bring a store of an older format to this one, in steps of which each has the usual time limit."""
    at, more = b"", True
    while more:
        words = (store_id, at, _UPGRADED_AT_ONCE, FORMAT)
        (at,) = unframed(await pool.run_again(UPGRADE, (key,), *words, deadline=pool.deadline()))
        more = at != b""


def _unusable(refusal: Refused) -> Exception:
    """What a refusal while the store is being opened means."""
    if refusal.code in _CREDENTIALS or "AUTH" in refusal.text or "invalid password" in refusal.text:
        return StoreUnusable(
            "the Redis server refuses the credentials: check metadata_store.redis_password, and that the user may "
            f"use all keys with the prefix and run scripts ({refusal.code})"
        )
    if refusal.code == "DAMAGED":
        return StoreUnusable("the metadata in Redis are damaged: the store's identity is missing; restore a backup")
    if "DB index" in refusal.text:
        return StoreUnusable("the Redis server has no database of this number: check metadata_store.redis_db")
    if refusal.is_known:
        return MetadataUnavailable(f"the Redis server of the metadata store refuses for now ({refusal.code})")
    return StoreUnusable(f"the Redis server can't be used for metadata: {refusal.text}")


def _check_version(info: bytes) -> None:
    found = re.search(rb"redis_version:(\d+)\.(\d+)", info)
    if found is not None and (int(found[1]), int(found[2])) < _OLDEST_SERVER:
        raise StoreUnusable(f"Redis {_OLDEST_SERVER[0]}.{_OLDEST_SERVER[1]} or newer is needed for metadata")


async def _setting(pool: RedisPool, name: str, deadline: float) -> str | None:
    """A setting of the server; ``None`` when it can't be read."""
    try:
        reply = await pool.ask("CONFIG", "GET", name, deadline=deadline)
    except Refused:
        return None
    return reply[1].decode() if len(reply) == 2 else None


async def _check_eviction(pool: RedisPool, deadline: float) -> None:
    """A server that throws keys away when its memory is full would throw away files."""
    policy = await _setting(pool, "maxmemory-policy", deadline)
    limit = await _setting(pool, "maxmemory", deadline)
    if policy is None or policy == "noeviction" or limit == "0":
        return
    if policy.startswith("allkeys"):
        raise StoreUnusable(
            f"the Redis server deletes any key when its memory is full (maxmemory-policy {policy}), which would "
            "lose files: set maxmemory-policy noeviction"
        )
    _log.warn(
        "Redis deletes keys that have a time to live when its memory is full (maxmemory-policy {policy}), among "
        "them what tells whether a change whose answer was lost was made: set maxmemory-policy noeviction",
        event="redis_eviction",
        policy=policy,
    )


async def warn_of_weak_persistence(pool: RedisPool) -> None:
    """Tell the operator when an acknowledged change can be lost in a crash of the server."""
    deadline = pool.deadline()
    try:
        found = [await _setting(pool, name, deadline) for name in ("appendonly", "appendfsync")]
    except RedisFault:
        found = [None, None]
    if None in found:
        _log.warn(
            "it can't be told whether Redis keeps what was acknowledged through a crash, because CONFIG GET isn't "
            "allowed: make sure that it has appendonly yes and appendfsync always",
            event="redis_persistence_unknown",
        )
    elif found != ["yes", "always"]:
        _log.warn(
            "Redis can lose acknowledged changes in a crash: it has appendonly {appendonly} and appendfsync "
            "{appendfsync}, and needs appendonly yes and appendfsync always",
            event="redis_persistence_weak",
            appendonly=found[0],
            appendfsync=found[1],
        )
