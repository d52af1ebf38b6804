"""SIGKILL at any moment: what was acknowledged is there whole, what wasn't is old or new, nothing is wedged."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance.conftest import DaemonShare, StartDaemon, shown_on_failure
from tests.support.daemon import Daemon
from tests.support.http import Client

STEPS = [
    "blob.staged",
    "blob.written",
    "blob.fsynced",
    "blob.renamed",
    "blob.committed",
    "write.body_complete",
    "write.committed",
    "write.before_command",
    "write.after_command",
    "metadata.before_commit",
    "metadata.after_commit",
]
SIGKILLED = -9


def content_of(path: str, version: int) -> bytes:
    """What a path holds in a version: some size, some bytes, always the same."""
    rng = random.Random(f"{path} {version}")
    return rng.randbytes(rng.choice([0, 1, 700, 20_000, 150_000, 400_000]))


def assert_clean(daemon: Daemon) -> None:
    done = daemon.fsck("--deep")
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Writer:
    """Writes version after version to paths of its own and keeps count of what was acknowledged."""

    daemon: Daemon
    paths: list[str]
    tried: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)

    def run(self, enough: threading.Semaphore) -> None:
        """Write until the daemon is gone."""
        client = self.daemon.client(timeout_seconds=10)
        rng = random.Random(self.paths[0])
        try:
            while True:
                path = rng.choice(self.paths)
                self.tried[path] = self.tried.get(path, 0) + 1
                content = content_of(path, self.tried[path])
                body = [content[:5000], content[5000:]] if rng.random() < 0.5 else content
                if client.put(path, body).status not in (200, 201):
                    return
                self.acknowledged[path] = self.tried[path]
                enough.release()
        except (OSError, EOFError):
            pass
        finally:
            client.close()

    def verify(self, client: Client) -> None:
        """Every path has its acknowledged version, or the one version after it that was under way."""
        for path in self.paths:
            acknowledged, tried = self.acknowledged.get(path, 0), self.tried.get(path, 0)
            assert tried <= acknowledged + 1
            answer = client.get(path)
            if answer.status == 404:
                assert acknowledged == 0
                self.tried[path] = 0
                continue
            assert answer.status == 200
            held = [version for version in {acknowledged, tried} - {0} if content_of(path, version) == answer.body]
            assert held, f"{path} has {len(answer.body)} bytes that are neither version {acknowledged} nor {tried}"
            self.acknowledged[path] = self.tried[path] = max(held)


def test_staged_before_the_clock_was_set_back(start_daemon: StartDaemon) -> None:
    """
    A staged file of an earlier process is removed at the start, also when its time lies in the future. (Of these
    tests it is the one that starts fresh interpreters, as a supervisor does after a crash.)
    """
    daemon = start_daemon(fresh=True)
    daemon.client().stored("/f", b"content")
    daemon.kill()
    leftover = daemon.root / "staging" / daemon.blobs()[0].name
    leftover.write_bytes(b"half")
    os.utime(leftover, (2**32, 2**32))
    daemon.start()
    assert not leftover.exists()
    assert daemon.client().content("/f") == b"content"


def test_killed_under_writes(start_daemon: StartDaemon) -> None:
    """Killed again and again under concurrent writes: every acknowledged write is there, the rest is old or new."""
    daemon = start_daemon()
    writers = [Writer(daemon, [f"/w{number}/f{n}" for n in range(5)]) for number in range(4)]
    for round_number in range(5):
        enough = threading.Semaphore(0)
        threads = [threading.Thread(target=writer.run, args=(enough,)) for writer in writers]
        for thread in threads:
            thread.start()
        for _ in range(15 + 7 * round_number):
            assert enough.acquire(timeout=20), "the writers got no answers"
        daemon.kill()
        for thread in threads:
            thread.join(30)
        daemon.start()
        client = daemon.client()
        for writer in writers:
            writer.verify(client)
        assert client.put("/after", b"%d" % round_number).status in (200, 201)
        client.close()
    assert_clean(daemon)
    assert not list((daemon.root / "staging").iterdir())


def test_killed_under_moves(start_daemon: StartDaemon) -> None:
    """Killed while a tree moves back and forth: the tree is whole, at exactly one of its places."""
    daemon = start_daemon()
    client = daemon.client()
    for number in range(30):
        client.stored(f"/here/d{number % 3}/f{number}", b"%d" % number)
    for round_number in range(3):
        enough = threading.Semaphore(0)

        def move(enough: threading.Semaphore = enough) -> None:
            mover = daemon.client()
            try:
                while True:
                    mover.patch("/here", name="there")
                    enough.release()
                    mover.patch("/there", name="here")
            except (OSError, EOFError):
                mover.close()

        thread = threading.Thread(target=move)
        thread.start()
        for _ in range(3 + 5 * round_number):
            assert enough.acquire(timeout=20)
        daemon.kill()
        thread.join(30)
        daemon.start()
        client = daemon.client()
        (place,) = client.names("/")
        entries = client.directory(f"/{place}", recursive="true").json()["items"]
        assert len(entries) == 33
        assert client.content(f"/{place}/d1/f7") == b"7"
        if place == "there":
            assert client.patch("/there", name="here").status == 200
    assert_clean(daemon)


@pytest.fixture(scope="module")
def survivor_share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonShare]:
    """Keeps the daemon that is killed at every step."""
    share = DaemonShare(lambda: tmp_path_factory.mktemp("survivor"))
    yield share
    share.close()


@pytest.fixture
def survivor(survivor_share: DaemonShare, request: pytest.FixtureRequest) -> Daemon:
    """The same folders for every step: what one crash left behind must not hurt after the next."""
    daemon = survivor_share.daemon()
    shown_on_failure(request, daemon)
    return daemon


def start_failing(daemon: Daemon, step: str) -> None:
    """Start it so that it kills itself the next time it reaches the step after having become ready."""
    for count in range(1, 20):
        launcher = (sys.executable, "-m", "tests.support.failing_daemon", step, str(count))
        daemon.launch(launcher=launcher)
        if daemon.wait_ready():
            return
        assert daemon.wait_ended() == SIGKILLED, daemon.tail()
    raise AssertionError(f"{step} is reached again and again at the start")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("kind", "chunked"), [("new", False), ("replace", True)])
def test_killed_at_a_step(survivor: Daemon, step: str, kind: str, chunked: bool) -> None:
    """Killed at a step of a write, the old or the new content is there whole, and everything works again."""
    path = f"/{step}-{kind}-{chunked}"
    new = random.Random(path).randbytes(300_000)
    if kind == "replace":
        survivor.client().stored(path, b"old" * 1000)
    assert survivor.terminate() == 0
    start_failing(survivor, step)
    client = survivor.client()
    with client.connect() as wire:
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(new))}
        wire.send_request("PUT", f"/v1/files{path}", {**client.authorization(), **framing})
        wire.send_while_unanswered([b"%x\r\n%s\r\n0\r\n\r\n" % (len(new), new) if chunked else new])
        answered = wire.read_to_end()
    assert survivor.wait_ended() == SIGKILLED, f"{step} was never reached"
    survivor.start()
    client = survivor.client()
    answer = client.get(path)
    if answered.startswith(b"HTTP/1.1 20"):
        assert answer.body == new
    elif kind == "new":
        assert answer.status == 404 or (answer.status, answer.body) == (200, new)
    else:
        assert answer.status == 200
        assert answer.body in (b"old" * 1000, new)
    assert client.put(path, b"after").status in (200, 201)
    assert client.content(path) == b"after"
    assert_clean(survivor)


def test_nothing_staged_remains(survivor: Daemon) -> None:
    """After all those crashes no staged file is left."""
    survivor.restart()
    assert not list(Path(survivor.root / "staging").iterdir())
