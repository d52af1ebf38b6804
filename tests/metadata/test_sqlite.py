"""The contract suite bound to SQLite: on disk, and on tmpfs, which is the fast twin for other tests."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from callfs.metadata.sqlite import SqliteStore
from tests.contract.metadata import MetadataContract
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding


class SqliteOnDiskTests(SqliteBinding, MetadataContract, TestCase):
    """A database file."""

    provider = SqliteStore
    machine_examples = 10


class SqliteOnTmpfsTests(SqliteBinding, MetadataContract, TestCase):
    """The same on tmpfs."""

    provider = SqliteStore
    base_folder = TMPFS
