"""Locks in a real Redis server."""

from __future__ import annotations

import secrets
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from callfs.locks.interfaces import ILockService
from callfs.locks.redis import RedisLocks
from tests.contract.locks import LockServiceContract
from tests.support.redis import RedisServer


class RedisLocksTests(LockServiceContract, TestCase):
    """The locks in Redis keep the port's promises."""

    provider = RedisLocks
    server: ClassVar[RedisServer]
    timeout = 60

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = RedisServer().start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.stop()

    def make_locks(self) -> ILockService:
        self.clock = Clock()
        locks = RedisLocks(
            self.server.address,
            reactor=reactor,
            token_bytes=secrets.token_bytes,
            key_prefix=f"{secrets.token_hex(4)}:",
            clock=self.clock,
        )
        self.addCleanup(locks.close)
        return locks

    def let_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
