"""
What was set and has no effect, because of what else was chosen: whoever set it takes something for switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from callfs.config.schema import Config

_USED_WHEN: Mapping[str, tuple[str, Callable[[Config], bool]]] = {
    "backend.s3_": ("backend.s3_bucket_name is set", lambda config: config.backend.s3_bucket_name is not None),
    "metadata_store.dsn": (
        "metadata_store.type is postgres",
        lambda config: config.metadata_store.type == "postgres",
    ),
    "metadata_store.pool_size": (
        "metadata_store.type is postgres or redis",
        lambda config: config.metadata_store.type in ("postgres", "redis"),
    ),
    "metadata_store.redis_key_prefix": (
        "metadata_store.type or dlm.type is redis",
        lambda config: "redis" in (config.metadata_store.type, config.dlm.type),
    ),
    "metadata_store.redis_": (
        "metadata_store.type is redis",
        lambda config: config.metadata_store.type == "redis",
    ),
    "raft.": ("metadata_store.type is raft", lambda config: config.raft_metadata),
    "dlm.redis_": ("dlm.type is redis", lambda config: config.dlm.type == "redis"),
    "ha.replica_backend": ("ha.replication_enabled is true", lambda config: config.ha.replication_enabled),
}
"""Keys, or what keys begin with, and when they are acted upon; the first that fits counts."""

_PLACES = ("raft.data_dir",)
"""Only says where something would be; relative to a folder, so that its default isn't known here."""


def idle_warnings(config: Config) -> Iterator[str]:
    """Each key that has another value than by default, and isn't acted upon."""
    defaults = dict(Config().items())
    for key, value in config.items():
        if key in _PLACES or value == defaults[key]:
            continue
        condition, used = next((found for start, found in _USED_WHEN.items() if key.startswith(start)), ("", None))
        if used is not None and not used(config):
            yield f"{key}: has no effect unless {condition}"
