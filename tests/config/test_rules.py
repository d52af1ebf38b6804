"""What has to hold between keys."""

from __future__ import annotations

from typing import Any

import pytest

from callfs.config.reload import Changes, reloadable_changes
from callfs.config.rules import rule_problems
from callfs.config.schema import KINDS, SECTIONS, Config
from callfs.config.secret import Secret
from callfs.config.unbuilt import SETTINGS, SWITCHES, unbuilt_problems

GOOD_AUTH = {
    "api_key_users": {"alice": (Secret("alice-key-0123456789"),)},
    "internal_proxy_secret": (Secret("internal-secret-0123456789"),),
    "single_use_link_secret": (Secret("link-secret-0123456789"),),
}


def config(**sections: dict[str, Any]) -> Config:
    """A good configuration with some keys changed."""
    auth = {**GOOD_AUTH, **sections.pop("auth", {})}
    return Config(
        auth=SECTIONS["auth"](**auth), **{name: SECTIONS[name](**keys) for name, keys in sections.items()}
    )


def problems(**sections: dict[str, Any]) -> list[str]:
    """The rules that a good configuration breaks with some keys changed."""
    return [str(problem) for problem in rule_problems(config(**sections))]


def test_good() -> None:
    """A configuration with keys and secrets breaks no rule."""
    assert problems() == []


class TestAuth:
    def test_no_key(self) -> None:
        """At least one key is needed."""
        assert problems(auth={"api_key_users": {}}) == [
            "auth.api_key_users: no API key: nobody could come in; at least one is needed, user id: key"
        ]

    def test_legacy_keys_count(self) -> None:
        """A key in the legacy list is a key."""
        assert problems(auth={"api_key_users": {}, "api_keys": (Secret("x" * 16),)}) == []

    @pytest.mark.parametrize("user", ["root", "internal-proxy", "api-user-0", "api-user-17"])
    def test_reserved_users(self, user: str) -> None:
        """Reserved user ids are refused."""
        assert problems(auth={"api_key_users": {user: (Secret("x" * 16),)}}) == [
            f"auth.api_key_users.{user}: this user id is reserved: choose another"
        ]

    def test_reserved_admin(self) -> None:
        """``root`` needn't be named an administrator, and can't have a key."""
        assert problems(auth={"admins": ("alice", "root")}) == [
            "auth.admins[1]: root may do everything as it is: remove it"
        ]

    @pytest.mark.parametrize("key", ["x" * 15, ""])
    def test_short_key(self, key: str) -> None:
        """A key under 16 characters is refused."""
        assert problems(auth={"api_key_users": {"bob": (Secret(key),)}}) == [
            "auth.api_key_users.bob: too short: at least 16 characters are needed"
        ]

    @pytest.mark.parametrize(
        ("key", "value", "name"),
        [
            ("api_key_users", {"bob": (Secret("default-api-key"),)}, "auth.api_key_users.bob"),
            ("api_keys", (Secret("default-api-key"),), "auth.api_keys[0]"),
            ("internal_proxy_secret", (Secret("change-me-internal-secret"),), "auth.internal_proxy_secret"),
            ("single_use_link_secret", (Secret("change-me-link-secret"),), "auth.single_use_link_secret"),
        ],
    )
    def test_known_values(self, key: str, value: Any, name: str) -> None:
        """Values that stand in documentation are refused."""
        (problem,) = problems(auth={key: value})
        assert problem.startswith(f"{name}: a value from the documentation")

    @pytest.mark.parametrize("key", ["internal_proxy_secret", "single_use_link_secret"])
    def test_secrets(self, key: str) -> None:
        """Both secrets are required, and every one in a list has 16 characters."""
        assert problems(auth={key: ()}) == [f"auth.{key}: missing: a secret of at least 16 characters is needed"]
        assert problems(auth={key: (Secret("y" * 16), Secret("short"))}) == [
            f"auth.{key}[1]: too short: at least 16 characters are needed"
        ]

    def test_repeated_keys(self) -> None:
        """No key is there twice, wherever."""
        same = Secret("same-key-0123456789")
        assert problems(
            auth={"api_key_users": {"bob": (same, Secret("z" * 16)), "carol": (same,)}, "api_keys": (same,)}
        ) == [
            "auth.api_key_users.carol: the same key as auth.api_key_users.bob[0]: every key may be there once",
            "auth.api_keys[0]: the same key as auth.api_key_users.bob[0]: every key may be there once",
        ]

    def test_internal_secret_as_key(self) -> None:
        """The internal secret is no API key."""
        same = (Secret("same-key-0123456789"),)
        assert problems(auth={"api_key_users": {"bob": same}, "internal_proxy_secret": same}) == [
            "auth.internal_proxy_secret: also an API key (auth.api_key_users.bob): it must be another secret"
        ]


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({"server": {"protocol": "https"}}, ["server.cert_file", "server.key_file"]),
        ({"server": {"enable_quic": True}}, ["server.cert_file", "server.key_file"]),
        ({"server": {"cert_file": "/c"}}, ["server.key_file"]),
        ({"server": {"cert_file": "/c", "key_file": "/k", "protocol": "https"}}, []),
        ({"raft": {"tls_ca_file": "/c"}}, ["raft.tls_cert_file", "raft.tls_key_file"]),
        ({"backend": {"default_backend": "s3"}}, ["backend.default_backend"]),
        ({"backend": {"default_backend": "s3", "s3_bucket_name": "b"}}, []),
        ({"backend": {"localfs_root_path": None}}, ["backend.default_backend"]),
        ({"backend": {"s3_access_key": Secret("x")}}, ["backend.s3_secret_key"]),
        ({"backend": {"s3_secret_key": Secret("x")}}, ["backend.s3_access_key"]),
        ({"backend": {"s3_kms_key_id": "k"}}, ["backend.s3_kms_key_id"]),
        ({"backend": {"s3_kms_key_id": "k", "s3_server_side_encryption": "aws:kms"}}, []),
        ({"ha": {"replication_enabled": True}}, ["ha.replica_backend"]),
        ({"ha": {"replica_backend": "localfs"}}, ["ha.replica_backend"]),
        ({"ha": {"replica_backend": "s3"}}, ["ha.replica_backend"]),
        ({"ha": {"replica_backend": "s3", "replication_enabled": True}, "backend": {"s3_bucket_name": "b"}}, []),
        ({"ha": {"require_replica_success": True}}, ["ha.require_replica_success"]),
        ({"metadata_store": {"type": "postgres"}}, ["metadata_store.dsn"]),
        ({"metadata_store": {"type": "postgres", "dsn": Secret("x")}}, []),
        ({"metadata_store": {"type": "redis"}, "raft": {"enabled": True}}, ["raft.enabled"]),
        ({"dlm": {"type": "raft"}}, ["dlm.type"]),
        ({"dlm": {"type": "raft"}, "metadata_store": {"type": "raft"}}, []),
        ({"raft": {"election_timeout": 0.3, "heartbeat_interval": 0.1}}, []),
        ({"raft": {"election_timeout": 0.3, "heartbeat_interval": 0.101}}, ["raft.heartbeat_interval"]),
        (
            {
                "raft": {
                    "enabled": True,
                    "peers": {"a": "h:1"},
                    "api_peer_endpoints": {"a": "http://a", "b": "http://b"},
                }
            },
            ["raft.api_peer_endpoints.b"],
        ),
        ({"erasure": {"data_shards": 200, "parity_shards": 56}}, []),
        ({"erasure": {"data_shards": 200, "parity_shards": 57}}, ["erasure.data_shards"]),
        ({"erasure": {"automatic": True}}, ["erasure.automatic"]),
        ({"erasure": {"enabled": True, "shard_backend": "s3"}}, ["erasure.shard_backend"]),
    ],
)
def test_between_keys(sections: dict[str, Any], keys: list[str]) -> None:
    """What one key asks of another."""
    assert [problem.partition(":")[0] for problem in problems(**sections)] == keys


class TestUnbuilt:
    @pytest.mark.parametrize(
        ("section", "name", "value"),
        [
            ("server", "protocol", "https"),
            ("server", "listen_addr", "ssl:443"),
            ("server", "cert_file", "/c"),
            ("server", "enable_quic", True),
            ("erasure", "data_shards", 4),
            ("erasure", "min_file_size", 0),
        ],
    )
    def test_refused(self, section: str, name: str, value: Any) -> None:
        """What needs a part that isn't there is refused, whatever its value, never ignored."""
        key = f"{section}.{name}"
        (problem,) = unbuilt_problems(config(**{section: {name: value}}), {key: "file"})
        assert str(problem).startswith(f"{key}: ")
        assert str(problem).endswith(" isn't available in this version of CallFS: remove it (file)")

    def test_off_is_off(self) -> None:
        """What says that such a part is off, or has a value that doesn't need it, is right."""
        given = {"erasure.enabled", "server.cert_file", "server.protocol"}
        assert unbuilt_problems(config(server={"protocol": "http"}), dict.fromkeys(given, "file")) == []

    def test_defaults_are_quiet(self) -> None:
        """Defaults of parts that aren't there are no problem."""
        assert unbuilt_problems(config(), {}) == []

    def test_rows_are_about_keys(self) -> None:
        """Every row is about keys that there are."""
        assert SWITCHES.keys() <= KINDS.keys()
        assert all(any(key.startswith(start) for key in KINDS) for start in SETTINGS)


class TestReload:
    def test_nothing(self) -> None:
        """The same configuration changes nothing."""
        assert reloadable_changes(config(), config()) == Changes((), ())

    def test_split(self) -> None:
        """Keys, log, limits and certificates change at once; the rest needs a restart."""
        new = config(
            auth={"admins": ("alice",), "single_use_link_secret": (Secret("other-secret-0123456789"),)},
            log={"level": "debug", "format": "console"},
            limits={"download_burst": 9, "max_connections": 1},
            server={"cert_file": "/c", "read_timeout": 1.0},
            backend={"localfs_root_path": "/x"},
        )
        changes = reloadable_changes(config(), new)
        assert changes.at_once == (
            "server.cert_file",
            "auth.admins",
            "auth.single_use_link_secret",
            "log.level",
            "log.format",
            "limits.download_burst",
            "limits.max_connections",
        )
        assert changes.after_restart == ("server.read_timeout", "backend.localfs_root_path")
