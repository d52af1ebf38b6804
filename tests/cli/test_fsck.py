"""``callfs fsck`` where a folder isn't what it seems: real folders, a real daemon before and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

CONTENT = b"the only copy"


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


def unmounted(daemon: Daemon) -> Path:
    """Have an empty folder where the disk was; where the disk is."""
    disk = daemon.root.with_name("disk")
    daemon.root.rename(disk)
    daemon.root.mkdir()
    return disk


class TestWrongFolder:
    @pytest.mark.parametrize("options", [[], ["--deep"], ["--repair"], ["--remove-lost"]])
    def test_unmounted(self, stopped: Daemon, options: list[str]) -> None:
        """With an empty folder where the disk was nothing is judged, nothing removed, and the disk is asked for."""
        disk = unmounted(stopped)
        done = stopped.fsck(*options)
        assert done.returncode == 1
        assert "Mount the disk" in done.stderr
        shutil.rmtree(stopped.root)
        disk.rename(stopped.root)
        assert stopped.fsck("--deep").returncode == 0
        assert stopped.start().client().content("/kept") == CONTENT

    def test_swapped(self, stopped: Daemon) -> None:
        """A folder with an identity that isn't the registered one is refused, although the store is the same."""
        identity = stopped.root / "identity.json"
        identity.write_text(json.dumps(json.loads(identity.read_text()) | {"root_id": "5" * 32}))
        for options in ([], ["--remove-lost"], ["--adopt-root"]):
            done = stopped.fsck(*options)
            assert done.returncode == 1
            assert "5" * 32 in done.stderr


def test_node_without_a_disk(tmp_path: Path) -> None:
    """A node that has no local disk is told that there is nothing to be checked there, and where to go."""
    node = Daemon(tmp_path, {"backend": {"localfs_root_path": "", "default_backend": "s3", "s3_bucket_name": "b"}})
    checked = node.fsck("--backend", "localfs")
    assert checked.returncode == 1
    assert "backend.localfs_root_path is empty" in checked.stderr
    assert "Traceback" not in checked.stderr


class TestAdoption:
    def test_lost_disk(self, stopped: Daemon) -> None:
        """A new folder is adopted in a lost disk's place: what was lost is reported, and removed when told to."""
        unmounted(stopped)
        done = stopped.fsck("--adopt-root")
        assert done.returncode == 1
        assert "missing_blob: /kept" in done.stdout
        assert stopped.fsck("--remove-lost").returncode == 0
        assert stopped.start().client().get("/kept").status == 404

    def test_crash_before_the_registration(self, stopped: Daemon) -> None:
        """A folder that was marked but couldn't be registered any more is adopted by the next call."""
        disk = unmounted(stopped)
        mark = json.loads((disk / "identity.json").read_text()) | {"root_id": "5" * 32}
        (stopped.root / "identity.json").write_text(json.dumps(mark))
        assert stopped.refuses_to_start()[0] == 1
        done = stopped.fsck("--adopt-root")
        assert "is this node's now" in done.stdout
        stopped.start()


class TestSetAside:
    def test_named(self, stopped: Daemon) -> None:
        """What is set aside and has a name isn't lost: it isn't removed as such, and --repair puts it back."""
        blob = stopped.blob_of(CONTENT)
        blob.rename(stopped.root / "aside" / blob.name)
        for options in ([], ["--remove-lost"]):
            done = stopped.fsck(*options)
            assert done.returncode == 1
            assert "set_aside_blob: /kept" in done.stdout
        assert stopped.fsck("--repair").returncode == 0
        assert stopped.fsck("--deep").returncode == 0
        assert stopped.start().client().content("/kept") == CONTENT
