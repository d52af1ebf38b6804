"""What a caller learns when an answer of Redis is lost: the truth, once."""

from __future__ import annotations

import re

from twisted.trial.unittest import TestCase

from callfs.errors import MetadataUnavailable, OutcomeUnknown
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.redis_scripts import APPLY, FACTS, OUTCOME, POINT
from callfs.model import Inode
from tests.contract.metadata_base import StoreTests, failure
from tests.metadata.redis_binding import RedisBinding
from tests.support.interception import Interception


def an_hour_later(request: bytes) -> bytes:
    """The request as it would be had the machine stood still for an hour: its instant was that much earlier."""
    (instant,) = re.findall(rb"\$16\r\n(\d{16})\r\n", request)
    return request.replace(instant, b"%d" % (int(instant) - 3_600_000_000))


class LostAnswerTests(RedisBinding, StoreTests, TestCase):
    """A store behind a proxy that loses requests and replies."""

    async def open_store(self) -> IMetadataStore:
        self.proxy = Interception(self.server.port)
        await self.proxy.listen()
        self.addCleanup(self.proxy.close)
        self.prefix = f"{self.id()}:"
        self.direct = await self.opened(self.prefix)
        store = self.redis_store(self.prefix, address=f"127.0.0.1:{self.proxy.port}", op_timeout_seconds=2.0)
        await store.open()
        self.addCleanup(store.close)
        return store

    async def at(self, path: str) -> Inode | None:
        """What the server has, asked past the proxy."""
        return await self.direct.get(path)

    async def test_a_lost_reply_is_looked_up(self) -> None:
        """A change whose reply was lost has happened once and is reported as done."""
        await self.apply(self.make.create("/f"))
        self.proxy.lose_reply(APPLY.digest)
        written = await self.apply(self.make.put("/f"))
        assert written.inode.generation == 2
        assert await self.at("/f") == written.inode

    async def test_a_lost_request_is_made_again(self) -> None:
        """A change whose request was lost happens at the second attempt."""
        self.proxy.lose_request(APPLY.digest)
        written = await self.apply(self.make.create("/f"))
        assert await self.at("/f") == written.inode

    async def test_a_lost_question_is_asked_again(self) -> None:
        """Reads, and the questions before a change, survive a broken connection."""
        for mark in (POINT.digest, FACTS.digest):
            self.proxy.lose_request(mark)
            self.proxy.lose_reply(mark)
        await self.apply(self.make.create("/f"))
        assert await self.store.get("/f") is not None

    async def test_a_withdrawn_request_changes_nothing_when_it_arrives(self) -> None:
        """A request that was taken for lost and made again doesn't happen a second time."""
        await self.apply(self.make.create("/f"))
        self.proxy.delay_request(APPLY.digest, cut=True)
        written = await self.apply(self.make.put("/f"))
        assert b"withdrawn" in await self.proxy.deliver()
        assert await self.at("/f") == written.inode
        assert written.inode.generation == 2

    async def test_a_request_that_is_too_late_changes_nothing(self) -> None:
        """When the caller was told that the outcome isn't known, it doesn't happen afterwards."""
        await self.apply(self.make.create("/f"))
        before = await self.at("/f")
        self.proxy.delay_request(APPLY.digest)
        self.proxy.lose_request(OUTCOME.digest)
        await failure(self.store.apply(self.make.put("/f")), OutcomeUnknown)
        assert b"late" in await self.proxy.deliver()
        assert await self.at("/f") == before

    async def test_what_was_withdrawn_too_late_stays_withdrawn(self) -> None:
        """Also when its time was over at the question, so that a clock that is set back brings nothing back."""
        await self.apply(self.make.create("/f"))
        before = await self.at("/f")
        self.proxy.delay_request(APPLY.digest)
        await failure(self.store.apply(self.make.put("/f")), OutcomeUnknown)
        assert b"withdrawn" in await self.proxy.deliver()
        assert await self.at("/f") == before

    async def test_an_outcome_that_cannot_be_asked_is_unknown(self) -> None:
        """Lost replies to the change and to every later question: unknown, and in truth it has happened."""
        self.proxy.lose_reply(APPLY.digest)
        self.proxy.delay_request(OUTCOME.digest)
        await failure(self.store.apply(self.make.create("/f")), OutcomeUnknown)
        assert await self.at("/f") is not None

    async def test_an_outcome_that_may_be_forgotten(self) -> None:
        """
        What is asked so late, by the server's clock, that the server may have forgotten it isn't taken for what
        never happened: the machine was suspended, and its own clock with it. What it does remember it says.
        """
        for lose, is_there in ((self.proxy.lose_request, False), (self.proxy.lose_reply, True)):
            lose(APPLY.digest)
            self.proxy.change_request(OUTCOME.digest, an_hour_later)
            if is_there:
                await self.apply(self.make.create("/f"))
            else:
                await failure(self.store.apply(self.make.create("/f")), OutcomeUnknown)
            assert (await self.at("/f") is not None) == is_there

    async def test_nothing_was_sent(self) -> None:
        """When not even the questions are answered, it is certain that nothing was changed."""
        self.proxy.delay_request(FACTS.digest)
        await failure(self.store.apply(self.make.create("/f")), MetadataUnavailable)
        assert await self.at("/f") is None
