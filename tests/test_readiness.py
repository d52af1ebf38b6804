"""What the readiness of a node costs, however many ask for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from callfs.errors import MetadataUnavailable, PeerUnavailable
from callfs.readiness import BUCKET_SECONDS, ReadinessChecks


class TestTogether(SynchronousTestCase):
    def setUp(self) -> None:
        self.looks: list[Deferred[None]] = []
        locks = SimpleNamespace(check=lambda: succeed(None))
        node = SimpleNamespace(
            site=SimpleNamespace(ready=True),
            store=SimpleNamespace(check=self._check),
            locks=SimpleNamespace(service=locks),
            disk=None,
            bucket=None,
            membership=None,
        )
        config = SimpleNamespace(metadata_store=SimpleNamespace(type="postgres"), dlm=SimpleNamespace(type="redis"))
        self.checks = ReadinessChecks(cast(Any, node), cast(Any, config), None)

    def _check(self) -> Deferred[None]:
        self.looks.append(Deferred())
        return self.looks[-1]

    def test_one_look_for_all(self) -> None:
        """Who asks while a look is under way gets what that one finds; who asks later has a new one."""
        asked = [self.checks.parts() for _ in range(3)]
        assert len(self.looks) == 1
        self.looks[0].callback(None)
        assert [self.successResultOf(each)["metadata"]["ok"] for each in asked] == [True] * 3
        later = self.checks.parts()
        self.looks[1].errback(MetadataUnavailable("down"))
        assert self.successResultOf(later)["metadata"]["ok"] is False

    def test_one_goes_away(self) -> None:
        """Who goes away takes nothing from the others."""
        gone, stays = self.checks.parts(), self.checks.parts()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        assert not self.looks[0].called
        self.looks[0].callback(None)
        assert self.successResultOf(stays)["metadata"]["ok"] is True

    def test_fault(self) -> None:
        """A fault that nobody expected reaches all who wait, and the next look is a new one."""
        asked = [self.checks.parts() for _ in range(2)]
        self.looks[0].errback(RuntimeError("bug"))
        for each in asked:
            self.failureResultOf(each)
        assert not self.checks.parts().called
        assert len(self.looks) == 2


class TestBucket(SynchronousTestCase):
    """What S3 is asked, which costs money."""

    def setUp(self) -> None:
        self.asked = 0
        self.error: Exception | None = None
        self.clock = Clock()
        self.gate = SimpleNamespace(is_open=True)
        answered = SimpleNamespace(check=lambda: succeed(None))
        node = SimpleNamespace(
            site=SimpleNamespace(ready=True),
            store=answered,
            locks=SimpleNamespace(service=answered),
            disk=None,
            bucket=SimpleNamespace(gate=self.gate, bucket=SimpleNamespace(check=self._check)),
            membership=None,
        )
        config = SimpleNamespace(metadata_store=SimpleNamespace(type="sqlite"), dlm=SimpleNamespace(type="local"))
        self.checks = ReadinessChecks(cast(Any, node), cast(Any, config), self.clock)

    def _check(self) -> Deferred[None]:
        self.asked += 1
        return succeed(None) if self.error is None else fail(self.error)

    def state(self) -> Any:
        """What readiness says of S3."""
        return self.successResultOf(self.checks.parts())["backends"]["s3"]

    def test_seldom(self) -> None:
        """However often readiness is asked, S3 is asked once in a few seconds; then what it says counts."""
        for _ in range(50):
            assert self.state() == {"ok": True}
        assert self.asked == 1
        self.error = PeerUnavailable("S3 doesn't answer")
        self.clock.advance(BUCKET_SECONDS - 0.1)
        assert self.state()["ok"] is True
        self.clock.advance(0.1)
        assert [self.state(), self.state()] == [{"ok": False, "message": "S3 doesn't answer"}] * 2
        assert self.asked == 2

    def test_not_recognised(self) -> None:
        """A bucket that hasn't been recognised isn't asked at all: it is said that it is awaited."""
        self.gate.is_open = False
        assert self.state()["ok"] is False
        assert "hasn't answered since this node started" in self.state()["message"]
        assert self.asked == 0
        self.gate.is_open = True
        assert self.state() == {"ok": True}
