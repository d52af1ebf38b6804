"""The contract suite bound to PostgreSQL."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.metadata.postgres import PostgresStore
from tests.contract.metadata import MetadataContract
from tests.metadata.postgres_binding import PostgresBinding


class PostgresTests(PostgresBinding, MetadataContract, TestCase):
    """A schema on a real server, whose own collation isn't bytewise."""

    provider = PostgresStore
    machine_examples = 12
