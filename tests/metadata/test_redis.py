"""The contract suite bound to Redis."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.metadata.redis import RedisStore
from tests.contract.metadata import MetadataContract
from tests.metadata.redis_binding import RedisBinding


class RedisTests(RedisBinding, MetadataContract, TestCase):
    """A real server."""

    provider = RedisStore

    machine_examples = 15
