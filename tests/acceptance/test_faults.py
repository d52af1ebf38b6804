"""Faults around the daemon: full and read-only disks, a locked, lost or foreign database, wrong set-ups."""

from __future__ import annotations

import hashlib
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import StartDaemon
from tests.support.daemon import Daemon, callfs
from tests.support.mounts import SmallDisk
from tests.support.waiting import eventually, stays

MIB = 1 << 20

MakeDisk = Callable[[int], SmallDisk]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Makes small disks of their own."""
    disks: list[SmallDisk] = []

    def make(size_bytes: int) -> SmallDisk:
        folder = tmp_path / f"disk-{len(disks)}"
        folder.mkdir()
        disks.append(SmallDisk(folder, size_bytes))
        return disks[-1]

    yield make
    for disk in disks:
        disk.close()


def kept_bytes(daemon: Daemon) -> dict[str, str]:
    """Each file that holds stored bytes, with its digest."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in daemon.blobs()}


class TestFullDisk:
    @pytest.mark.parametrize("chunked", [False, True])
    def test_upload(self, start_daemon: StartDaemon, make_disk: MakeDisk, chunked: bool) -> None:
        """On a full disk an upload is 507 and nothing of it visible, reads go on, and a delete makes room again."""
        disk = make_disk(12 * MIB)
        root = {"localfs_root_path": str(disk.folder / "root")}
        settings = {"server": {"min_free_bytes": 1}, "backend": root}
        alice = start_daemon(settings, wrapper=disk.wrapper).client()
        alice.stored("/old", b"o" * 4 * MIB)
        large = [b"x" * MIB] * 10 if chunked else b"x" * 10 * MIB
        alice.put("/large", large).refused(507, "INSUFFICIENT_STORAGE")
        alice.put("/old", large).refused(507, "INSUFFICIENT_STORAGE")
        assert alice.names("/") == ["old"]
        assert alice.content("/old") == b"o" * 4 * MIB
        eventually(lambda: disk.free_bytes() > 7 * MIB, what="the room of the broken uploads")
        assert alice.put("/small", b"x").status == 201
        assert alice.delete("/old").status == 204
        eventually(lambda: disk.free_bytes() > 11 * MIB, what="the room of the deleted file")
        assert alice.put("/large", large).status == 201

    def test_disk_fills_up_beside_it(self, start_daemon: StartDaemon, make_disk: MakeDisk) -> None:
        """When somebody else fills the disk during an upload, it is 507; when room is back all works again."""
        disk = make_disk(12 * MIB)
        root = {"localfs_root_path": str(disk.folder / "root")}
        settings = {"server": {"min_free_bytes": 1}, "backend": root}
        alice = start_daemon(settings, wrapper=disk.wrapper).client()

        def pieces() -> Iterator[bytes]:
            yield b"x" * MIB
            disk.fill()
            for _ in range(8):
                yield b"x" * MIB

        alice.put("/f", pieces()).refused(507, "INSUFFICIENT_STORAGE")
        assert alice.names("/") == []
        # What the broken upload had written before the disk was full is free again.
        disk.fill()
        alice.put("/g", b"x").refused(507, "INSUFFICIENT_STORAGE")
        disk.free()
        assert alice.put("/f", b"x" * MIB).status == 201

    def test_metadata_too(self, start_daemon: StartDaemon, make_disk: MakeDisk) -> None:
        """When the metadata's disk is full, changes are refused, reads go on, and all works again with room."""
        disk = make_disk(12 * MIB)
        database = {"sqlite_path": str(disk.folder / "callfs.sqlite3")}
        alice = start_daemon({"metadata_store": database}, wrapper=disk.wrapper).client()
        alice.stored("/old", b"old")
        disk.fill()

        def refused(number: int) -> bool:
            answer = alice.post(f"/{'n' * 200}{number}/")
            assert answer.status in (201, 503, 507), answer
            return answer.status != 201

        made = next(number for number in range(5000) if refused(number))
        assert alice.content("/old") == b"old"
        assert len(alice.names("/")) == made + 1
        disk.free()
        eventually(lambda: alice.put("/old", b"new").status == 200, what="a write that works")
        assert alice.content("/old") == b"new"

    def test_guard(self, start_daemon: StartDaemon) -> None:
        """Uploads get 507 before the disk falls below min_free_bytes; reads and deletes go on."""
        daemon = start_daemon()
        daemon.client().stored("/old", b"old")
        daemon.write_config({"server": {"min_free_bytes": "1048576GiB"}})
        daemon.restart()
        alice = daemon.client()
        alice.put("/f", b"x").refused(507, "INSUFFICIENT_STORAGE")
        alice.put("/f", [b"x"]).refused(507, "INSUFFICIENT_STORAGE")
        assert alice.content("/old") == b"old"
        assert alice.patch("/old", name="older").status == 200
        assert alice.delete("/older").status == 204

    def test_read_only(self, start_daemon: StartDaemon, make_disk: MakeDisk) -> None:
        """A root folder that can't be written is a clear refusal to start."""
        disk = make_disk(12 * MIB)
        root = str(disk.folder / "root")
        settings = {"server": {"min_free_bytes": 1}, "backend": {"localfs_root_path": root}}
        daemon = start_daemon(settings, wrapper=disk.wrapper)
        daemon.client().stored("/f")
        assert daemon.terminate() == 0
        disk.make_read_only()
        status, said = daemon.refuses_to_start()
        assert status == 1
        assert root in said
        assert "Traceback" not in said


class TestDatabase:
    def test_locked(self, start_daemon: StartDaemon) -> None:
        """While another process locks the database, changes are 503 in time, reads go on; then all works again."""
        daemon = start_daemon({"server": {"metadata_op_timeout": "1s"}})
        alice = daemon.client()
        alice.stored("/f", b"old")
        other = sqlite3.connect(daemon.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            began = time.monotonic()
            answer = alice.put("/f", b"new")
            assert time.monotonic() - began < 4
            answer.refused(503, "METADATA_UNAVAILABLE")
            assert int(answer["Retry-After"]) >= 1
            alice.delete("/f").refused(503, "METADATA_UNAVAILABLE")
            alice.post("/d/").refused(503, "METADATA_UNAVAILABLE")
            assert alice.content("/f") == b"old"
            assert alice.names("/") == ["f"]
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert stays(lambda: alice.content("/f") == b"old", for_seconds=0.3)
        assert alice.put("/f", b"newer").status == 200
        assert alice.content("/f") == b"newer"

    def test_short_lock(self, start_daemon: StartDaemon) -> None:
        """A lock that ends within metadata_op_timeout costs nothing but the wait."""
        daemon = start_daemon({"server": {"metadata_op_timeout": "10s"}})
        alice = daemon.client()
        other = sqlite3.connect(daemon.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with alice.connect() as wire:
            wire.send_request("PUT", "/v1/files/f", {**alice.authorization(), "Content-Length": "5"})
            wire.send(b"hello")
            assert not wire.readable(0.5)
            other.execute("ROLLBACK")
            other.close()
            assert wire.read_answer().status == 201

    @pytest.mark.parametrize("how", ["missing", "empty", "garbage", "cut", "foreign"])
    def test_unusable(self, start_daemon: StartDaemon, how: str) -> None:
        """A missing, empty, corrupt or foreign database beside an old root refuses to start; no byte is lost."""
        daemon = start_daemon()
        for number in range(5):
            daemon.client().stored(f"/f{number}", b"%d" % number * 10_000)
        assert daemon.terminate() == 0
        foreign = start_daemon()
        foreign.client().stored("/other")
        assert foreign.terminate() == 0
        kept = kept_bytes(daemon)
        assert len(kept) == 5
        backup = daemon.database.read_bytes()
        for file in daemon.folder.glob(daemon.database.name + "*"):
            file.unlink()
        replacements = {
            "empty": b"",
            "garbage": b"this is no database" * 1000,
            "cut": backup[: len(backup) // 2],
            "foreign": foreign.database.read_bytes(),
        }
        if how in replacements:
            daemon.database.write_bytes(replacements[how])
        status, said = daemon.refuses_to_start()
        assert status == 1
        assert str(daemon.database) in said or str(daemon.root) in said
        assert "Traceback" not in said
        assert kept_bytes(daemon) == kept
        for file in daemon.folder.glob(daemon.database.name + "*"):
            file.unlink()
        daemon.database.write_bytes(backup)
        daemon.start()
        assert daemon.client().content("/f3") == b"3" * 10_000
        assert kept_bytes(daemon) == kept

    def test_restored(self, start_daemon: StartDaemon) -> None:
        """A database restored from a backup costs no byte of what was stored since."""
        daemon = start_daemon()
        daemon.client().stored("/f", b"before")
        assert daemon.terminate() == 0
        backup = daemon.database.read_bytes()
        daemon.start()
        for number in range(5):
            daemon.client().stored(f"/g{number}", b"%d" % number)
        assert daemon.terminate() == 0
        kept = kept_bytes(daemon)
        assert len(kept) == 6
        for file in daemon.folder.glob(daemon.database.name + "*"):
            file.unlink()
        daemon.database.write_bytes(backup)
        daemon.start()
        assert daemon.client().names("/") == ["f"]
        assert daemon.client().content("/f") == b"before"
        assert stays(lambda: kept_bytes(daemon) == kept, for_seconds=2)

    def test_foreign_root(self, start_daemon: StartDaemon) -> None:
        """A root folder of another store refuses to start."""
        daemon, foreign = start_daemon(), start_daemon()
        daemon.client().stored("/f")
        foreign.client().stored("/g", b"foreign")
        assert daemon.terminate() == foreign.terminate() == 0
        kept = kept_bytes(foreign)
        daemon.write_config({"backend": {"localfs_root_path": str(foreign.root)}})
        status, said = daemon.refuses_to_start()
        assert status == 1
        assert str(foreign.root) in said
        assert kept_bytes(foreign) == kept
        foreign.start()
        assert foreign.client().content("/g") == b"foreign"


class TestTwoDaemons:
    @pytest.mark.parametrize("shared", ["both", "root", "database"])
    def test_on_the_same_folders(self, start_daemon: StartDaemon, shared: str) -> None:
        """A second daemon on the same root or database refuses to start; the first isn't disturbed."""
        first = start_daemon()
        alice = first.client()
        alice.stored("/f", b"x")
        settings: dict[str, Any] = {}
        if shared in ("both", "root"):
            settings["backend"] = {"localfs_root_path": str(first.root)}
        if shared in ("both", "database"):
            settings["metadata_store"] = {"sqlite_path": str(first.database)}
        second = start_daemon(settings, start=False)
        status, said = second.refuses_to_start()
        assert status == 1
        assert str(first.root) in said or str(first.database) in said
        assert "Traceback" not in said
        assert alice.content("/f") == b"x"
        assert alice.put("/f", b"y").status == 200

    def test_port_in_use(self, start_daemon: StartDaemon) -> None:
        """A port in use is a clear refusal to start, for the API and for the metrics."""
        daemon = start_daemon(start=False)
        for port in (daemon.port, daemon.metrics_port):
            with socket.socket() as taken:
                taken.bind(("127.0.0.1", port))
                taken.listen()
                status, said = daemon.refuses_to_start()
                assert status == 1
                assert str(port) in said
                assert "Traceback" not in said
        daemon.start()

    @pytest.mark.parametrize(
        "endpoint", ["tcp:0:bogus=1", "systemd:domain=INET:index=7", "foo:bar=1", "unix:address="]
    )
    def test_endpoint_that_cannot_be_used(self, start_daemon: StartDaemon, endpoint: str) -> None:
        """So is an endpoint that Twisted can make nothing of."""
        status, said = start_daemon({"server": {"listen_addr": endpoint}}, start=False).refuses_to_start()
        assert status == 1
        assert endpoint in said
        assert "Correct server.listen_addr" in said
        assert "Traceback" not in said


class TestConfiguration:
    def refused(self, daemon: Daemon) -> str:
        status, said = daemon.refuses_to_start()
        assert status == 2
        assert "Traceback" not in said
        for secret in daemon.secrets():
            assert secret not in said
        return said

    def test_missing_file(self, tmp_path: Path) -> None:
        """A configuration file that isn't there is exit status 2, with its path."""
        done = callfs("server", "-c", str(tmp_path / "nowhere.yaml"), folder=tmp_path)
        assert done.returncode == 2
        assert str(tmp_path / "nowhere.yaml") in done.stderr + done.stdout

    @pytest.mark.parametrize("content", ["server: [", "- a\n- b\n", "\x00", "server: {listen_addr: [1]}\n", "7"])
    def test_no_configuration(self, tmp_path: Path, content: str) -> None:
        """A file that is no configuration is exit status 2, without a traceback."""
        (tmp_path / "config.yaml").write_text(content)
        done = callfs("server", "-c", str(tmp_path / "config.yaml"), folder=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr + done.stdout

    def test_missing_certificate(self, start_daemon: StartDaemon) -> None:
        """A certificate that isn't there is exit status 2, with its key."""
        files = {"cert_file": "/nowhere/cert.pem", "key_file": "/nowhere/key.pem"}
        said = self.refused(start_daemon({"server": {"protocol": "https", **files}}, start=False))
        assert "server.cert_file" in said or "server.protocol" in said

    def test_every_problem_at_once(self, start_daemon: StartDaemon) -> None:
        """Every problem is reported with its full key, an unknown key with the nearest known one."""
        settings = {
            "server": {"read_timeuot": "3s", "max_upload_bytes": "many"},
            "log": {"level": "loud"},
            "auth": {"single_use_link_secret": "short"},
            "erasure": {"data_shards": 0},
        }
        said = self.refused(start_daemon(settings, start=False))
        for key in ("server.read_timeuot", "server.max_upload_bytes", "log.level", "auth.single_use_link_secret"):
            assert key in said
        assert "read_timeout" in said
        assert "erasure.data_shards" in said

    @pytest.mark.parametrize(
        ("section", "values"),
        [
            ("auth", {"api_key_users": {}}),
            ("auth", {"api_key_users": {"root": "k" * 20}}),
            ("auth", {"api_key_users": {"dave": "default-api-key"}}),
            ("auth", {"internal_proxy_secret": "change-me-internal-secret"}),
            ("auth", {"single_use_link_secret": "change-me-link-secret"}),
            ("backend", {"default_backend": "tape"}),
            ("instance_discovery", {"instance_id": "no spaces allowed"}),
        ],
    )
    def test_refused_values(self, start_daemon: StartDaemon, section: str, values: dict[str, Any]) -> None:
        """What the configuration page refuses is refused, with its key."""
        daemon = start_daemon(start=False)
        daemon.settings[section] = {**daemon.settings[section], **values}
        daemon.write_config()
        assert f"{section}.{next(iter(values))}" in self.refused(daemon)

    @pytest.mark.parametrize(
        ("section", "values"),
        [
            ("dlm", {"type": "raft"}),
            ("erasure", {"enabled": True}),
            ("ha", {"replication_enabled": True, "replica_backend": "s3"}),
            ("server", {"enable_quic": True}),
        ],
    )
    def test_never_ignored(self, start_daemon: StartDaemon, section: str, values: dict[str, Any]) -> None:
        """An option whose part isn't there is refused with its key, never ignored."""
        said = self.refused(start_daemon({section: values}, start=False))
        assert any(f"{section}.{key}" in said for key in values)

    def test_root_is_created(self, start_daemon: StartDaemon, tmp_path: Path) -> None:
        """A root folder that is missing is created."""
        root = tmp_path / "new-root"
        daemon = start_daemon({"backend": {"localfs_root_path": str(root)}})
        daemon.client().stored("/f")
        assert root.is_dir()

    def test_root_is_a_file(self, start_daemon: StartDaemon, tmp_path: Path) -> None:
        """A root folder that is a file is a clear refusal."""
        path = tmp_path / "file"
        path.write_text("not a folder")
        status, said = start_daemon({"backend": {"localfs_root_path": str(path)}}, start=False).refuses_to_start()
        assert status in (1, 2)
        assert str(path) in said
        assert "Traceback" not in said
        assert path.read_text() == "not a folder"

    def test_moved_folders(self, start_daemon: StartDaemon, tmp_path: Path) -> None:
        """Root and database, moved together to another place, still belong together."""
        daemon = start_daemon()
        daemon.client().stored("/f", b"x")
        assert daemon.terminate() == 0
        moved = Path(shutil.move(daemon.root, tmp_path / "moved-root"))
        daemon.write_config({"backend": {"localfs_root_path": str(moved)}})
        daemon.start()
        assert daemon.client().content("/f") == b"x"


class TestLostFolder:
    def test_while_running(self, start_daemon: StartDaemon) -> None:
        """While its root folder is away, or another is in its place, the node isn't ready and keeps all it has."""
        daemon = start_daemon()
        alice = daemon.client()
        alice.stored("/kept", b"content")
        away = daemon.root.with_name("away")
        daemon.root.rename(away)
        for empty in (False, True):
            if empty:
                daemon.root.mkdir()
            health = daemon.health()
            assert health is not None
            assert health.status == 503
            assert health.json()["parts"]["metadata"]["ok"] is True
            assert health.json()["parts"]["backends"]["localfs"]["ok"] is False
            assert str(daemon.root) not in health.body.decode()
            assert alice.put("/lost", b"x").status == 500
            assert alice.get("/kept").status == 503
            assert alice.names("/") == ["kept"]
        daemon.root.rmdir()
        away.rename(daemon.root)
        health = daemon.health()
        assert health is not None
        assert health.status == 200
        assert alice.content("/kept") == b"content"
        assert alice.put("/new", b"x").status == 201
