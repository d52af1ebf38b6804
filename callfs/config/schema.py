"""
Every key of the configuration with its kind and its default.

An attribute has the name of its key. Durations are seconds, sizes bytes, secrets are
:class:`callfs.config.secret.Secret`, paths absolute once loaded. ``Config()`` is the built-in default, which
lacks keys and secrets and so doesn't pass the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from callfs.config import addresses
from callfs.config.compounds import ListOf, MapOf, OneOrMore, OrNone
from callfs.config.kinds import Kind
from callfs.config.numbers import Boolean, Duration, Rate, Size, Whole
from callfs.config.places import Address, BaseUrl, ListenAddress, Network, NetworkAddress
from callfs.config.secret import Secret
from callfs.config.texts import Choice, FilePath, Matching, SecretText, Text

KIB, MIB, GIB = 1024, 1024**2, 1024**3

_USER_ID = (r"[A-Za-z0-9._@-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ @ -")
USER_ID = Matching(*_USER_ID)
# Somebody may have written the key where the user's id belongs.
USER_ID_OF_KEY = Matching(*_USER_ID, secret=True)
INSTANCE_ID = Matching(r"[A-Za-z0-9._-]{1,64}", "1 to 64 of A-Z a-z 0-9 . _ -")

Flag = Annotated[bool, Boolean()]
Seconds = Annotated[float, Duration()]
Keys = tuple[Secret, ...]
OptionalText = Annotated[str | None, OrNone(Text())]
OptionalSecret = Annotated[Secret | None, OrNone(SecretText())]
ReadableFile = Annotated[Path | None, OrNone(FilePath(must_exist=True))]
BackendName = Annotated[str, Choice("localfs", "s3")]


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """``server``: listening, limits of a request, timeouts in seconds."""

    listen_addr: Annotated[str, ListenAddress()] = ":8443"
    protocol: Annotated[str, Choice("http", "https", "auto")] = "auto"
    external_url: Annotated[str | None, OrNone(BaseUrl(scheme_needed=False))] = None
    cert_file: ReadableFile = None
    key_file: ReadableFile = None
    enable_quic: Flag = False
    quic_listen_addr: Annotated[str, Address(host_needed=False)] = ":8443"
    read_timeout: Seconds = 30.0
    write_timeout: Seconds = 30.0
    file_op_timeout: Seconds = 10.0
    metadata_op_timeout: Seconds = 5.0
    shutdown_timeout: Annotated[float, Duration(zero=True)] = 30.0
    trusted_proxies: Annotated[tuple[Network, ...], ListOf(NetworkAddress())] = ()
    min_free_bytes: Annotated[int, Size()] = GIB
    max_upload_bytes: Annotated[int, Size(least=1)] = 10 * GIB
    max_websocket_upload_bytes: Annotated[int, Size(least=1)] = 100 * MIB


@dataclass(frozen=True, kw_only=True)
class AuthConfig:
    """
    ``auth``: who may come in.

    Of a secret that is a list the first is used, and all are accepted.
    """

    api_key_users: Annotated[Mapping[str, Keys], MapOf(USER_ID_OF_KEY, OneOrMore(SecretText(bearer=True)))] = field(
        default_factory=dict
    )
    admins: Annotated[tuple[str, ...], ListOf(USER_ID)] = ()
    api_keys: Annotated[Keys, ListOf(SecretText(bearer=True))] = ()
    internal_proxy_secret: Annotated[Keys, OrNone(OneOrMore(SecretText(bearer=True)), nothing=())] = ()
    single_use_link_secret: Annotated[Keys, OrNone(OneOrMore(SecretText()), nothing=())] = ()

    def keys_by_user(self) -> dict[str, Keys]:
        """Every key with its user, the legacy list included: its n-th key, from 0, is ``api-user-<n>``."""
        legacy = {f"api-user-{n}": (key,) for n, key in enumerate(self.api_keys)}
        return {**self.api_key_users, **legacy}


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """``log``."""

    level: Annotated[str, Choice("debug", "info", "warn", "error")] = "info"
    format: Annotated[str, Choice("json", "console")] = "json"


@dataclass(frozen=True, kw_only=True)
class MetricsConfig:
    """``metrics``; no address is off."""

    listen_addr: Annotated[str | None, OrNone(ListenAddress())] = "127.0.0.1:9090"


@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """``backend``: where bytes go."""

    default_backend: BackendName = "localfs"
    localfs_root_path: Annotated[Path | None, OrNone(FilePath())] = Path("/var/lib/callfs")
    garbage_delay: Annotated[float, Duration(zero=True)] = 3600.0
    s3_bucket_name: OptionalText = None
    s3_key_prefix: Annotated[str, Text(empty=True)] = ""
    s3_addressing: Annotated[str, Choice("auto", "path", "virtual")] = "auto"
    s3_access_key: OptionalSecret = None
    s3_secret_key: OptionalSecret = None
    s3_region: Annotated[str, Text()] = "us-east-1"
    s3_endpoint: Annotated[str | None, OrNone(BaseUrl())] = None
    s3_server_side_encryption: Annotated[str, Choice("AES256", "aws:kms", "")] = "AES256"
    s3_acl: Annotated[str, Text(empty=True)] = "private"
    s3_kms_key_id: OptionalText = None
    internal_proxy_skip_tls_verify: Flag = False
    internal_proxy_ca_file: ReadableFile = None


@dataclass(frozen=True, kw_only=True)
class MetadataStoreConfig:
    """``metadata_store``: where names are kept."""

    type: Annotated[str, Choice("sqlite", "postgres", "redis", "raft")] = "sqlite"
    sqlite_path: Annotated[Path, FilePath()] = Path("callfs.sqlite3")
    dsn: OptionalSecret = None
    pool_size: Annotated[int, Whole(1, 1000)] = 8
    redis_addr: Annotated[str, Address()] = "localhost:6379"
    redis_password: OptionalSecret = None
    redis_db: Annotated[int, Whole(0, 65535)] = 0
    redis_key_prefix: Annotated[str, Text(empty=True)] = "callfs:"


@dataclass(frozen=True, kw_only=True)
class RaftConfig:
    """``raft``: metadata replicated by the nodes themselves."""

    enabled: Flag = False
    node_id: Annotated[str | None, OrNone(INSTANCE_ID)] = None
    bind_addr: Annotated[str, Address()] = "127.0.0.1:7000"
    advertise_addr: Annotated[str | None, OrNone(Address())] = None
    data_dir: Annotated[Path, FilePath()] = Path("raft")
    bootstrap: Flag = False
    peers: Annotated[Mapping[str, str], MapOf(INSTANCE_ID, Address())] = field(default_factory=dict)
    api_peer_endpoints: Annotated[Mapping[str, str], MapOf(INSTANCE_ID, BaseUrl())] = field(default_factory=dict)
    apply_timeout: Seconds = 10.0
    forward_timeout: Seconds = 10.0
    election_timeout: Seconds = 1.0
    heartbeat_interval: Seconds = 0.1
    snapshot_interval: Seconds = 60.0
    snapshot_threshold: Annotated[int, Whole(1)] = 8192
    retain_snapshot_count: Annotated[int, Whole(1)] = 2
    tls_cert_file: ReadableFile = None
    tls_key_file: ReadableFile = None
    tls_ca_file: ReadableFile = None


@dataclass(frozen=True, kw_only=True)
class DlmConfig:
    """``dlm``: where locks are."""

    type: Annotated[str, Choice("local", "redis", "raft")] = "local"
    redis_addr: Annotated[str, Address()] = "localhost:6379"
    redis_password: OptionalSecret = None


@dataclass(frozen=True, kw_only=True)
class HaConfig:
    """``ha``: a second copy of every object."""

    replication_enabled: Flag = False
    replica_backend: Annotated[str | None, OrNone(Choice("localfs", "s3"))] = None
    require_replica_success: Flag = False


@dataclass(frozen=True, kw_only=True)
class InstanceDiscoveryConfig:
    """``instance_discovery``: who this node is and who the others are."""

    instance_id: Annotated[str, INSTANCE_ID] = "callfs-instance-1"
    peer_endpoints: Annotated[Mapping[str, str], MapOf(INSTANCE_ID, BaseUrl())] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ErasureConfig:
    """``erasure``: files cut into shards."""

    enabled: Flag = False
    data_shards: Annotated[int, Whole(1, 255)] = 4
    parity_shards: Annotated[int, Whole(1, 255)] = 2
    automatic: Flag = False
    min_file_size: Annotated[int, Size()] = MIB
    shard_backend: BackendName = "localfs"
    shard_path: Annotated[Path | None, OrNone(FilePath())] = None
    write_parity: Annotated[int | None, OrNone(Whole(1, 255))] = None
    chunk_size: Annotated[int, Size(least=1)] = 256 * KIB
    scrub_interval: Seconds = 86400.0

    def write_parity_of(self, parity_shards: int) -> int:
        """How many of a file's ``parity_shards`` must be durable before its upload succeeds."""
        wanted = (parity_shards + 1) // 2 if self.write_parity is None else self.write_parity
        return min(wanted, parity_shards)


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """``limits``: rates are per client address and second."""

    link_generate_rate: Annotated[float, Rate()] = 100.0
    link_generate_burst: Annotated[int, Whole(1)] = 1
    download_rate: Annotated[float, Rate()] = 10.0
    download_burst: Annotated[int, Whole(1)] = 5
    max_connections: Annotated[int, Whole(1)] = 10000


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole configuration, one attribute for each section."""

    server: ServerConfig = field(default_factory=ServerConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    log: LogConfig = field(default_factory=LogConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    metadata_store: MetadataStoreConfig = field(default_factory=MetadataStoreConfig)
    raft: RaftConfig = field(default_factory=RaftConfig)
    dlm: DlmConfig = field(default_factory=DlmConfig)
    ha: HaConfig = field(default_factory=HaConfig)
    instance_discovery: InstanceDiscoveryConfig = field(default_factory=InstanceDiscoveryConfig)
    erasure: ErasureConfig = field(default_factory=ErasureConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    @property
    def tls(self) -> bool:
        """Whether the server speaks TLS: asked for, or ``auto`` with certificate and key."""
        server = self.server
        has_both = server.cert_file is not None and server.key_file is not None
        return server.protocol == "https" or (server.protocol == "auto" and has_both)

    @property
    def external_url(self) -> str:
        """The base of links and manifests, with its scheme, without a slash at the end."""
        scheme = "https" if self.tls else "http"
        given = addresses.base_url(self.server.external_url, scheme) if self.server.external_url else None
        return given or addresses.default_base_url(self.server.listen_addr, scheme)

    @property
    def is_url_guessed(self) -> bool:
        """Whether :attr:`external_url` names ``localhost`` only because nothing says what others call this node."""
        guessed = addresses.default_base_url(self.server.listen_addr, "http")
        return self.server.external_url is None and addresses.is_localhost(guessed)

    @property
    def raft_metadata(self) -> bool:
        """Whether raft runs: ``raft.enabled``, or implied by ``metadata_store.type``."""
        return self.raft.enabled or self.metadata_store.type == "raft"

    @property
    def raft_node_id(self) -> str:
        """``raft.node_id``, by default the instance's id."""
        return self.raft.node_id or self.instance_discovery.instance_id

    @property
    def raft_advertise_addr(self) -> str:
        """``raft.advertise_addr``, by default ``raft.bind_addr``."""
        return self.raft.advertise_addr or self.raft.bind_addr

    @property
    def shard_path(self) -> Path | None:
        """``erasure.shard_path``, by default the folder ``shards`` in the local root; ``None`` without one."""
        root = self.backend.localfs_root_path
        return self.erasure.shard_path or (None if root is None else root / "shards")

    def secrets(self) -> tuple[str, ...]:
        """Every secret in clear, for what has to keep them out of logs."""
        return tuple(dict.fromkeys(secret.reveal() for _, value in self.items() for secret in _secrets_in(value)))

    def items(self) -> Iterator[tuple[str, Any]]:
        """Every full key with its value."""
        for section in fields(self):
            values = getattr(self, section.name)
            for option in fields(values):
                yield f"{section.name}.{option.name}", getattr(values, option.name)


def _secrets_in(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _secrets_in(entry)
    elif isinstance(value, tuple):
        for entry in value:
            yield from _secrets_in(entry)


SECTIONS: Mapping[str, type] = get_type_hints(Config)


def _kinds() -> Iterator[tuple[str, Kind]]:
    for section, cls in SECTIONS.items():
        for name, hint in get_type_hints(cls, include_extras=True).items():
            yield f"{section}.{name}", next(extra for extra in hint.__metadata__ if isinstance(extra, Kind))


KINDS: Mapping[str, Kind] = dict(_kinds())
"""The kind of every full key, in the order of the reference."""
