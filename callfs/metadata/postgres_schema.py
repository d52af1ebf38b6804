"""The tables of the PostgreSQL store: made, upgraded, or recognised, by whichever node comes first."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import msgspec
import psycopg

from callfs.identifiers import TokenBytes, new_store_id
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.postgres_queries import Connection, is_empty

Scripts = Sequence[tuple[int, str]]

OLDEST_SERVER = 120000
"""Version 12, as ``server_version`` has it."""

_LOCK_CLASS = 0x43414C4D
_PROBED_TABLES = (
    "store",
    "inodes",
    "blobs",
    "links",
    "garbage",
    "condemned",
    "instances",
    "applied_commands",
    "replications",
)
_INSUFFICIENT_PRIVILEGE = "42501"


class Opened(msgspec.Struct, frozen=True):
    """
    What a store is.

    :param names_key: tells the locks of this store from those of others in the same database.
    :param is_whole: no import into it is unfinished.
    """

    store_id: str
    was_empty: bool
    names_key: int
    is_whole: bool


def migrations() -> Scripts:
    """The numbered scripts in the package, in order: version and SQL."""
    folder = resources.files("callfs.metadata") / "schema" / "postgres"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.partition("_")[0]), (folder / name).read_text("utf-8")) for name in names]


def prepare(connection: Connection, token_bytes: TokenBytes, scripts: Scripts) -> Opened:
    """
    Make sure that tables of this version are there.

    :param token_bytes: makes the identity of a new store.
    :param scripts: all migrations that this version knows.
    :raises StoreUnusable: as the message says.
    """
    _check_server(connection)
    if _version(connection) != scripts[-1][0]:
        _upgrade(connection, token_bytes, scripts)
    store_id, import_id = connection.execute("SELECT id, import_id FROM store").fetchall()[0]
    (names_key,) = connection.execute("SELECT 'inodes'::regclass::oid::integer").fetchall()[0]
    return Opened(store_id, is_empty(connection), names_key, import_id is None)


def _check_server(connection: Connection) -> None:
    if connection.info.server_version < OLDEST_SERVER:
        raise StoreUnusable("PostgreSQL 12 or newer is needed")
    (encoding,) = connection.execute("SHOW server_encoding").fetchall()[0]
    if encoding != "UTF8":
        raise StoreUnusable(
            f"the database has the encoding {encoding}, which can't hold every name: make one with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    (schema,) = connection.execute("SELECT current_schema()").fetchall()[0]
    if schema is None:
        raise StoreUnusable("the schema in the search_path of metadata_store.dsn doesn't exist: create it")


def _version(connection: Connection) -> int:
    """The version of the tables; 0 where there are none."""
    # Not by to_regclass: it may answer from a cache that doesn't know yet what another node has just made.
    found = connection.execute(
        "SELECT 1 FROM pg_class WHERE relname = 'callfs_migrations' AND pg_table_is_visible(oid)"
    ).fetchone()
    if found is None:
        return 0
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM callfs_migrations").fetchall()[0][0])


def _upgrade(connection: Connection, token_bytes: TokenBytes, scripts: Scripts) -> None:
    """All steps in one transaction, under a lock that nodes starting at the same time wait for."""
    try:
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            connection.execute(
                "SELECT pg_advisory_xact_lock(%s, quote_ident(current_schema())::regnamespace::oid::integer)",
                (_LOCK_CLASS,),
            )
            _migrate(connection, token_bytes, scripts)
    except psycopg.Error as error:
        if error.sqlstate == _INSUFFICIENT_PRIVILEGE:
            raise StoreUnusable(
                "the user in metadata_store.dsn may not create tables there: "
                "let it own the database (ALTER DATABASE ... OWNER TO ...)"
            ) from None
        raise


def _migrate(connection: Connection, token_bytes: TokenBytes, scripts: Scripts) -> None:
    version, latest = _version(connection), scripts[-1][0]
    if version > latest:
        raise StoreUnusable(
            f"the metadata database has schema {version}, made by a newer CallFS; this one knows {latest}: "
            "install the newer version again"
        )
    if version == 0:
        _check_free(connection)
        connection.execute(
            "CREATE TABLE callfs_migrations (number integer PRIMARY KEY, applied_at timestamptz DEFAULT now())"
        )
    for number, script in scripts:
        if number > version:
            connection.execute(script)
            connection.execute("INSERT INTO callfs_migrations (number) VALUES (%s)", (number,))
    if version == 0:
        connection.execute("INSERT INTO store (id) VALUES (%s)", (new_store_id(token_bytes),))


def _check_free(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename = ANY(%s)",
        (list(_PROBED_TABLES),),
    ).fetchall()
    if rows:
        raise StoreUnusable(
            f"the database has a table {rows[0][0]!r} of another program: give CallFS a database, "
            "or a schema, of its own"
        )
