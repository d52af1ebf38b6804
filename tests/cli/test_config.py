"""``callfs config``, and what all commands share."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

import callfs
from callfs.cli import COMMANDS, main
from tests.config.support import AUTH


class Terminal:
    """A shell in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """Run ``callfs``: its exit status, standard output and standard error."""
        result = CliRunner().invoke(main, arguments, env={**AUTH, **environ})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A shell in an empty folder, with keys and secrets in the environment."""
    for name in [name for name in os.environ if name.startswith("CALLFS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path)


class TestValidate:
    def test_valid(self, terminal: Terminal) -> None:
        """A valid configuration is said to be so, and the effective settings follow, secrets masked."""
        status, out, err = terminal.run("config", "validate", CALLFS_LOG__LEVEL="debug")
        first, _, settings = out.partition("\n")
        assert (status, first, err) == (0, "Configuration is valid", "")
        assert yaml.safe_load(settings)["log"]["level"] == "debug"
        assert not any(secret in out for secret in AUTH.values())

    def test_invalid(self, terminal: Terminal) -> None:
        """Every problem is listed on standard error, exit status 2, nothing on standard output."""
        Path("config.yaml").write_text("log: {level: loud}\nerasure: {enabled: true}\n")
        status, out, err = terminal.run("config", "validate")
        assert (status, out) == (2, "")
        first, *problems = err.splitlines()
        assert first == "The configuration has 2 problems:"
        assert [problem.split(":")[0].strip() for problem in problems] == ["log.level", "erasure.enabled"]

    def test_warnings(self, terminal: Terminal) -> None:
        """A warning goes to standard error and changes no status."""
        status, _, err = terminal.run("config", "validate", CALLFS_NONSENSE="1")
        assert status == 0
        assert err.startswith("Warning: the environment variable CALLFS_NONSENSE is unknown")


class TestShow:
    def test_sources(self, terminal: Terminal) -> None:
        """Each value is shown with where it came from."""
        Path("config.json").write_text('{"log": {"format": "console"}}')
        status, out, _ = terminal.run("config", "show", CALLFS_LOG__LEVEL="debug")
        assert status == 0
        assert '  level: "debug"  # environment CALLFS_LOG__LEVEL' in out
        assert f'  format: "console"  # {terminal.folder}/config.json' in out
        assert "  max_connections: 10000  # default" in out
        assert not any(secret in out for secret in AUTH.values())

    def test_invalid(self, terminal: Terminal) -> None:
        """What can't be used can't be shown: the problems are listed, exit status 2."""
        assert terminal.run("config", "show", CALLFS_LOG__LEVEL="loud")[0] == 2


class TestConfigOption:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("-c", "a.yaml", "config", "show"),
            ("config", "-c", "a.yaml", "show"),
            ("config", "show", "-c", "a.yaml"),
            ("config", "show", "--config", "a.yaml"),
            ("--config=a.yaml", "config", "show"),
            ("-c", "b.yaml", "config", "show", "-c", "a.yaml"),
        ],
    )
    def test_anywhere(self, terminal: Terminal, arguments: tuple[str, ...]) -> None:
        """The option counts before and after a command's name; the last one wins."""
        Path("a.yaml").write_text("log: {level: error}")
        Path("b.yaml").write_text("log: {level: warn}")
        assert '"error"' in terminal.run(*arguments)[1]

    def test_missing_file(self, terminal: Terminal) -> None:
        """A named file that isn't there is a wrong configuration."""
        status, _, err = terminal.run("-c", "nope.yaml", "config", "validate")
        assert status == 2
        assert f"no such file ({terminal.folder}/nope.yaml)" in err

    @pytest.mark.parametrize("command", list(COMMANDS))
    def test_every_command(self, command: str) -> None:
        """Every command takes the option after its name."""
        found = main.get_command(click.Context(main), command)
        assert found is not None
        assert any("--config" in parameter.opts for parameter in found.params)


class TestInit:
    def test_usable(self, terminal: Terminal) -> None:
        """What is written is valid as it is, has its data beside it, and is for its owner's eyes only."""
        status, out, _ = terminal.run("config", "init", "--directory", "a/b")
        assert (status, out) == (0, "Wrote a/b/config.yaml, with a key for the user admin in it.\n")
        assert stat.S_IMODE(os.stat("a/b/config.yaml").st_mode) == 0o600
        result = CliRunner().invoke(main, ["config", "show", "-c", "a/b/config.yaml"])
        assert result.exit_code == 0, result.stderr
        shown = yaml.safe_load(result.stdout)
        assert shown["backend"]["localfs_root_path"] == str(terminal.folder / "a/b/data")
        assert shown["metadata_store"]["sqlite_path"] == str(terminal.folder / "a/b/data/callfs.sqlite3")
        assert stat.S_IMODE(os.stat("a/b/data").st_mode) == 0o700

    def test_secrets_differ(self, terminal: Terminal) -> None:
        """Every secret of every configuration is another."""
        secrets: list[str] = []
        for name in ("a.yaml", "b.yml"):
            assert terminal.run("config", "init", "-c", name)[0] == 0
            auth = yaml.safe_load(Path(name).read_text())["auth"]
            secrets += [
                auth["api_key_users"]["admin"],
                auth["internal_proxy_secret"],
                auth["single_use_link_secret"],
            ]
        assert len(set(secrets)) == 6

    def test_data(self, terminal: Terminal) -> None:
        """The data goes where it is told."""
        assert terminal.run("config", "init", "--data", "elsewhere")[0] == 0
        tree = yaml.safe_load(Path("config.yaml").read_text())
        assert tree["backend"]["localfs_root_path"] == str(terminal.folder / "elsewhere")
        assert Path("elsewhere").is_dir()

    def test_never_overwrites(self, terminal: Terminal) -> None:
        """A configuration that is there stays."""
        Path("config.yaml").write_text("mine")
        status, _, err = terminal.run("config", "init")
        assert (status, err) == (1, "config.yaml is there already and stays as it is.\n")
        assert Path("config.yaml").read_text() == "mine"

    def test_impossible_place(self, terminal: Terminal) -> None:
        """A folder that can't be made is named, without a traceback."""
        Path("file").write_text("")
        status, _, err = terminal.run("config", "init", "--directory", "file/x")
        assert status == 1
        assert "file" in err

    @pytest.mark.parametrize("arguments", [("-c", "x.json"), ("-c", "x.yaml", "--directory", "d")])
    def test_usage(self, terminal: Terminal, arguments: tuple[str, ...]) -> None:
        """What makes no sense is wrong usage."""
        assert terminal.run("config", "init", *arguments)[0] == 2


class TestMain:
    def test_version(self, terminal: Terminal) -> None:
        """``--version`` says the version."""
        assert terminal.run("--version")[:2] == (0, f"callfs {callfs.__version__}\n")

    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_help(self, terminal: Terminal, option: str) -> None:
        """The help text lists every command and the exit statuses."""
        status, out, _ = terminal.run(option)
        assert status == 0
        assert all(f"  {command}" in out for command in COMMANDS)
        assert "Exit status" in out

    @pytest.mark.parametrize("arguments", [("nonsense",), ("--nonsense",), ("config", "nonsense"), ("config",)])
    def test_wrong_usage(self, terminal: Terminal, arguments: tuple[str, ...]) -> None:
        """Wrong usage has exit status 2."""
        assert terminal.run(*arguments)[0] == 2

    def test_version_is_cheap(self) -> None:
        """``--version`` and ``--help`` don't import Twisted."""
        code = (
            "import sys; from callfs.cli import main\n"
            "for option in ('--version', '--help'):\n"
            "    try: main([option])\n"
            "    except SystemExit: pass\n"
            "sys.exit('twisted' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
