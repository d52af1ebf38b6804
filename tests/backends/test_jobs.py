"""Jobs in threads."""

from __future__ import annotations

import gc
import threading
import weakref

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from callfs.backends.jobs import Jobs

THREADS = 3
PATIENCE_SECONDS = 10.0


class Content:
    """Something that a job is given."""


class TestJobs(TestCase):
    """What :class:`Jobs` promises."""

    def setUp(self) -> None:
        self.pool = ThreadPool(0, THREADS)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.jobs = Jobs(reactor, self.pool)

    async def test_results(self) -> None:
        """Each job's result goes to who asked for it, and of several what they were asked with."""
        results = await gatherResults([self.jobs.run(lambda number: number * 2, number) for number in range(100)])
        assert results == [number * 2 for number in range(100)]

    async def test_failure(self) -> None:
        """A job that fails fails its own Deferred alone."""
        failing, other = self.jobs.run(int, "no number"), self.jobs.run(int, "17")
        await self.assertFailure(failing, ValueError)
        assert await other == 17

    async def test_simultaneous(self) -> None:
        """As many jobs run at once as the pool has threads."""
        together = threading.Barrier(THREADS)
        for _ in range(3):
            await gatherResults([self.jobs.run(together.wait, PATIENCE_SECONDS) for _ in range(THREADS)])

    async def test_slow_job(self) -> None:
        """A job that takes long holds up no other one as long as there are threads."""
        gate = threading.Event()
        slow = [self.jobs.run(gate.wait, PATIENCE_SECONDS) for _ in range(THREADS - 1)]
        assert await gatherResults([self.jobs.run(int, "1") for _ in range(20)]) == [1] * 20
        assert not any(each.called for each in slow)
        gate.set()
        assert await gatherResults(slow) == [True] * (THREADS - 1)

    async def test_more_than_threads(self) -> None:
        """What finds no thread waits for one."""
        gate = threading.Event()
        busy = [self.jobs.run(gate.wait, PATIENCE_SECONDS) for _ in range(THREADS)]
        waiting = self.jobs.run(int, "1")
        gate.set()
        assert await waiting == 1
        await gatherResults(busy)

    async def test_cancelled(self) -> None:
        """A cancelled job goes on to its end, and later ones aren't disturbed."""
        gate, ended = threading.Event(), threading.Event()

        def job() -> str:
            gate.wait(PATIENCE_SECONDS)
            ended.set()
            return "late"

        cancelled = self.jobs.run(job)
        cancelled.cancel()
        await self.assertFailure(cancelled, CancelledError)
        gate.set()
        assert await deferToThread(ended.wait, PATIENCE_SECONDS)
        assert await self.jobs.run(int, "1") == 1

    async def test_after_a_pause(self) -> None:
        """Threads go back to the pool when nothing comes for a while, and a later job gets one again."""
        assert await self.jobs.run(int, "1") == 1
        left = threading.Event()
        # The pool has other work for all of its threads, which begins when they are back.
        together = threading.Barrier(THREADS, action=left.set)
        for _ in range(THREADS):
            self.pool.callInThread(together.wait, PATIENCE_SECONDS)
        assert await deferToThread(left.wait, PATIENCE_SECONDS)
        assert await self.jobs.run(int, "2") == 2

    async def test_the_pool_can_always_be_stopped(self) -> None:
        """However the end of a thread's patience meets the next job: every job ends, and so does every thread."""
        for attempt in range(60):
            pool = ThreadPool(0, 8)
            pool.start()
            jobs = Jobs(reactor, pool, linger_seconds=0.002)
            for number in range(1, 9):
                work = [jobs.run(int, str(each)) for each in range(1 + (attempt + number) % 8)]
                assert await gatherResults(work) == list(range(len(work)))
                await deferLater(reactor, 0.002 if number % 2 else 0)
            stopping = threading.Thread(target=pool.stop, daemon=True)
            stopping.start()
            await deferToThread(stopping.join, PATIENCE_SECONDS)
            assert not stopping.is_alive()

    async def test_nothing_is_kept(self) -> None:
        """What a job was given is free when the job has ended, though its thread waits for the next."""
        content = Content()
        seen = weakref.ref(content)
        await self.jobs.run(id, content)
        del content
        gc.collect()
        assert seen() is None
