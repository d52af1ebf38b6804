"""Things that have to be given back although nobody waits for them."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from callfs.engine.claims import claimed


class TestClaimed(SynchronousTestCase):
    def setUp(self) -> None:
        self.given_back: list[str] = []
        self.work: Deferred[str] = Deferred()
        self.claim = claimed(self.work, self.given_back.append)

    def test_in_time(self) -> None:
        """Who waits gets the result, and nothing is given back."""
        self.work.callback("reader")
        assert self.successResultOf(self.claim) == "reader"
        assert self.given_back == []

    def test_failure_in_time(self) -> None:
        """Who waits gets the failure."""
        self.work.errback(ZeroDivisionError())
        self.failureResultOf(self.claim, ZeroDivisionError)

    def test_too_late(self) -> None:
        """After a cancellation the work goes on, and what it brings is given back."""
        self.claim.cancel()
        self.failureResultOf(self.claim, CancelledError)
        assert not self.work.called
        self.work.callback("reader")
        assert self.given_back == ["reader"]

    def test_failure_too_late(self) -> None:
        """A failure that nobody waits for bothers nobody."""
        self.claim.cancel()
        self.failureResultOf(self.claim, CancelledError)
        self.work.errback(ZeroDivisionError())
        assert self.given_back == []
        assert self.flushLoggedErrors() == []

    def test_cannot_be_given_back(self) -> None:
        """What can't be given back is logged."""
        work: Deferred[str] = Deferred()
        claim = claimed(work, lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
        claim.cancel()
        self.failureResultOf(claim, CancelledError)
        work.callback("reader")
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
