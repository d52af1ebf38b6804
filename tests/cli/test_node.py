"""``callfs node`` and ``callfs replication``: over real HTTP, with several nodes in one process behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from callfs.cli import main
from callfs.cli.node import MOST_PASSES
from callfs.cli.progress import LINE_SECONDS, shown
from callfs.metadata.commands import PostponeReplication
from tests.cli.servers import Asked, Behaviour, played, refusal
from tests.support.engine import NODE, started
from tests.support.nodes import S3, SECOND, THIRD
from tests.support.nodesite import API_KEY, SECRET, NodeSiteCase

FILES = 40


def configuration(folder: Path, **sections: Any) -> Path:
    """A configuration file with these sections."""
    path = folder / "callfs.yaml"
    auth = {
        "api_key_users": {"alice": API_KEY},
        "internal_proxy_secret": SECRET,
        "single_use_link_secret": "link-secret-0123456789",
    }
    path.write_text(yaml.safe_dump({"auth": auth, "server": {"protocol": "http"}, **sections}))
    return path


def run(config: Path, *arguments: str) -> tuple[int, str, str]:
    """Run ``callfs``: its exit status, standard output and standard error."""
    result = CliRunner().invoke(main, [*arguments, "-c", str(config)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


class CommandCase(NodeSiteCase):
    """Commands that talk to the first of three nodes."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.config = configuration(self.folder, server={"listen_addr": "127.0.0.1:1", "protocol": "http"})

    def run_command(self, *arguments: str) -> Deferred[tuple[int, str, str]]:
        """Run ``callfs`` against the site, in a thread."""
        return deferToThread(run, self.config, *arguments, "--url", self.url)


class TestDrain(CommandCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        for number in range(FILES):
            await self.put_at(SECOND, f"/d/{number}", b"x" * 1024)

    async def test_to_s3(self) -> None:
        """Everything goes; the command says how much, and that nothing is left."""
        status, out, err = await self.run_command("node", "drain", SECOND, "--to", "s3")
        assert (status, err) == (0, "")
        assert out.splitlines() == [
            f"Relocated {FILES} copies, 40.0 KiB of it copied.",
            f"Nothing is left on {SECOND}.",
        ]
        assert await self.store.list_blobs("", 1000, SECOND) == []
        assert await self.places_of("/d/7") == [S3]
        assert SECOND in [instance.id for instance in await self.store.instances()]

    async def test_new_files_meanwhile(self) -> None:
        """What is newly written to the node while it is drained goes, too, also what comes at the very end."""
        late: list[Deferred[Any]] = []

        def write(point: str) -> None:
            if point == "relocate.switched" and len(late) < FILES + 10:
                late.append(started(self.put_at(SECOND, f"/late/{len(late)}")))

        self.at_point = write
        status, out, err = await self.run_command("node", "drain", SECOND, "--to", THIRD)
        assert (status, err) == (0, "")
        assert out.splitlines()[1] == f"Nothing is left on {SECOND}."
        assert len(late) == FILES + 10
        assert await self.store.list_blobs("", 1000, SECOND) == []
        for number in range(len(late)):
            assert await self.read_at(NODE, f"/late/{number}") == b"content"

    async def test_twice(self) -> None:
        """A node that holds nothing is drained at once."""
        await self.run_command("node", "drain", SECOND, "--to", THIRD)
        assert await self.places_of("/d/7") == [self.on(THIRD)]
        status, out, _ = await self.run_command("node", "drain", SECOND, "--to", THIRD)
        assert (status, out.splitlines()[0]) == (0, "Relocated 0 copies, 0 B of it copied.")

    async def test_forget(self) -> None:
        """Drained, and then not known any more."""
        status, out, _ = await self.run_command("node", "drain", SECOND, "--forget")
        assert status == 0
        assert f"{SECOND} is forgotten. Blobs that were still to be deleted on its disk: {FILES}." in out
        assert [instance.id for instance in await self.store.instances()] == [NODE, THIRD]

    async def test_something_stays(self) -> None:
        """What couldn't be moved is listed with its reason; status 1, and the node isn't forgotten."""
        self.network.down.add(SECOND)
        status, out, err = await self.run_command("node", "drain", SECOND, "--to", "s3", "--forget")
        assert status == 1
        listed = [line for line in out.splitlines() if line.startswith("/d/")]
        assert len(listed) == FILES
        assert all(": " in line for line in listed)
        assert f"still on {SECOND}: {FILES} copies." in err
        assert SECOND in [instance.id for instance in await self.store.instances()]
        self.network.down.clear()
        assert (await self.run_command("node", "drain", SECOND, "--to", "s3"))[0] == 0

    async def test_mistyped(self) -> None:
        """An unknown node or target changes nothing and says what is known."""
        status, _, err = await self.run_command("node", "drain", "node-9")
        assert status == 1
        assert "there is no node 'node-9'; known are node-1, node-2, node-3" in err
        status, _, err = await self.run_command("node", "drain", SECOND, "--to", "S3")
        assert status == 1
        assert "'S3' isn't another known instance" in err
        assert len(await self.store.list_blobs("", 1000, SECOND)) == FILES

    async def test_forget_a_node_that_runs(self) -> None:
        """Refused, with what is to be done, while its last sign of life is young; ``--force`` overrules that."""
        await self.run_command("node", "drain", SECOND, "--to", "s3")
        await self.register(SECOND, "1" * 32, silent_seconds=3.0)
        for command in (("drain", SECOND, "--forget"), ("forget", SECOND)):
            status, _, err = await self.run_command("node", *command)
            assert (status, "gave a sign of life 3 s ago" in err) == (1, True)
        assert SECOND in [instance.id for instance in await self.store.instances()]
        assert (await self.run_command("node", "forget", SECOND, "--force"))[0] == 0
        assert SECOND not in [instance.id for instance in await self.store.instances()]

    async def test_forget_alone(self) -> None:
        """Refused while files have copies there, or for the node that is asked."""
        status, _, err = await self.run_command("node", "forget", SECOND)
        assert (status, "callfs node forget:" in err) == (1, True)
        status, _, err = await self.run_command("node", "forget", NODE)
        assert (status, "can't forget itself" in err) == (1, True)


class TestReplication(CommandCase):
    options = {"replica_backend": "s3"}

    async def test_nothing_waits(self) -> None:
        """Said so."""
        status, out, _ = await self.run_command("replication", "status")
        assert (status, out) == (0, "Second copies go to s3.\nNothing waits.\n")

    async def test_waiting(self) -> None:
        """A table, or JSON; status 1 as soon as a copy couldn't be made."""
        written = await self.put_at(NODE, "/a")
        await self.put_at(SECOND, "/b")
        status, out, _ = await self.run_command("replication", "status")
        assert status == 0
        _, head, first, second = out.splitlines()
        assert head.split() == ["NODE", "WAITING", "FAILING", "OLDEST"]
        assert (first.split()[:3], second.split()[:3]) == ([NODE, "1", "0"], [SECOND, "1", "0"])
        assert written.blob is not None
        await self.store.apply(PostponeReplication(at=self.now(), blob_id=written.blob.id, due_at=self.now()))
        status, out, _ = await self.run_command("replication", "status", "--json")
        assert status == 1
        assert [each["failing"] for each in json.loads(out)["backlog"]] == [1, 0]

    async def test_queue_missing(self) -> None:
        """A dry run counts; the other queues; both look through all files."""
        self.nodes[NODE] = self.make_node(NODE, settings=self.settings(NODE, replica_backend=None))
        for number in range(3):
            await self.put_at(NODE, f"/d/{number}")
        status, out, _ = await self.run_command("replication", "queue-missing", "--dry-run")
        assert (status, out) == (1, "3 files, 3 without their second copy, 0 of these queued now.\n")
        assert list(await self.store.replication_backlog()) == []
        status, out, _ = await self.run_command("replication", "queue-missing")
        assert (status, out) == (0, "3 files, 3 without their second copy, 3 of these queued now.\n")
        (backlog,) = await self.store.replication_backlog()
        assert backlog.waiting == 3


def batch(moved: int, after: str | None = None, failed: int = 0, skipped: int = 0) -> dict[str, Any]:
    """What a batch answers."""
    failures = [{"path": f"/{number}", "reason": "no room"} for number in range(failed)]
    return {"moved": moved, "bytes": 10 * moved, "skipped": skipped, "failed": failures, "after": after}


class TestTheCommandsOwnPart:
    """What the command does with a daemon's answers."""

    def drained(self, tmp_path: Path, behaviour: Behaviour) -> tuple[int, str, str, list[Asked]]:
        """Drain a node at a daemon that does what the test says; the requests for batches."""
        with played(behaviour) as daemon:
            done = run(configuration(tmp_path), "node", "drain", "n2", "--url", daemon.url)
        return *done, [asked for asked in daemon.asked if asked.method == "POST"]

    def test_batches_and_passes(self, tmp_path: Path) -> None:
        """Each batch begins where the last one ended; passes go on until one finds nothing."""
        answers = iter([batch(4, "b"), batch(4, "d"), batch(1), batch(0, skipped=1), batch(0)])
        status, out, _, posts = self.drained(
            tmp_path, lambda asked: next(answers) if asked.method == "POST" else {"copies": 9, "bytes": 0}
        )
        assert status == 0
        assert [post.body["after"] for post in posts] == ["", "b", "d", "", ""]
        assert out.startswith("Relocated 9 copies, 90 B of it copied.\n")

    def test_failures_are_tried_again_as_long_as_something_moves(self, tmp_path: Path) -> None:
        """What fails is tried in the next pass, and the last pass's failures count."""
        answers = iter([batch(3, failed=2), batch(1, failed=1), batch(0, failed=1)])
        status, out, err, posts = self.drained(
            tmp_path, lambda asked: next(answers) if asked.method == "POST" else {"copies": 5, "bytes": 0}
        )
        assert (status, len(posts)) == (1, 3)
        assert out.splitlines() == ["Relocated 4 copies, 40 B of it copied.", "/0: no room"]
        assert "still on n2: 1 copy." in err

    def test_an_interruption(self, tmp_path: Path) -> None:
        """It says how far it came, and how to go on."""
        answers = iter([batch(4, "b")])

        def behaviour(asked: Asked) -> object:
            if asked.method == "GET":
                return {"copies": 9, "bytes": 0}
            for answer in answers:
                return answer
            raise refusal(503, "METADATA_UNAVAILABLE", "the metadata store doesn't answer")

        status, out, err, _ = self.drained(tmp_path, behaviour)
        assert (status, out) == (1, "")
        assert "the metadata store doesn't answer. Relocated 4 copies; drain again to go on" in err

    def test_a_node_that_fills_again(self, tmp_path: Path) -> None:
        """A node that gets new files all the time isn't drained for ever."""
        status, _, err, posts = self.drained(
            tmp_path, lambda asked: batch(1) if asked.method == "POST" else {"copies": 1, "bytes": 0}
        )
        assert (status, len(posts)) == (1, MOST_PASSES)
        assert "n2 still gets new files" in err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("node", "drain"),
            ("node", "drain", "n2", "n3"),
            ("node", "drain", "n2", "--to"),
            ("node", "forget"),
            ("node", "burn", "n2"),
            ("replication", "status", "now"),
            ("replication", "queue-missing", "--jason"),
        ],
    )
    def test_wrong_usage(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        """Status 2."""
        assert run(configuration(tmp_path), *arguments)[0] == 2

    def test_no_daemon(self, tmp_path: Path) -> None:
        """Status 1, and the daemon's URL is named."""
        config = configuration(tmp_path, server={"listen_addr": "127.0.0.1:1", "protocol": "http"})
        for arguments in (("node", "drain", "n2"), ("replication", "status"), ("replication", "queue-missing")):
            status, _, err = run(config, *arguments)
            assert status == 1
            assert err.startswith(
                f"callfs {' '.join(arguments[:2])}: the daemon at http://127.0.0.1:1 can't be asked"
            )


class TestProgress:
    def test_lines(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Where nobody watches a bar there is a line every few seconds, never more of them than that."""
        now = [0.0]
        with shown("Draining", 10, lambda: now[0]) as progress:
            progress.step(1, "a")
            now[0] = LINE_SECONDS
            progress.step(1, "b")
            progress.step(1, "c")
            now[0] = 2 * LINE_SECONDS
            progress.step(9)
        assert capsys.readouterr().err == "Draining: 2 of 10, b\nDraining: 12 of 12\n"

    def test_help(self) -> None:
        """Every command is listed, and explains itself."""
        listed = CliRunner().invoke(main, ["--help"]).stdout
        for name, commands in (("node", ("drain", "forget")), ("replication", ("status", "queue-missing"))):
            assert name in listed
            group = main.get_command(click.Context(main), name)
            assert isinstance(group, click.Group)
            assert set(commands) == set(group.commands)
            assert all("Exit status:" in (command.help or "") for command in group.commands.values())
