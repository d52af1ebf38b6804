"""The end of a node, whatever hangs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from callfs.stopping import TakingDown

PATIENCE_SECONDS = 30.0


class TestTakingDown(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.done: list[str] = []
        self.answers: dict[str, Deferred[None]] = {}

    def step(self, name: str) -> Any:
        """A step that is noted, and ends when the test says, or at once."""

        def take(*_: object) -> Deferred[None]:
            self.done.append(name)
            return self.answers.get(name) or succeed(None)

        return take

    def node(self) -> Any:
        """A node that is nothing but its steps."""
        place = lambda name: SimpleNamespace(name=name, close=self.step(name))  # noqa: E731
        settled = self.step("settled")

        async def uploads() -> None:
            await settled()

        return SimpleNamespace(
            site=SimpleNamespace(stop=self.step("site")),
            metrics_site=SimpleNamespace(stop=self.step("metrics site")),
            transfers=SimpleNamespace(stop=self.step("transfers"), cut=self.step("transfers cut")),
            filesystem=SimpleNamespace(settled=uploads),
            replicator=SimpleNamespace(stopService=self.step("replicator")),
            janitor=SimpleNamespace(stopService=self.step("janitor")),
            disk=SimpleNamespace(blobs=place("localfs"), root=SimpleNamespace(unlock=self.step("unlock"))),
            bucket=SimpleNamespace(blobs=place("s3"), bucket=SimpleNamespace(cut=self.step("s3 cut"))),
            others=SimpleNamespace(peers=SimpleNamespace(close=self.step("peers"))),
            locks=SimpleNamespace(service=SimpleNamespace(close=self.step("locks"))),
            store=SimpleNamespace(close=self.step("store")),
            membership=None,
            pools=SimpleNamespace(stop=self.step("pools")),
        )

    def begin(self) -> Deferred[None]:
        """Begin to take the node down."""
        taking_down = TakingDown(cast(Any, self.node()), self.clock, PATIENCE_SECONDS)
        presence = SimpleNamespace(stopService=self.step("presence"))
        return Deferred.fromCoroutine(taking_down.run(cast(Any, presence)))

    def test_nothing_hangs(self) -> None:
        """Everything ends in the order of who needs whom, nothing is cut, and no timer stays."""
        self.successResultOf(self.begin())
        before = ("site", "transfers", "metrics site", "settled", "presence", "replicator", "janitor")
        assert tuple(self.done) == (*before, "localfs", "s3", "peers", "locks", "store", "unlock", "pools")
        assert self.clock.getDelayedCalls() == []

    def test_everything_hangs(self) -> None:
        """When the time is over all is cut; a second later nothing is waited for, and the rest is closed."""
        hanging = ("settled", "presence", "replicator", "janitor", "localfs", "s3", "peers", "locks")
        self.answers = {name: Deferred() for name in hanging}
        with capturedLogs() as events:
            ending = self.begin()
            self.clock.advance(PATIENCE_SECONDS - 0.1)
            assert "s3 cut" not in self.done
            self.clock.advance(0.1)
            assert self.done[-2:] == ["transfers cut", "s3 cut"]
            self.assertNoResult(ending)
            for _ in range(20):
                self.clock.advance(0.1)
            self.successResultOf(ending)
        assert self.done[-3:] == ["store", "unlock", "pools"]
        assert len([event for event in events if event.get("event") == "stop_cut"]) == len(hanging)

    def test_cutting_helps(self) -> None:
        """What only waited for S3 ends by itself when that is cut, and is waited for."""
        self.answers = {"settled": Deferred()}
        ending = self.begin()
        self.clock.advance(PATIENCE_SECONDS)
        assert "presence" not in self.done
        self.answers["settled"].callback(None)
        self.successResultOf(ending)
        assert self.clock.getDelayedCalls() == []

    def test_one_fails(self) -> None:
        """A part that fails to end leaves no other open."""
        self.answers = {"janitor": fail(RuntimeError("bug")), "peers": fail(RuntimeError("bug"))}
        self.successResultOf(self.begin())
        assert self.done[-3:] == ["store", "unlock", "pools"]
        assert len(self.flushLoggedErrors(RuntimeError)) == 2
