"""
Moving the metadata of a store: out of it as lines, and out of lines into an empty one.

An import is a sequence of short steps, and the store stays unusable for daemons until the last. Before that one
everything is read back: it must be what the lines said, record by record, and hold together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from callfs.errors import OutcomeUnknown
from callfs.identifiers import TokenBytes
from callfs.metadata.importing import BeginImport, ClearImport, FinishImport, ImportRecords
from callfs.metadata.interfaces import IMetadataStore
from callfs.metadata.transfer import Counts, Header, Record, Tally, Writing

Progress = Callable[[int], None]
"""Told how many records more are done."""

_IMPORT_ID_BYTES = 16


class Imperfect(Exception):
    """What was imported isn't what was exported; the message is for the operator."""


async def export_metadata(
    store: IMetadataStore, write: Callable[[bytes], object], at: int, progress: Progress
) -> Counts:
    """
    Write a whole store as lines.

    :param store: is open.
    :param write: takes some whole lines; called on any thread. What it raises ends the export.
    :param at: the instant of the export.
    :return: how many records there were.
    :raises callfs.errors.MetadataUnavailable: as :meth:`IMetadataStore.export`.
    """
    writing = Writing(Header(store_id=store.store_id, at=at))
    write(writing.begin())

    def consume(records: Sequence[Record]) -> None:
        write(writing.records(records))
        progress(len(records))

    await store.export(consume)
    write(writing.end())
    return writing.tally.counts


class Import:
    """
    One import: :meth:`begin`, :meth:`add` as often as needed, :meth:`check`, :meth:`finish`.

    :param store: is open, for importing.
    :param now: the wall clock, an instant.
    """

    def __init__(self, store: IMetadataStore, *, now: Callable[[], int], token_bytes: TokenBytes) -> None:
        self._store = store
        self._now = now
        self._id = token_bytes(_IMPORT_ID_BYTES).hex()

    async def begin(self, again: bool) -> None:
        """
        Begin; from here on no daemon opens the store.

        :param again: clear away what an import has left that wasn't finished.
        :raises callfs.errors.Conflict: the store isn't empty, or has an unfinished import and ``again`` is false.
        """
        await self._store.apply(BeginImport(at=self._now(), import_id=self._id, again=again))
        while again:
            cleared = await self._store.apply(ClearImport(at=self._now(), import_id=self._id))
            again = cleared.count > 0

    async def add(self, records: Sequence[Record]) -> None:
        """Bring in some more, at most ``importing.MOST_RECORDS``, in the order of the lines."""
        await self._store.apply(ImportRecords(at=self._now(), import_id=self._id, records=tuple(records)))

    async def check(self, expected: Tally, progress: Progress) -> None:
        """
        Read everything back.

        :param expected: of all the records that came in.
        :raises Imperfect: the store holds something else, or what it holds doesn't fit together.
        """
        found = Tally()

        def consume(records: Sequence[Record]) -> None:
            found.add(records)
            progress(len(records))

        await self._store.export(consume)
        if found != expected:
            raise Imperfect("what was read back from the store isn't what the export has")
        findings = await self._store.verify()
        if findings:
            raise Imperfect(f"the export doesn't fit together: {findings[0]}")

    async def finish(self, store_id: str) -> None:
        """
        End it, and open the store as a daemon would.

        :param store_id: the identity that it takes.
        :raises Imperfect: it has another identity.
        :raises callfs.metadata.interfaces.StoreUnusable: it can't be opened.
        """
        # Where the answer was lost, opening the store tells.
        with suppress(OutcomeUnknown):
            await self._store.apply(FinishImport(at=self._now(), import_id=self._id, store_id=store_id))
        await self._store.close()
        await self._store.open()
        if self._store.store_id != store_id:
            raise Imperfect("the store has another identity than the export: was it used by somebody else?")
