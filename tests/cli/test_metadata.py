"""``callfs metadata export|import``: real processes, real stores of every kind, real daemons before and after."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from callfs.metadata.transfer import (
    CondemnedRecord,
    GarbageRecord,
    Header,
    InodeRecord,
    InstanceRecord,
    LinkRecord,
    Record,
    Writing,
)
from callfs.metadata.transfer_reading import Reading
from callfs.model import ROOT_INODE, Instance, Link, LocalPlacement, S3Placement
from tests.metadata.test_transfer import DIRECTORY, FILE, HEADER, RECORDS, lines
from tests.support.commands import NODE, Commands
from tests.support.daemon import Daemon, callfs
from tests.support.forking import child_environment, run
from tests.support.postgres import running
from tests.support.redis import RedisServer

FILES = 20_000
LINKS = 20_000
ODD_NAMES = ("*", "%", "_", "[a]", "'", '"', "A", "a", "a!", "a0", "é", "e\u0301", "007", "\u2028", "😀", "x" * 255)
STORE_ID = "5" * 32
CONTENT = b"the only copy"


def everything() -> list[Record]:
    """Records of a large store with something of every kind."""
    make = Commands()
    node_2 = LocalPlacement("node-2")
    inodes = [ROOT_INODE, *_files(make)]
    files = [inode for inode in inodes if not inode.is_directory]
    hashes = sorted(make.token_bytes(32) for _ in range(LINKS))
    links = [
        Link(
            token_hash=token_hash,
            inode_id=files[number % len(files)].id,
            created_by="bob",
            created_at=make.tick(),
            expires_at=make.tick(),
            used_at=make.tick() if number % 3 == 0 else None,
        )
        for number, token_hash in enumerate(hashes)
    ]
    places = (NODE, node_2, S3Placement())
    return [
        *(InodeRecord(inode=inode) for inode in sorted(inodes, key=lambda inode: inode.path.encode())),
        *(LinkRecord(link=link) for link in links),
        *(GarbageRecord(blob=make.blob(9, places[n % 3]), not_before_at=make.tick()) for n in range(1500)),
        *(CondemnedRecord(blob_id=make.blob().id, condemned_at=make.tick()) for _ in range(1500)),
        InstanceRecord(instance=Instance("node-1", "1" * 32, "http://one", make.tick())),
        InstanceRecord(instance=Instance("node-2", None, "http://two", make.tick())),
    ]


def _files(make: Commands) -> Iterator[Any]:
    """Directories, files in them, and files of every odd name."""
    for number in range(100):
        directory = msgspec.structs.replace(
            DIRECTORY, id=make.token_bytes(16).hex(), path=f"/dir {number:03}", generation=number, mtime=-number
        )
        yield directory
        names = [f"file {name}" for name in range(FILES // 100)] + (list(ODD_NAMES) if number == 7 else [])
        for name in names:
            yield msgspec.structs.replace(
                FILE,
                id=make.token_bytes(16).hex(),
                path=f"{directory.path}/{name}",
                parent_id=directory.id,
                mtime=make.tick(),
                content_id=make.token_bytes(16).hex(),
                content_type=None if number % 2 else "text/plain; charset=utf-8",
                blob=make.replicated_blob(NODE, S3Placement()) if number % 5 else make.blob(2**40),
            )


def read(path: Path) -> tuple[Header, list[Record]]:
    """A file's header and records."""
    reading = Reading()
    with path.open("rb") as file:
        records = [record for line in file if (record := reading.line(line)) is not None]
    reading.end()
    return reading.header, records


def sorted_records(records: Sequence[Record]) -> list[bytes]:
    """Records whose order doesn't matter."""
    return sorted(map(msgspec.json.encode, records))


class Shell:
    """Configurations for stores, and commands on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def configuration(self, name: str, **store: Any) -> Path:
        """A configuration file with this metadata store; without any, an SQLite file of that name."""
        given = store or {"sqlite_path": str(self.folder / f"{name}.sqlite3")}
        settings = {
            "auth": {
                "api_key_users": {"alice": "k" * 20},
                "internal_proxy_secret": "i" * 20,
                "single_use_link_secret": "s" * 20,
            },
            "backend": {"localfs_root_path": str(self.folder / "root")},
            "metadata_store": given,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    def run(self, config: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run ``callfs metadata`` and expect this exit status."""
        done = callfs("metadata", *arguments, "-c", str(config), folder=self.folder, timeout_seconds=240)
        assert done.returncode == status, done.stderr
        return done

    def written(self, name: str, given_lines: Sequence[bytes]) -> str:
        """A file with these lines."""
        path = self.folder / name
        path.write_bytes(b"".join(given_lines))
        return str(path)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """In an empty folder."""
    return Shell(tmp_path)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis server."""
    server = RedisServer().start()
    yield server
    server.stop()


@pytest.mark.timeout(600)
def test_round_the_circle(shell: Shell, redis: RedisServer) -> None:
    """20,000 files and as many links go through every kind of store and come back, record by record."""
    records = everything()
    writing = Writing(Header(store_id=STORE_ID, at=1))
    export = shell.written("0.jsonl", [writing.begin(), writing.records(records), writing.end()])
    with running() as postgres:
        stores = [
            shell.configuration("first"),
            shell.configuration("postgres", type="postgres", dsn=postgres.new_schema()),
            shell.configuration("redis", type="redis", redis_addr=redis.address),
            shell.configuration("last"),
        ]
        for number, config in enumerate(stores, 1):
            shell.run(config, "import", export)
            export = str(shell.folder / f"{number}.jsonl")
            shell.run(config, "export", export)
            header, found = read(Path(export))
            assert header.store_id == STORE_ID
            assert sorted_records(found) == sorted_records(records)
        # Where the order matters it has stayed: names by their bytes, garbage by its age in the queue.
        for kind in (InodeRecord, GarbageRecord, CondemnedRecord):
            assert [r for r in found if isinstance(r, kind)] == sorted(
                (r for r in records if isinstance(r, kind)), key=_key
            )


def _key(record: Record) -> Any:
    match record:
        case InodeRecord():
            return record.inode.path
        case CondemnedRecord():
            return record.blob_id
    return 0


class TestRefused:
    """What can't be imported, and what that leaves."""

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("cut", "cut off"),
            ("cut in a line", "line 4: it is cut off"),
            ("damaged", "line 3: it is damaged"),
            ("changed", "checksum"),
            ("newer", "version 9"),
            ("foreign", "isn't an export"),
            ("empty", "it is empty"),
        ],
    )
    def test_a_bad_file_leaves_the_store_untouched(self, shell: Shell, name: str, reason: str) -> None:
        """The file is read to its end before anything is begun: nothing has to be cleared, a good one goes in."""
        good = lines(RECORDS)
        bad = {
            "cut": good[:-1],
            "cut in a line": [*good[:3], good[3][:20]],
            "damaged": [*good[:2], b"{]\n", *good[3:]],
            "changed": [line.replace(b'"condemned_at":8', b'"condemned_at":9') for line in good],
            "newer": [good[0].replace(b'"version":2', b'"version":9'), *good[1:]],
            "foreign": [b"SQLite format 3\0\n"],
            "empty": [],
        }[name]
        config = shell.configuration("store")
        done = shell.run(config, "import", shell.written("bad.jsonl", bad), status=1)
        assert reason in done.stderr
        shell.run(config, "import", shell.written("good.jsonl", good))

    def test_a_store_that_is_not_empty(self, shell: Shell) -> None:
        """Nothing is ever imported over something, not even --again."""
        config = shell.configuration("store")
        export = shell.written("good.jsonl", lines(RECORDS))
        shell.run(config, "import", export)
        for options in ([], ["--again"]):
            assert "isn't empty" in shell.run(config, "import", *options, export, status=1).stderr
        out = str(shell.folder / "out.jsonl")
        shell.run(config, "export", out)
        assert read(Path(out))[1] == RECORDS

    def test_usage(self, shell: Shell) -> None:
        """A file that isn't there, an unknown option, a bad configuration: exit status 2."""
        config = shell.configuration("store")
        shell.run(config, "import", "nowhere.jsonl", status=2)
        shell.run(config, "export", "--fast", status=2)
        config.write_text("log: {level: loud}\n")
        shell.run(config, "export", status=2)

    def test_nothing_to_export(self, shell: Shell) -> None:
        """A database that doesn't exist is a failure, not an empty export, and isn't made."""
        done = shell.run(shell.configuration("store"), "export", "out.jsonl", status=1)
        assert "there is no database" in done.stderr
        assert [path.name for path in shell.folder.iterdir()] == ["store.yaml"]

    def test_a_file_that_is_there(self, shell: Shell) -> None:
        """An export never overwrites."""
        config = shell.configuration("store")
        shell.run(config, "import", shell.written("good.jsonl", lines(RECORDS)))
        target = shell.folder / "precious"
        target.write_text("mine")
        assert "is there already" in shell.run(config, "export", str(target), status=1).stderr
        assert target.read_text() == "mine"

    def test_a_full_disk(self, shell: Shell) -> None:
        """What can't be written is said, with exit status 1."""
        config = shell.configuration("store")
        shell.run(config, "import", shell.written("good.jsonl", lines(RECORDS)))
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "callfs", "-c", str(config), "metadata", "export"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=child_environment(),
                check=False,
                timeout=60,
            )
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr


class TestPipes:
    """Standard input and output."""

    def test_through_a_pipe(self, shell: Shell) -> None:
        """``-``, or no name, is standard output and input; -c counts before and after the command."""
        first, second = shell.configuration("first"), shell.configuration("second")
        shell.run(first, "import", shell.written("good.jsonl", lines(RECORDS)))
        program = f"{sys.executable} -m callfs"
        subprocess.run(
            f"{program} -c {first} metadata export - | {program} metadata -c {second} import",
            shell=True,
            check=True,
            env=child_environment(),
            timeout=60,
        )
        out = shell.folder / "out.jsonl"
        shell.run(second, "export", str(out))
        assert read(out) == (msgspec.structs.replace(HEADER, at=read(out)[0].at), RECORDS)

    def test_no_export_comes_through_the_pipe(self, shell: Shell) -> None:
        """When nothing readable comes, nothing is begun."""
        config = shell.configuration("store")
        assert "it is empty" in self.piped(config, []).stderr
        shell.run(config, "import", shell.written("good.jsonl", lines(RECORDS)))

    @staticmethod
    def piped(config: Path, given_lines: Sequence[bytes], *options: str) -> subprocess.CompletedProcess[str]:
        """Import lines from standard input."""
        command = [sys.executable, "-m", "callfs", "metadata", "import", "-c", str(config), *options]
        return run(command, given=b"".join(given_lines))


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with one file, stopped."""
    daemon = Daemon(tmp_path).start()
    try:
        daemon.client().stored("/kept", CONTENT)
        assert daemon.terminate() == 0
        yield daemon
    finally:
        daemon.close()


class TestDaemons:
    """Before and after."""

    def command(self, daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``callfs metadata`` on the daemon's store."""
        return callfs("metadata", *arguments, "-c", str(daemon.config_path), folder=daemon.folder)

    def test_moved(self, stopped: Daemon, redis: RedisServer) -> None:
        """A node goes on with its root folder on another store, and serves what it had."""
        assert self.command(stopped, "export", "all.jsonl").returncode == 0
        stopped.write_config({"metadata_store": {"type": "redis", "redis_addr": redis.address}})
        done = self.command(stopped, "import", "all.jsonl")
        assert done.returncode == 0, done.stderr
        assert re.match("Imported 2 files and directories, 0 links", done.stdout)
        client = stopped.start().client()
        assert client.content("/kept") == CONTENT
        client.stored("/new", b"n")

    def test_beside_a_running_daemon(self, stopped: Daemon) -> None:
        """SQLite is exported as of one moment while the daemon runs; nothing is imported into its store."""
        stopped.start()
        assert self.command(stopped, "export", "all.jsonl").returncode == 0
        assert len(read(stopped.folder / "all.jsonl")[1]) == 3
        done = self.command(stopped, "import", "all.jsonl")
        assert done.returncode == 1
        assert "another CallFS daemon is running" in done.stderr
        assert stopped.client().content("/kept") == CONTENT

    def test_unfinished(self, stopped: Daemon) -> None:
        """After an import that broke off no daemon starts, until it was made again, whole."""
        assert self.command(stopped, "export", "all.jsonl").returncode == 0
        header, records = read(stopped.folder / "all.jsonl")
        make = Commands()
        records[-1:-1] = [CondemnedRecord(blob_id=make.blob().id, condemned_at=1) for _ in range(1500)]
        stopped.database.rename(stopped.folder / "old.sqlite3")
        done = TestPipes.piped(stopped.config_path, lines(records, header)[:-1])
        assert done.returncode == 1
        assert "cut off" in done.stderr
        assert "--again" in done.stderr
        assert "not finished" in stopped.fsck().stderr
        status, said = stopped.refuses_to_start()
        assert status == 1
        assert "callfs metadata import --again" in said
        assert "not finished" in self.command(stopped, "import", "all.jsonl").stderr
        assert "not finished" in self.command(stopped, "export", "more.jsonl").stderr
        done = self.command(stopped, "import", "--again", "all.jsonl")
        assert done.returncode == 0, done.stderr
        assert stopped.start().client().content("/kept") == CONTENT
