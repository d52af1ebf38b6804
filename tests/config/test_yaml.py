"""What can go wrong in a file, each with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.support import Folder


class TestYaml:
    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            (
                "log:\n  level: info\n  level: debug\n",
                "not usable as YAML: 'level' is there twice, first in line 2 (L3)",
            ),
            ("log: {}\nserver: {}\nlog: {}\n", "not usable as YAML: 'log' is there twice, first in line 1 (L3)"),
            ("log: {level: info, level: warn}", "not usable as YAML: 'level' is there twice, first in line 1 (L1)"),
            (
                "log:\n\tlevel: info\n",
                "not usable as YAML: a tab where only blanks are allowed: indent with blanks (L2)",
            ),
            ("log: [\n", "not usable as YAML: expected the node content, but found '<stream end>' (L2)"),
            ("- log\n", "a list given, allowed: a map of sections such as server: and auth:"),
            ("just text\n", "text given, allowed: a map of sections such as server: and auth:"),
            ("log: {}\n---\nlog: {}\n", "not usable as YAML: but found another document (L2)"),
            ("log: !!python/object:os.system {}\n", "not usable as YAML: tags such as !name aren't allowed (L1)"),
            ("log: {? [a] : b}\n", "not usable as YAML: a name must be plain text (L1)"),
            ("log: *nowhere\n", "not usable as YAML: found undefined alias 'nowhere' (L1)"),
            ("log:\n  level: a\x07b\n", "not usable as YAML: the character U+0007 isn't allowed (L2)"),
            (
                "limits: {max_connections: " + "9" * 5000 + "}",
                "not usable as YAML: a number or date that can't be read",
            ),
            (
                "log: {level: 2024-99-99}",
                "not usable as YAML: a number or date that can't be read; put text in quotes",
            ),
            ("log: " + "[" * 5000, "not usable as YAML: nested too deeply"),
        ],
    )
    def test_unusable(self, folder: Folder, yaml: str, message: str) -> None:
        """A file that isn't the YAML we need is refused with the reason and the line."""
        problem = folder.problem(yaml)
        assert problem.replace("/config.yaml, line ", "L").startswith(message)

    def test_not_utf8(self, folder: Folder) -> None:
        """Bytes that are no UTF-8 are refused with their line."""
        folder.write("config.yaml", b"log:\n  level: inf\xf6\n")
        assert folder.problem() == "the configuration can't be read: it isn't UTF-8 (line 2) (/config.yaml)"

    def test_byte_order_mark(self, folder: Folder) -> None:
        """A byte order mark is no part of the first key."""
        folder.write("config.yaml", b"\xef\xbb\xbflog: {level: warn}\n")
        assert folder.load().config.log.level == "warn"

    @pytest.mark.parametrize("yaml", ["", "# nothing\n", "---\n", "log:\nserver:\n"])
    def test_empty(self, folder: Folder, yaml: str) -> None:
        """An empty file, or sections without a key, say nothing."""
        assert folder.load(yaml).config.log.level == "info"

    def test_anchors_and_merges(self, folder: Folder) -> None:
        """Anchors, aliases and merge keys work; a map's own entry wins over a merged one, and has its own line."""
        loaded = folder.load(
            "server:\n  read_timeout: &t 7s\n  write_timeout: *t\n"
            "limits: &l\n  download_burst: 9\n  <<: {max_connections: 3, download_burst: 1}\n"
        )
        assert (loaded.config.server.write_timeout, loaded.config.limits.max_connections) == (7.0, 3)
        assert loaded.config.limits.download_burst == 9
        assert loaded.sources["limits.download_burst"].endswith("line 5")

    def test_recursive_alias(self, folder: Folder) -> None:
        """A value that contains itself is a value of the wrong type, no endless loop."""
        assert "a list given" in folder.problem("auth:\n  admins: &a\n  - *a\n")

    def test_many_aliases(self, folder: Folder) -> None:
        """Aliases of aliases aren't multiplied out."""
        levels = "\n".join(f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))
        assert folder.problems(f"auth:\n  admins:\n  - &a0 [x]\n{levels}\n")


class TestMeantAsText:
    @pytest.mark.parametrize(
        ("yaml", "message"),
        [
            (
                "auth: {admins: [no]}",
                "auth.admins[0]: a boolean false given, allowed: 1 to 64 of A-Z a-z 0-9 . _ @ -; YAML",
            ),
            (
                "instance_discovery: {instance_id: 17}",
                "instance_discovery.instance_id: a number 17 given, allowed: 1 to",
            ),
            (
                "instance_discovery: {instance_id: 1.5}",
                "instance_discovery.instance_id: a number 1.5 given, allowed: 1 to",
            ),
            (
                "instance_discovery: {instance_id: 2024-01-01}",
                "instance_discovery.instance_id: a date given, allowed: 1 to",
            ),
            ("server: {listen_addr: 8443}", "server.listen_addr: a number 8443 given, allowed: host:port"),
            ("log: {level: }", "log.level: nothing given, allowed: debug, info, warn, error"),
            ("log: {level: [info]}", "log.level: a list given, allowed: debug, info, warn, error"),
            ("log: info", "log: text given, allowed: a map of keys"),
            (
                "log: {level: off}",
                "log.level: a boolean false given, allowed: debug, info, warn, error; YAML takes",
            ),
        ],
    )
    def test_says_what_yaml_made_of_it(self, folder: Folder, yaml: str, message: str) -> None:
        """Where YAML reads something else than text, the problem says so and what to do."""
        assert folder.problem(yaml).startswith(message)

    def test_digits_must_be_quoted(self, folder: Folder) -> None:
        """A key of digits alone has to be in quotes, and its value isn't shown."""
        problem = folder.problem("auth:\n  api_key_users:\n    bob: 12345678901234567890\n")
        assert problem == (
            "auth.api_key_users.bob: a number given, allowed: visible ASCII characters without blanks; "
            "text of digits must be in quotes (/config.yaml, line 3)"
        )
        assert folder.load('auth: {api_key_users: {bob: "12345678901234567890"}}')

    @pytest.mark.parametrize("name", ["no", "17", "1234567890123456789", "~", "2024-01-01", "bob smith", "''"])
    def test_names_that_are_no_text(self, folder: Folder, name: str) -> None:
        """A user id that YAML doesn't read as text, or that isn't one, is refused; it may be a misplaced key."""
        problem = folder.problem(f"auth: {{api_key_users: {{{name}: bob-key-0123456789}}}}")
        assert problem.startswith("auth.api_key_users (a name in it): ")
        assert "1234567890123456789" not in problem
        assert "allowed: 1 to 64 of A-Z a-z 0-9 . _ @ -" in problem

    @pytest.mark.parametrize("name", ["1: {}", "log: {1: x}", "log: {no: x}"])
    def test_other_names_that_are_no_text(self, folder: Folder, name: str) -> None:
        """Sections and keys that are no text are unknown."""
        assert "unknown" in folder.problem(name)


class TestJson:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"log": {"level": "info", "level": "warn"}}', 'the name "level" is there twice'),
            ('{"log": ', "Expecting value at line 1, column 9"),
            ('{"limits": {"download_rate": NaN}}', "NaN is no JSON number"),
            ('{"limits": {"max_connections": ' + "9" * 5000 + "}}", "a number with too many digits"),
            ("[" * 200000, "nested too deeply"),
        ],
    )
    def test_unusable(self, folder: Folder, text: str, reason: str) -> None:
        """JSON is read strictly, too."""
        folder.write("config.json", text)
        assert folder.problem() == f"not usable as JSON: {reason} (/config.json)"

    def test_list(self, folder: Folder) -> None:
        """A JSON text that is no object is refused."""
        folder.write("config.json", "[]")
        assert folder.problem().startswith("a list given, allowed: a map")

    def test_empty(self, folder: Folder) -> None:
        """An empty file says nothing."""
        folder.write("config.json", "\n")
        assert folder.load().path == Path(folder.path / "config.json")


class TestUnknown:
    @pytest.mark.parametrize(
        ("yaml", "problem"),
        [
            ("server: {listen_adr: x}", "server.listen_adr: unknown; the nearest known one is server.listen_addr"),
            ("servr: {}", "servr: unknown; the nearest known one is server"),
            (
                "backend: {sqlite_path: x}",
                "backend.sqlite_path: unknown; the nearest known one is metadata_store.sqlite_path",
            ),
            ("zzzzqqq: {}", "zzzzqqq: unknown"),
        ],
    )
    def test_nearest(self, folder: Folder, yaml: str, problem: str) -> None:
        """An unknown key is an error that names the nearest known one, and never its value."""
        assert folder.problem(yaml) == f"{problem} (/config.yaml, line 1)"
