"""What the readiness of a node costs, however many ask for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from callfs.errors import MetadataUnavailable
from callfs.readiness import ReadinessChecks


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
