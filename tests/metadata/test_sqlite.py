"""The contract suite bound to SQLite: on disk, and on tmpfs, which is the fast twin for other tests."""

from __future__ import annotations

from tests.contract.metadata import MetadataContract
from tests.metadata.sqlite_binding import TMPFS, SqliteBinding


class SqliteOnDiskTests(MetadataContract, SqliteBinding):
    """A database file."""

    machine_examples = 10


class SqliteOnTmpfsTests(MetadataContract, SqliteBinding):
    """The same on tmpfs."""

    base_folder = TMPFS
