"""What ``config show`` prints, and the sample configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from callfs.config.display import shown
from callfs.config.environment import variable_of
from callfs.config.files import read_value
from callfs.config.given import Origin
from callfs.config.schema import KINDS, Config
from tests.config.support import AUTH, Folder

SAMPLE = Path(__file__).parents[2] / "etc/callfs/config.yaml"
REFERENCE = Path(__file__).parents[2] / "docs/configuration.rst"


class TestShown:
    def test_every_key(self, folder: Folder) -> None:
        """Every key is shown, as YAML, with its value."""
        tree = yaml.safe_load(shown(folder.load(CALLFS_SERVER__READ_TIMEOUT="90").config))
        assert {f"{section}.{name}" for section, keys in tree.items() for name in keys} == set(KINDS)
        assert tree["server"]["read_timeout"] == "90s"
        assert tree["server"]["max_upload_bytes"] == "10GiB"

    def test_sources(self, folder: Folder) -> None:
        """Each value has its source behind it: default, file and line, or variable."""
        loaded = folder.load("log:\n  level: debug\n", CALLFS_LOG__FORMAT="console")
        lines = shown(loaded.config, loaded.sources).splitlines()
        assert f'  level: "debug"  # {folder.path}/config.yaml, line 2' in lines
        assert '  format: "console"  # environment CALLFS_LOG__FORMAT' in lines
        assert '  listen_addr: ":8443"  # default' in lines
        assert '    "alice": "********"  # environment CALLFS_AUTH__API_KEY_USERS__ALICE' in lines

    @pytest.mark.parametrize(
        ("given", "implied", "by"),
        [
            ("metadata_store: {type: raft}\n", "  enabled: true", "metadata_store.type"),
            ("metadata_store: {type: raft}\nraft: {enabled: false}\n", "  enabled: true", "metadata_store.type"),
            ("raft: {enabled: true}\n", '  type: "raft"', "raft.enabled"),
        ],
    )
    def test_implied(self, folder: Folder, given: str, implied: str, by: str) -> None:
        """That raft keeps the metadata is shown in both keys that say it, whichever of them was given."""
        loaded = folder.load(given)
        tree = yaml.safe_load(shown(loaded.config))
        assert (tree["raft"]["enabled"], tree["metadata_store"]["type"]) == (True, "raft")
        assert f"{implied}  # implied by {by}" in shown(loaded.config, loaded.sources).splitlines()
        assert not folder.load("metadata_store: {type: sqlite}\n").config.raft.enabled

    def test_no_secret(self, folder: Folder) -> None:
        """No secret is in it, wherever it was given."""
        loaded = folder.load(
            "auth:\n  api_keys: [legacy-key-0123456789]\n"
            "  api_key_users: {bob: [one-key-0123456789, two-key-0123456789]}\n"
        )
        text = shown(loaded.config, loaded.sources)
        for secret in loaded.config.secrets():
            assert secret not in text
        assert len(loaded.config.secrets()) == 6

    def test_reads_back(self, folder: Folder) -> None:
        """What is shown of a configuration, secrets put in, is a configuration with the same values."""
        config = folder.load().config
        tree = yaml.safe_load(shown(config))
        for section in ("raft", "ha", "erasure"):
            del tree[section]
        for name in [name for name in tree["backend"] if name.startswith(("s3_", "garbage", "internal"))]:
            del tree["backend"][name]
        for section in ("metadata_store", "dlm"):
            tree[section] = {"type": tree[section]["type"]}
        del tree["auth"], tree["server"]["quic_listen_addr"]
        tree["metadata_store"]["sqlite_path"] = str(config.metadata_store.sqlite_path)
        assert folder.load(yaml.safe_dump(tree)).config == config


class TestSample:
    def test_needs_secrets_of_its_own(self, folder: Folder) -> None:
        """The sample as it is lacks the keys and secrets, and nothing else."""
        problems = folder.problems(SAMPLE.read_text(), auth=False)
        assert [problem.partition(":")[0] for problem in problems] == [
            "auth.api_key_users",
            "auth.internal_proxy_secret",
            "auth.single_use_link_secret",
        ]

    def test_valid(self, folder: Folder) -> None:
        """With keys and secrets put in it is valid, by the variables or by the commented lines."""
        assert folder.load(SAMPLE.read_text()).warnings == ()
        for number, name in enumerate(("alice", "bob", "bob.old", "internal", "links")):
            folder.write(f"secrets/{name}", f"secret-of-its-own-{number}\n")
        text = SAMPLE.read_text().replace("/etc/callfs/secrets/", "secrets/")
        text = re.sub(r"^  #   (.*: .*\{.*|.*:)$", r"  \1", text, flags=re.MULTILINE)
        assert len(folder.load(text, auth=False).config.secrets()) == 5

    def test_has_every_key_with_its_default(self) -> None:
        """Every key is there, and what it says of the default is true."""
        tree = yaml.safe_load(re.sub(r"^( *)#(\w+:)", r"\1\2", SAMPLE.read_text(), flags=re.MULTILINE))
        assert [f"{section}.{name}" for section, keys in tree.items() for name in keys] == list(KINDS)
        sampled = {f"{section}.{name}": value for section, keys in tree.items() for name, value in keys.items()}
        default = dict(Config().items())
        for key, value in sampled.items():
            parsed = KINDS[key].read(key, value, Origin("sample", Path(), read_value))
            assert parsed == default[key] or (parsed is None and not default[key]), key


@pytest.mark.parametrize("key", list(KINDS))
def test_reference_has_every_key(key: str) -> None:
    """The operator's reference says something about every key, under its section's heading."""
    section, _, name = key.partition(".")
    part = re.split(rf"^``{section}``.*\n[=~-]+\n", REFERENCE.read_text(), flags=re.MULTILINE)[1]
    part = re.split(r"^``\w+``.*\n[=~-]+\n", part, flags=re.MULTILINE)[0]
    assert f"``{name}``" in part


def test_variables_of_the_secrets() -> None:
    """The variables that the tests set are those of the keys."""
    assert variable_of("auth.internal_proxy_secret") in AUTH
