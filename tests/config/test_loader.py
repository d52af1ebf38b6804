"""Where values come from, and which of them wins."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path

import pytest

from callfs.config.loader import load
from callfs.config.problems import ConfigurationError
from tests.config.support import ALICE, AUTH, INTERNAL, LINK, Folder

NOBODY = 65534


class TestFindingTheFile:
    def test_defaults_are_enough_beside_the_secrets(self, folder: Folder) -> None:
        """Without any file the embedded set-up holds; only keys and secrets have to be given."""
        loaded = folder.load()
        assert loaded.path is None
        assert loaded.config.metadata_store.type == "sqlite"
        assert loaded.config.backend.localfs_root_path == Path("/var/lib/callfs")
        assert loaded.config.server.read_timeout == 30.0
        assert loaded.config.server.max_upload_bytes == 10 * 1024**3

    @pytest.mark.parametrize("name", ["config.yaml", "config.yml", "config.json", "etc/callfs/config.yaml"])
    def test_known_names(self, folder: Folder, name: str) -> None:
        """Each known name is found in the working directory, and the system's file at its place."""
        path = folder.write(name, '{"log": {"level": "debug"}}')
        loaded = folder.load()
        assert loaded.path == path
        assert loaded.config.log.level == "debug"

    def test_order_of_names(self, folder: Folder) -> None:
        """The working directory wins over the system's file, YAML over JSON."""
        folder.write("etc/callfs/config.yaml", "log: {level: error}")
        folder.write("config.json", '{"log": {"level": "warn"}}')
        assert folder.load().config.log.level == "warn"
        assert folder.load("log: {level: debug}").config.log.level == "debug"

    def test_given_file_wins(self, folder: Folder) -> None:
        """A file that is named is read instead of those with known names; relative to the working directory."""
        folder.write("other.json", '{"log": {"level": "error"}}')
        assert folder.load("log: {level: debug}", given=Path("other.json")).config.log.level == "error"

    def test_given_file_missing(self, folder: Folder) -> None:
        """A named file that isn't there is a problem, never a silent default."""
        assert folder.problem(given=Path("nope.yaml")) == (
            "the configuration can't be read: no such file (/nope.yaml)"
        )

    def test_found_file_unusable(self, folder: Folder) -> None:
        """A file of a known name that can't be read isn't passed over for another."""
        (folder.path / "config.yaml").symlink_to("nowhere")
        folder.write("config.json", "{}")
        assert "no such file (/config.yaml)" in folder.problem()

    def test_directory(self, folder: Folder) -> None:
        """A directory is no configuration."""
        (folder.path / "config.yaml").mkdir()
        assert "it is a directory" in folder.problem()

    def test_permission(self, folder: Folder) -> None:
        """A file that we may not read is named as such."""
        folder.write("config.yaml", "").chmod(0)
        us = os.geteuid()
        if us == 0:
            os.seteuid(NOBODY)
        try:
            problem = folder.problem()
        finally:
            os.seteuid(us)
        assert "permission denied" in problem

    def test_other_ending(self, folder: Folder) -> None:
        """YAML or JSON is told by the ending; another is refused."""
        folder.write("callfs.conf", "{}")
        assert "must end in .yaml, .yml or .json" in folder.problem(given=Path("callfs.conf"))

    def test_huge_file(self, folder: Folder) -> None:
        """A file of absurd size isn't read into memory."""
        assert "larger than 1048576 bytes" in folder.problem("#" * (1024 * 1024 + 1))


class TestPrecedence:
    def test_environment_wins(self, folder: Folder) -> None:
        """The environment wins over the file, the file over the default; each value knows where it is from."""
        loaded = folder.load("log:\n  level: debug\n  format: console\n", CALLFS_LOG__LEVEL="error")
        assert (loaded.config.log.level, loaded.config.log.format) == ("error", "console")
        assert loaded.sources["log.level"] == "environment CALLFS_LOG__LEVEL"
        assert loaded.sources["log.format"] == f"{folder.path}/config.yaml, line 3"
        assert "server.listen_addr" not in loaded.sources

    def test_entries_join_a_map(self, folder: Folder) -> None:
        """A map entry of the environment joins the file's map; its name is the last part in lower case."""
        loaded = folder.load(
            "auth: {api_key_users: {Bob: bob-key-0123456789, alice: alice-old-0123456789}}",
            CALLFS_AUTH__API_KEY_USERS__ANN__X="ann-key-0123456789",
        )
        keys = {user: [key.reveal() for key in keys] for user, keys in loaded.config.auth.api_key_users.items()}
        assert keys == {"Bob": ["bob-key-0123456789"], "alice": [ALICE], "ann__x": ["ann-key-0123456789"]}
        assert loaded.sources["auth.api_key_users.Bob"].endswith("config.yaml, line 1")
        assert loaded.sources["auth.api_key_users.alice"] == "environment CALLFS_AUTH__API_KEY_USERS__ALICE"

    def test_a_whole_map_replaces(self, folder: Folder) -> None:
        """A JSON object in the environment takes the place of the file's map."""
        loaded = folder.load(
            "auth: {api_key_users: {bob: bob-key-0123456789}}",
            CALLFS_AUTH__API_KEY_USERS='{"Carol": ["carol-key-0123456789", "carol-new-0123456789"]}',
        )
        assert sorted(loaded.config.auth.api_key_users) == ["Carol", "alice"]
        assert len(loaded.config.auth.api_key_users["Carol"]) == 2


class TestEnvironment:
    @pytest.mark.parametrize(
        ("text", "value"), [("true", True), ("Yes", True), ("1", True), ("off", False), ("0", False)]
    )
    def test_booleans(self, folder: Folder, text: str, value: bool) -> None:
        """The usual words for true and false."""
        environ = {"CALLFS_SERVER__ENABLE_QUIC": text}
        if value:
            assert "HTTP/3 isn't available" in "".join(folder.problems(**environ))
        else:
            assert folder.load(**environ).config.server.enable_quic is False

    def test_numbers(self, folder: Folder) -> None:
        """Numbers, durations and sizes are read from text."""
        config = folder.load(
            CALLFS_LIMITS__MAX_CONNECTIONS=" 50 ",
            CALLFS_LIMITS__DOWNLOAD_RATE="0.5",
            CALLFS_SERVER__READ_TIMEOUT="250ms",
            CALLFS_SERVER__WRITE_TIMEOUT="7",
            CALLFS_SERVER__MIN_FREE_BYTES="64KiB",
            CALLFS_SERVER__MAX_UPLOAD_BYTES="1000",
        ).config
        assert (config.limits.max_connections, config.limits.download_rate) == (50, 0.5)
        assert (config.server.read_timeout, config.server.write_timeout) == (0.25, 7.0)
        assert (config.server.min_free_bytes, config.server.max_upload_bytes) == (65536, 1000)

    @pytest.mark.parametrize("text", ["10.0.0.0/8, ::1", '["10.0.0.0/8", "::1"]'])
    def test_lists(self, folder: Folder, text: str) -> None:
        """A list is comma-separated or JSON."""
        config = folder.load(CALLFS_SERVER__TRUSTED_PROXIES=text).config
        assert config.server.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))

    def test_empty_list(self, folder: Folder) -> None:
        """An empty variable is an empty list."""
        assert folder.load(CALLFS_SERVER__TRUSTED_PROXIES="").config.server.trusted_proxies == ()

    def test_empty_text(self, folder: Folder) -> None:
        """Empty text switches off what can be off."""
        config = folder.load(CALLFS_METRICS__LISTEN_ADDR="", CALLFS_SERVER__EXTERNAL_URL="").config
        assert not config.metrics.listen_addr
        assert config.server.external_url is None

    def test_broken_json(self, folder: Folder) -> None:
        """JSON that isn't any is refused without repeating the secrets in it."""
        problem = folder.problem(CALLFS_AUTH__API_KEY_USERS='{"bob": "my-precious-secret"')
        assert problem.startswith("auth.api_key_users: text that is no JSON (")
        assert "precious" not in problem

    def test_unknown_variable_is_a_warning(self, folder: Folder) -> None:
        """An unknown variable is named with the nearest known one, and everything else goes on."""
        assert folder.load(CALLFS_LOG__LEVL="x").warnings == (
            "the environment variable CALLFS_LOG__LEVL is unknown and has no effect; "
            "the nearest known one is CALLFS_LOG__LEVEL",
        )

    def test_test_variables_are_not_ours(self, folder: Folder) -> None:
        """``CALLFS_TEST_*`` belongs to others."""
        assert folder.load(CALLFS_TEST_ANYTHING="1", PATH="/bin").warnings == ()

    def test_bytes_that_are_no_utf8(self, folder: Folder) -> None:
        """A variable of other bytes is refused, not carried into the daemon."""
        assert "isn't UTF-8" in folder.problem(CALLFS_INSTANCE_DISCOVERY__INSTANCE_ID="a\udcff")


class TestFileReferences:
    def test_in_the_file(self, folder: Folder) -> None:
        """``{file: path}`` stands for any value, also in lists and maps; its path counts from the file's folder."""
        folder.write("etc/callfs/keys/alice", "alice-from-file-0123\n")
        folder.write("etc/callfs/keys/bob", "bob-from-file-0123456\r\n")
        folder.write("etc/callfs/keys/level", "debug\n")
        folder.write("etc/callfs/keys/connections", "77\n")
        folder.write(
            "etc/callfs/config.yaml",
            "auth:\n  api_key_users: {alice: {file: keys/alice}}\n  api_keys: [{file: keys/bob}]\n"
            f"  internal_proxy_secret: {INTERNAL}\n  single_use_link_secret: {LINK}\n"
            "log: {level: {file: keys/level}}\nlimits: {max_connections: {file: keys/connections}}\n",
        )
        config = folder.load(auth=False).config
        assert config.auth.api_key_users["alice"][0].reveal() == "alice-from-file-0123"
        assert config.auth.api_keys[0].reveal() == "bob-from-file-0123456"
        assert (config.log.level, config.limits.max_connections) == ("debug", 77)

    def test_file_variable(self, folder: Folder) -> None:
        """``__FILE`` at a variable's end: the value is read from there; it wins over the variable without."""
        folder.write("secret", "secret, with a comma\n")
        loaded = folder.load(CALLFS_AUTH__SINGLE_USE_LINK_SECRET__FILE="secret")
        (secret,) = loaded.config.auth.single_use_link_secret
        assert secret.reveal() == "secret, with a comma"
        assert loaded.sources["auth.single_use_link_secret"].endswith("CALLFS_AUTH__SINGLE_USE_LINK_SECRET__FILE")

    def test_file_variable_of_an_entry(self, folder: Folder) -> None:
        """A map entry, too, can come from a file."""
        folder.write("bob", "bob-from-file-0123456")
        config = folder.load(CALLFS_AUTH__API_KEY_USERS__BOB__FILE=str(folder.path / "bob")).config
        assert config.auth.api_key_users["bob"][0].reveal() == "bob-from-file-0123456"

    def test_lines_are_a_rotation(self, folder: Folder) -> None:
        """A secret's file of several lines holds several: the first is used, all are accepted."""
        folder.write("secret", "new-secret-0123456789\nold-secret-0123456789\n")
        config = folder.load(CALLFS_AUTH__INTERNAL_PROXY_SECRET__FILE="secret").config
        assert [s.reveal() for s in config.auth.internal_proxy_secret] == [
            "new-secret-0123456789",
            "old-secret-0123456789",
        ]

    def test_map_from_a_file(self, folder: Folder) -> None:
        """A whole map is read from a file as JSON."""
        folder.write("users", json.dumps({"bob": "bob-key-0123456789"}))
        config = folder.load(CALLFS_AUTH__API_KEY_USERS__FILE="users").config
        assert sorted(config.auth.api_key_users) == ["alice", "bob"]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "no such file"),
            (b"", "it is empty"),
            (b"\n", "it is empty"),
            (b"\xff\xfe", "it isn't UTF-8 (line 1)"),
        ],
    )
    def test_unusable(self, folder: Folder, content: bytes | None, reason: str) -> None:
        """A secret's file that is missing, empty or no text is a problem."""
        if content is not None:
            folder.write("secret", content)
        problem = folder.problem(CALLFS_AUTH__SINGLE_USE_LINK_SECRET__FILE="./secret")
        assert problem == (
            f'auth.single_use_link_secret: the file "./secret" can\'t be read: {reason} '
            "(environment CALLFS_AUTH__SINGLE_USE_LINK_SECRET__FILE)"
        )

    def test_a_secret_in_place_of_a_path(self, folder: Folder) -> None:
        """Who gives the secret where its path belongs doesn't find it in the message."""
        problem = folder.problem(CALLFS_AUTH__SINGLE_USE_LINK_SECRET__FILE="oops-my-secret-0123")
        assert "its file can't be read: no such file" in problem
        assert "oops" not in problem


class TestPaths:
    def test_relative_to_the_file(self, folder: Folder) -> None:
        """A relative path counts from the folder of the file it stands in."""
        folder.write(
            "etc/callfs/config.yaml", "backend: {localfs_root_path: data}\nmetadata_store: {sqlite_path: ../db}"
        )
        config = folder.load().config
        assert config.backend.localfs_root_path == folder.path / "etc/callfs/data"
        assert config.metadata_store.sqlite_path == folder.path / "etc/callfs/../db"

    def test_relative_to_the_working_directory(self, folder: Folder) -> None:
        """Relative paths of the environment, and among the defaults, count from the working directory."""
        folder.write("etc/callfs/config.yaml", "")
        config = folder.load(CALLFS_BACKEND__LOCALFS_ROOT_PATH="data").config
        assert config.backend.localfs_root_path == folder.path / "data"
        assert config.metadata_store.sqlite_path == folder.path / "callfs.sqlite3"

    def test_files_that_must_exist(self, folder: Folder) -> None:
        """A certificate that isn't there is found before the daemon starts."""
        (folder.path / "folder").mkdir()
        problems = folder.problems("server: {cert_file: gone.pem, key_file: folder}")
        assert "server.cert_file: the file /gone.pem can't be read: no such file (/config.yaml, line 1)" in problems
        assert (
            "server.key_file: the file /folder can't be read: it is a directory (/config.yaml, line 1)" in problems
        )


def test_everything_at_once(folder: Folder) -> None:
    """All problems are reported together: of the file, of the environment, of single keys, and between keys."""
    problems = folder.problems(
        "server:\n  listen_addr: 8443\n  read_timeot: 1s\nnonsense: {}\n"
        "auth:\n  api_key_users: {bob: short, carol: 'no blanks please'}\nraft: {heartbeat_interval: 1s}\n",
        CALLFS_LOG__LEVEL="loud",
    )
    found = [problem.split(": ")[0] for problem in problems]
    assert sorted(found) == [
        "auth.api_key_users.bob",
        "auth.api_key_users.carol",
        "log.level",
        "nonsense",
        "raft.heartbeat_interval",
        "server.listen_addr",
        "server.read_timeot",
    ]


def test_no_follow_up_problems(folder: Folder) -> None:
    """A value that is refused isn't reported a second time for what its absence breaks."""
    assert len(folder.problems("auth: {api_key_users: {bob: no}}", auth=False)) == 3


def test_unreadable_file_is_the_only_problem(folder: Folder) -> None:
    """When the file can't be read nothing is said of the keys that would be in it."""
    assert len(folder.problems("auth: [", auth=False)) == 1


def test_legacy_keys_warn(folder: Folder) -> None:
    """The legacy list works and warns that its users depend on their position."""
    loaded = folder.load("auth: {api_keys: [first-key-0123456789, second-key-0123456789]}")
    assert [warning.partition(":")[0] for warning in loaded.warnings] == ["auth.api_keys"]
    keys = loaded.config.auth.keys_by_user()
    assert keys["api-user-1"][0].reveal() == "second-key-0123456789"
    assert keys["alice"][0].reveal() == ALICE


def test_admin_without_a_key_warns(folder: Folder) -> None:
    """An administrator nobody can be is a warning, without the text that may be a misplaced key."""
    assert folder.load("auth: {admins: [alice, bob]}").warnings == ("auth.admins[1]: this user has no key",)


@pytest.mark.parametrize(
    "neighbours",
    [
        "metadata_store: {type: raft}",
        "dlm: {type: redis}",
        "instance_discovery: {peer_endpoints: {node-2: 'http://10.0.0.2:8443'}}",
    ],
)
def test_url_for_others_warns(folder: Folder, neighbours: str) -> None:
    """Where others are told ``localhost``, it is said which key to set; where there are no others, it isn't."""
    (warning,) = folder.load(neighbours).warnings
    assert warning.startswith("server.external_url isn't set")
    assert "http://localhost:8443" in warning
    for server in ("listen_addr: '10.0.0.1:8443'", "external_url: 'http://10.0.0.1:8443'"):
        assert folder.load(f"{neighbours}\nserver: {{{server}}}").warnings == ()
    assert folder.load("metadata_store: {type: sqlite}").warnings == ()


URL = "server: {external_url: 'http://x'}\n"
IDLE_STORES = ["metadata_store.dsn", "metadata_store.pool_size", "metadata_store.redis_addr"]


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("ha: {replica_backend: s3}\nbackend: {s3_bucket_name: b}", ["ha.replica_backend"]),
        ("raft: {bootstrap: true, peers: {a: 'a:7000'}}", ["raft.bootstrap", "raft.peers"]),
        ("metadata_store: {dsn: 'host=x', redis_addr: 'r:1', pool_size: 4}", IDLE_STORES),
        ("metadata_store: {redis_key_prefix: 'x:'}", ["metadata_store.redis_key_prefix"]),
        ("dlm: {redis_addr: 'r:1'}", ["dlm.redis_addr"]),
        ("backend: {s3_region: eu-west-1}", ["backend.s3_region"]),
    ],
)
def test_idle_keys_warn(folder: Folder, text: str, idle: list[str]) -> None:
    """A key that has no effect with what else was chosen is a warning, which says when it would have one."""
    warnings = folder.load(text).warnings
    assert [warning.partition(": has no effect unless ")[0] for warning in warnings] == idle


@pytest.mark.parametrize(
    "text",
    [
        "raft: {data_dir: here}",
        "ha: {replica_backend: null}\nbackend: {s3_region: us-east-1}",
        f"{URL}dlm: {{type: redis, redis_addr: 'r:1'}}\nmetadata_store: {{redis_key_prefix: 'x:'}}",
        f"{URL}metadata_store: {{type: raft}}\nraft: {{bootstrap: true}}",
        "backend: {s3_bucket_name: b, s3_region: eu-west-1}",
    ],
)
def test_keys_that_are_used_do_not_warn(folder: Folder, text: str) -> None:
    """A key that has its effect, or says what holds anyway, is no warning."""
    assert folder.load(text).warnings == ()


def test_error_lists_problems(folder: Folder) -> None:
    """The error's text has every problem, one a line."""
    with pytest.raises(ConfigurationError) as caught:
        load(None, {}, folder.path, folder.path / "none")
    assert len(str(caught.value).splitlines()) == len(caught.value.problems) == 3


def test_secrets_do_not_print(folder: Folder) -> None:
    """Neither the configuration's repr nor a secret's text shows a secret."""
    config = folder.load().config
    for value in AUTH.values():
        assert value not in repr(config)
        assert value not in f"{config.auth.keys_by_user()} {config.auth.internal_proxy_secret[0]}"
        assert value in config.secrets()
