"""
What has to hold between keys, beyond what each of them takes.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator

from callfs.config.idle import idle_warnings
from callfs.config.problems import Problem
from callfs.config.schema import Config
from callfs.config.secret import Secret
from callfs.model import INTERNAL_USER, ROOT_USER

SHORTEST_KEY = 16
REFUSED_KEYS = frozenset(("default-api-key",))
REFUSED_INTERNAL_SECRETS = frozenset(("change-me-internal-secret",))
REFUSED_LINK_SECRETS = frozenset(("change-me-link-secret",))
RESERVED_USERS = frozenset((ROOT_USER, INTERNAL_USER))
_LEGACY_USER = re.compile(r"api-user-[0-9]+")
MOST_SHARDS = 256


def rule_problems(config: Config) -> list[Problem]:
    """All rules that ``config`` breaks; the problems don't say yet where the keys were given."""
    return [problem for rule in _RULES for problem in rule(config)]


def rule_warnings(config: Config) -> list[str]:
    """What is allowed and better done otherwise."""
    warnings = []
    if config.auth.api_keys:
        warnings.append(
            "auth.api_keys: who a key of this list is, api-user-<n>, depends on its position: name the users in "
            "auth.api_key_users instead"
        )
    known = config.auth.keys_by_user()
    # Without the name: somebody may have written a key where the user's id belongs.
    warnings += [
        f"auth.admins[{i}]: this user has no key" for i, user in enumerate(config.auth.admins) if user not in known
    ]
    if config.is_url_guessed and _has_neighbours(config):
        warnings.append(guessed_url_warning(config))
    return [*warnings, *idle_warnings(config)]


def _has_neighbours(config: Config) -> bool:
    """Whether the configuration says by itself that there are other nodes, or shall be."""
    named = config.instance_discovery.peer_endpoints.keys() - {config.instance_discovery.instance_id}
    return config.raft_metadata or bool(named) or config.dlm.type == "redis"


def guessed_url_warning(config: Config) -> str:
    """What to say of a node that names itself ``localhost`` to others."""
    return (
        f"server.external_url isn't set: other nodes, and whoever gets a link, are told {config.external_url}, "
        "which leads back to themselves. Set it to the URL at which they reach this node, for instance "
        f"{'https' if config.tls else 'http'}://<its address>:8443"
    )


def _users(config: Config) -> Iterator[Problem]:
    for user in config.auth.api_key_users:
        if user in RESERVED_USERS or _LEGACY_USER.fullmatch(user):
            yield Problem(f"auth.api_key_users.{user}", "this user id is reserved: choose another")
    for i, user in enumerate(config.auth.admins):
        if user in RESERVED_USERS:
            yield Problem(f"auth.admins[{i}]", f"{user} may do everything as it is: remove it")


def _named_keys(config: Config) -> Iterator[tuple[str, Secret]]:
    """Every API key with the full key of the option that it stands in."""
    for user, keys in config.auth.api_key_users.items():
        for i, key in enumerate(keys):
            yield f"auth.api_key_users.{user}" + (f"[{i}]" if len(keys) > 1 else ""), key
    for i, key in enumerate(config.auth.api_keys):
        yield f"auth.api_keys[{i}]", key


def _api_keys(config: Config) -> Iterator[Problem]:
    first: dict[Secret, str] = {}
    for name, key in _named_keys(config):
        yield from _strength(name, key, REFUSED_KEYS)
        if key in first:
            yield Problem(name, f"the same key as {first[key]}: every key may be there once")
        first.setdefault(key, name)
    if not first:
        yield Problem(
            "auth.api_key_users", "no API key: nobody could come in; at least one is needed, user id: key"
        )


def _secrets(config: Config) -> Iterator[Problem]:
    for key, secrets, refused in (
        ("auth.internal_proxy_secret", config.auth.internal_proxy_secret, REFUSED_INTERNAL_SECRETS),
        ("auth.single_use_link_secret", config.auth.single_use_link_secret, REFUSED_LINK_SECRETS),
    ):
        if not secrets:
            yield Problem(key, f"missing: a secret of at least {SHORTEST_KEY} characters is needed")
        for i, secret in enumerate(secrets):
            yield from _strength(f"{key}[{i}]" if len(secrets) > 1 else key, secret, refused)
    keys = {key: name for name, key in _named_keys(config)}
    for secret in config.auth.internal_proxy_secret:
        if secret in keys:
            yield Problem(
                "auth.internal_proxy_secret", f"also an API key ({keys[secret]}): it must be another secret"
            )


def _strength(name: str, secret: Secret, refused: frozenset[str]) -> Iterator[Problem]:
    if any(hmac.compare_digest(secret.reveal().encode(), known.encode()) for known in refused):
        yield Problem(name, "a value from the documentation, which everybody knows: choose a secret of your own")
    elif len(secret) < SHORTEST_KEY:
        yield Problem(name, f"too short: at least {SHORTEST_KEY} characters are needed")


def _certificates(config: Config) -> Iterator[Problem]:
    server = config.server
    reason = "with HTTP/3" if server.enable_quic else "with server.protocol: https"
    needed = server.enable_quic or server.protocol == "https"
    for key, own, other in (
        ("server.cert_file", server.cert_file, server.key_file),
        ("server.key_file", server.key_file, server.cert_file),
    ):
        if own is None and (needed or other is not None):
            yield Problem(key, f"missing: needed {reason if needed else 'beside the other of the two'}")


def _raft_certificates(config: Config) -> Iterator[Problem]:
    raft = config.raft
    files = {"cert": raft.tls_cert_file, "key": raft.tls_key_file, "ca": raft.tls_ca_file}
    if any(files.values()):
        for name, path in files.items():
            if path is None:
                yield Problem(f"raft.tls_{name}_file", "missing: mutual TLS needs certificate, key and CA")


def _backends(config: Config) -> Iterator[Problem]:
    backend = config.backend
    for key, name in (
        ("backend.default_backend", backend.default_backend),
        ("ha.replica_backend", config.ha.replica_backend),
        ("erasure.shard_backend", config.erasure.shard_backend if config.erasure.enabled else None),
    ):
        if name == "s3" and backend.s3_bucket_name is None:
            yield Problem(key, "s3 needs backend.s3_bucket_name")
        if name == "localfs" and backend.localfs_root_path is None:
            yield Problem(key, "localfs needs backend.localfs_root_path")
    if (backend.s3_access_key is None) != (backend.s3_secret_key is None):
        missing = "backend.s3_access_key" if backend.s3_access_key is None else "backend.s3_secret_key"
        yield Problem(missing, "missing: access key and secret key go together")
    if backend.s3_kms_key_id is not None and backend.s3_server_side_encryption != "aws:kms":
        yield Problem("backend.s3_kms_key_id", "needs backend.s3_server_side_encryption: aws:kms")


def _replication(config: Config) -> Iterator[Problem]:
    ha = config.ha
    if ha.replication_enabled and ha.replica_backend is None:
        yield Problem("ha.replica_backend", "missing: ha.replication_enabled needs it")
    if ha.replica_backend == config.backend.default_backend:
        yield Problem("ha.replica_backend", "the same as backend.default_backend: a second copy belongs elsewhere")
    if ha.require_replica_success and not ha.replication_enabled:
        yield Problem("ha.require_replica_success", "needs ha.replication_enabled: true")


def _stores(config: Config) -> Iterator[Problem]:
    store = config.metadata_store
    if store.type == "postgres" and store.dsn is None:
        yield Problem("metadata_store.dsn", "missing: metadata_store.type: postgres needs it")
    if config.raft.enabled and store.type not in ("raft", "sqlite"):
        yield Problem("raft.enabled", f"raft keeps the metadata itself: not with metadata_store.type: {store.type}")
    if config.dlm.type == "raft" and not config.raft_metadata:
        yield Problem("dlm.type", "raft needs metadata_store.type: raft")


def _raft(config: Config) -> Iterator[Problem]:
    raft = config.raft
    # A third in exact numbers: 0.1 is no third of 0.3 in floating point.
    if round(raft.heartbeat_interval * 3, 9) > round(raft.election_timeout, 9):
        yield Problem("raft.heartbeat_interval", "longer than a third of raft.election_timeout")
    if config.raft_metadata:
        for node in raft.api_peer_endpoints.keys() - raft.peers.keys() - {config.raft_node_id}:
            yield Problem(f"raft.api_peer_endpoints.{node}", "no such node in raft.peers")


def _erasure(config: Config) -> Iterator[Problem]:
    erasure = config.erasure
    if erasure.data_shards + erasure.parity_shards > MOST_SHARDS:
        message = f"together with erasure.parity_shards more than {MOST_SHARDS}"
        yield Problem("erasure.data_shards", message)
    if erasure.automatic and not erasure.enabled:
        yield Problem("erasure.automatic", "needs erasure.enabled: true")


_RULES: tuple[Callable[[Config], Iterator[Problem]], ...] = (
    _users,
    _api_keys,
    _secrets,
    _certificates,
    _raft_certificates,
    _backends,
    _replication,
    _stores,
    _raft,
    _erasure,
)
