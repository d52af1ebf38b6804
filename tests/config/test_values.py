"""Durations, sizes, addresses, and everything else a key may be given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactorClock

from callfs.config.addresses import base_url, default_base_url, endpoint_description, is_listen_address
from callfs.config.environment import variable_of
from callfs.config.problems import ConfigurationError, Problem
from callfs.config.quantities import bytes_from_text, seconds_from_text, text_from_bytes, text_from_seconds
from callfs.config.schema import KINDS, Config, ErasureConfig, InstanceDiscoveryConfig, RaftConfig, ServerConfig
from callfs.config.secret import Secret
from tests.config.support import Folder


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("30 s", 30),
        ("30", 30),
        ("0.5", 0.5),
        ("0s", 0),
        (" 3s ", 3),
        ("", None),
        ("s", None),
        ("5", 5),
        ("-5s", None),
        ("5 minutes", None),
        ("5S", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("1,5s", None),
        ("5s 3", None),
        ("\u0665s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    """A duration is a number of seconds, or numbers with units."""
    assert seconds_from_text(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("10GiB", 10 * 1024**3),
        ("1.5 KiB", 1536),
        ("5MB", 5000000),
        ("5mb", 5000000),
        ("17", 17),
        ("17B", 17),
        ("", None),
        ("KiB", None),
        ("64K", None),
        ("-1", None),
        ("1.5", None),
        ("0.3KiB", None),
        ("1e3", None),
        ("64XiB", None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    """A size is a whole number of bytes, or a number with a unit."""
    assert bytes_from_text(text) == size


@given(st.integers(0, 366 * 86400 * 1000))
def test_duration_texts_read_back(milliseconds: int) -> None:
    """What is shown as a duration is read as the same duration."""
    assert seconds_from_text(text_from_seconds(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-9)


@given(st.integers(0, 2**63 - 1))
def test_size_texts_read_back(size: int) -> None:
    """What is shown as a size is read as the same size."""
    assert bytes_from_text(text_from_bytes(size)) == size


class TestListening:
    @pytest.mark.parametrize(
        ("listen_addr", "dual_stack", "endpoint"),
        [
            (":8443", False, "tcp:8443:backlog=1024"),
            (":8443", True, r"tcp6:8443:interface=\:\::backlog=1024"),
            ("127.0.0.1:80", True, "tcp:80:interface=127.0.0.1:backlog=1024"),
            ("localhost:0", True, "tcp:0:interface=localhost:backlog=1024"),
            ("[::1]:80", False, r"tcp6:80:interface=\:\:1:backlog=1024"),
            ("tcp:8080", True, "tcp:8080"),
            ("unix:/run/callfs.sock", True, "unix:/run/callfs.sock"),
            ("systemd:domain=INET:index=0", True, "systemd:domain=INET:index=0"),
        ],
    )
    def test_endpoint(self, listen_addr: str, dual_stack: bool, endpoint: str) -> None:
        """Each form becomes an endpoint string that Twisted understands."""
        assert is_listen_address(listen_addr)
        assert endpoint_description(listen_addr, dual_stack) == endpoint
        if not endpoint.startswith("systemd:"):
            assert serverFromString(MemoryReactorClock(), endpoint)

    @pytest.mark.parametrize(
        "text",
        [
            "8443",
            "host",
            "host:",
            ":99999",
            "[::1]",
            "[::g]:1",
            "::1:80",
            "1.2.3:80",
            "a b:80",
            "-x:80",
            "tcp:http",
            "tcp:65536",
            "host:8o",
            "unix:",
        ],
    )
    def test_refused(self, text: str, folder: Folder) -> None:
        """What isn't an address is refused."""
        assert not is_listen_address(text)
        assert folder.problem(CALLFS_SERVER__LISTEN_ADDR=text).startswith("server.listen_addr: text ")

    def test_not_an_address(self) -> None:
        """An unchecked address raises instead of listening somewhere."""
        with pytest.raises(ValueError, match="not an address"):
            endpoint_description("nonsense", True)


class TestExternalUrl:
    @pytest.mark.parametrize(
        ("listen_addr", "url"),
        [
            (":8443", "http://localhost:8443"),
            ("0.0.0.0:80", "http://localhost:80"),
            ("[::]:80", "http://localhost:80"),
            ("files.example.org:80", "http://files.example.org:80"),
            ("[2001:db8::1]:80", "http://[2001:db8::1]:80"),
            (r"tcp6:81:interface=\:\:1", "http://[::1]:81"),
            ("tcp:81:backlog=3", "http://localhost:81"),
            ("unix:/run/callfs.sock", "http://localhost"),
        ],
    )
    def test_default(self, listen_addr: str, url: str) -> None:
        """Without ``external_url`` the base follows from the address that is listened on."""
        assert Config(server=ServerConfig(listen_addr=listen_addr)).external_url == url
        assert default_base_url(listen_addr, "https") == url.replace("http:", "https:")

    @pytest.mark.parametrize(
        ("text", "url"),
        [
            ("files.example.org", "http://files.example.org"),
            ("https://files.example.org/callfs/", "https://files.example.org/callfs"),
            ("files.example.org:8443/", "http://files.example.org:8443"),
            ("http://[::1]:80", "http://[::1]:80"),
        ],
    )
    def test_given(self, text: str, url: str, folder: Folder) -> None:
        """With or without scheme, never with a slash at the end."""
        assert folder.load(CALLFS_SERVER__EXTERNAL_URL=text).config.external_url == url

    @pytest.mark.parametrize(
        "text",
        [
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x?q",
            "http://x#f",
            "http://x:99999",
            "http://x y",
            "http://x\\y",
            "http://[::1",
            "/path",
        ],
    )
    def test_refused(self, text: str, folder: Folder) -> None:
        """What can't be the base of a link is refused."""
        assert base_url(text, "http") is None
        assert folder.problem(CALLFS_SERVER__EXTERNAL_URL=text).startswith("server.external_url: text ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("server.protocol", "gopher"),
        ("server.read_timeout", "0"),
        ("server.read_timeout", "-1"),
        ("server.read_timeout", ".inf"),
        ("server.read_timeout", ".nan"),
        ("server.read_timeout", "400d"),
        ("server.read_timeout", "yes"),
        ("server.read_timeout", "soon"),
        ("server.read_timeout", "9" * 4000),
        ("server.trusted_proxies", "10.0.0.0/8"),
        ("server.trusted_proxies", "[10.0.0.1/8]"),
        ("server.trusted_proxies", "[10]"),
        ("server.trusted_proxies", "[example.org]"),
        ("server.min_free_bytes", "-1"),
        ("server.min_free_bytes", "1.5"),
        ("server.min_free_bytes", "true"),
        ("server.min_free_bytes", "lots"),
        ("server.min_free_bytes", "16EiB"),
        ("server.max_upload_bytes", "0"),
        ("server.enable_quic", '"true"'),
        ("server.enable_quic", "1"),
        ("server.quic_listen_addr", "unix:/x"),
        ("auth.api_key_users", "[a]"),
        ("auth.api_key_users", "{bob: []}"),
        ("auth.api_key_users", '{bob: ""}'),
        ("auth.api_key_users", '{bob: "a key with blanks in it"}'),
        ("auth.api_key_users", '{bob: "schlüssel-0123456789"}'),
        ("auth.api_key_users", "{bob: {a: b}}"),
        ("auth.api_keys", "{a: b}"),
        ("auth.admins", "alice"),
        ("auth.admins", '["a b"]'),
        ("log.level", "INFO"),
        ("log.format", "xml"),
        ("metrics.listen_addr", "9090"),
        ("backend.default_backend", "tape"),
        ("backend.localfs_root_path", "17"),
        ("backend.localfs_root_path", '"a\\0b"'),
        ("backend.s3_addressing", "both"),
        ("backend.s3_endpoint", "minio:9000"),
        ("backend.s3_server_side_encryption", "rot13"),
        ("metadata_store.type", "excel"),
        ("metadata_store.sqlite_path", '""'),
        ("metadata_store.pool_size", "0"),
        ("metadata_store.redis_addr", ":6379"),
        ("metadata_store.redis_db", "-1"),
        ("raft.node_id", "a/b"),
        ("raft.bind_addr", "here"),
        ("raft.peers", "{a: b}"),
        ("raft.peers", "{a/b: 'h:1'}"),
        ("raft.api_peer_endpoints", "{a: 'h:1'}"),
        ("raft.apply_timeout", "0s"),
        ("raft.snapshot_threshold", "0"),
        ("raft.retain_snapshot_count", "1.0"),
        ("dlm.type", "zookeeper"),
        ("ha.replica_backend", "tape"),
        ("instance_discovery.instance_id", "a" * 65),
        ("instance_discovery.instance_id", "ä"),
        ("instance_discovery.peer_endpoints", "{a: x}"),
        ("erasure.data_shards", "0"),
        ("erasure.parity_shards", "256"),
        ("erasure.write_parity", "0"),
        ("erasure.chunk_size", "0"),
        ("erasure.scrub_interval", "0"),
        ("limits.link_generate_rate", "0"),
        ("limits.download_rate", "-1"),
        ("limits.download_rate", "fast"),
        ("limits.download_burst", "0"),
        ("limits.max_connections", "true"),
        ("limits.max_connections", "1e400"),
    ],
)
def test_refused_values(key: str, value: str, folder: Folder) -> None:
    """A value that its key doesn't take is refused: with the full key, the type, and what is allowed."""
    section, _, name = key.partition(".")
    refused = [
        problem for problem in folder.problems(f"{section}:\n  {name}: {value}\n") if " given, allowed: " in problem
    ]
    assert len(refused) == 1
    assert refused[0].startswith(key)
    assert refused[0].endswith("(/config.yaml, line 2)")


ODD = [
    None,
    "",
    [],
    {},
    [None],
    [[]],
    {"": ""},
    {"a": None},
    {1: 2},
    {None: []},
    True,
    -1,
    10**40,
    1e999,
    "\ud800",
    "\0",
]


@pytest.mark.parametrize("key", list(KINDS))
@pytest.mark.parametrize("form", ["file", "environment"])
def test_odd_values(key: str, form: str, folder: Folder) -> None:
    """Whatever a key is given it is used or refused with that key, and nothing else happens."""
    section, _, name = key.partition(".")
    for value in [*ODD, {"file": None}, {"file": ""}, {"file": "\0"}, {"file": "."}]:
        environ = {}
        if form == "file":
            folder.write("config.yaml", yaml.safe_dump({section: {name: value}}))
        else:
            environ[variable_of(key)] = json.dumps(value) if isinstance(value, list | dict) else str(value)
        problems: tuple[Problem, ...] = ()
        try:
            # Without the usual secrets in the environment, which would win over the file.
            folder.load(auth=False, **environ)
        except ConfigurationError as error:
            problems = error.problems
        assert all(problem.key or "YAML" in problem.message for problem in problems)


def test_secret_values_are_not_shown(folder: Folder) -> None:
    """A secret that is refused isn't in the message."""
    yaml = (
        "auth: {api_keys: ['with blanks 0123456789']}\nmetadata_store: {dsn: 123456, redis_password: [p4ssw0rd]}\n"
    )
    text = "\n".join(folder.problems(yaml, CALLFS_AUTH__INTERNAL_PROXY_SECRET="tell nobody this secret"))
    for part in ("with blanks 01", "123456", "p4ssw0rd", "nobody"):
        assert part not in text


def test_long_values_are_cut(folder: Folder) -> None:
    """A value in a message is cut to a readable length."""
    assert len(folder.problem("log: {level: " + "x" * 5000 + "}")) < 200


class TestDerived:
    def test_raft(self) -> None:
        """Node id and advertised address have their defaults in other keys."""
        config = Config(
            instance_discovery=InstanceDiscoveryConfig(instance_id="n1"), raft=RaftConfig(bind_addr="h:1")
        )
        assert (config.raft_node_id, config.raft_advertise_addr, config.raft_metadata) == ("n1", "h:1", False)

    def test_shard_path(self) -> None:
        """Shards are in the local root unless told otherwise."""
        assert Config().shard_path == Path("/var/lib/callfs/shards")
        assert Config(erasure=ErasureConfig(shard_path=Path("/s"))).shard_path == Path("/s")

    @pytest.mark.parametrize(
        ("configured", "m", "parity"), [(None, 2, 1), (None, 3, 2), (None, 1, 1), (2, 4, 2), (5, 3, 3)]
    )
    def test_write_parity(self, configured: int | None, m: int, parity: int) -> None:
        """Half of a file's parity shards, rounded up, or what is configured; at most all of them."""
        assert ErasureConfig(write_parity=configured).write_parity_of(m) == parity

    def test_tls(self) -> None:
        """``auto`` is TLS when certificate and key are there."""
        pair = {"cert_file": Path("/c"), "key_file": Path("/k")}
        assert not Config().tls
        assert Config(server=ServerConfig(**pair)).tls  # type: ignore[arg-type]
        assert not Config(server=ServerConfig(**pair, protocol="http")).tls  # type: ignore[arg-type]


def test_secret_compares_and_hides() -> None:
    """A secret equals only the same secret, and shows nothing."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert "abc" not in f"{Secret('abc')} {Secret('abc')!r}"
