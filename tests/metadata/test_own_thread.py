"""Work on a thread of its own: in order, with its result, which is brought at once or fetched."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import TestCase

from callfs.metadata.own_thread import OwnThread

reactor: Any = global_reactor


def fails() -> None:
    """Fail."""
    raise ValueError("it failed")


class TestOwnThread(TestCase):
    """A thread that ends with the test."""

    timeout = 30

    def setUp(self) -> None:
        self.thread = OwnThread("own", reactor)
        self.addCleanup(self.thread.end)
        self.order: list[str] = []

    async def test_in_order(self) -> None:
        """What is asked for is done in that order, on one thread, which isn't the reactor's."""
        begun = self.thread.begin(self.order.append, "first")
        second = self.thread.run(self.order.append, "second")
        assert await self.thread.run(threading.current_thread) is await self.thread.run(threading.current_thread)
        assert await self.thread.run(threading.current_thread) is not threading.current_thread()
        await second
        await begun.result()
        assert self.order == ["first", "second"]

    async def test_fetched_afterwards(self) -> None:
        """A result that is there already is given at once, without a turn of the reactor."""
        begun = self.thread.begin(lambda: "result")
        await self.thread.run(lambda: None)
        fetched: list[str] = []
        begun.result().addCallback(fetched.append)
        assert fetched == ["result"]

    async def test_fetched_before(self) -> None:
        """A result that is wanted before it is there comes on the reactor's thread."""
        gate = threading.Event()
        begun = self.thread.begin(gate.wait, 10)
        result = begun.result()
        where: list[threading.Thread] = []
        result.addCallback(lambda _: where.append(threading.current_thread()))
        gate.set()
        await result
        assert where == [threading.current_thread()]

    async def test_failures(self) -> None:
        """What the work fails with is its result; the thread goes on. One that nobody fetches is no fault."""
        with pytest.raises(ValueError, match="it failed"):
            await self.thread.run(fails)
        with pytest.raises(ValueError, match="it failed"):
            await self.thread.begin(fails).result()
        self.thread.begin(fails)
        assert await self.thread.run(lambda: "more") == "more"
        assert self.flushLoggedErrors() == []  # type: ignore[no-untyped-call]

    async def test_end(self) -> None:
        """The thread goes when everything is done; later work gets another one."""
        first = await self.thread.run(threading.current_thread)
        last = self.thread.run(lambda: "last")
        self.thread.end()
        assert await last == "last"
        first.join(10)
        assert not first.is_alive()
        assert await self.thread.run(threading.current_thread) is not first

    async def test_cancelled(self) -> None:
        """Who doesn't wait any more hears nothing; the work is done all the same."""
        cancelled = self.thread.run(self.order.append, "done")
        cancelled.addErrback(lambda _: None)
        cancelled.cancel()
        await self.thread.run(lambda: None)
        assert self.order == ["done"]
