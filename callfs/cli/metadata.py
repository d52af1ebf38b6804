"""``callfs metadata``: move the metadata to another store."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from callfs.cli.copyposition import copy_position
from callfs.cli.exportfile import STANDARD, Batches, checked, opened, written
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.config.schema import Config
from callfs.engine.transfer import Imperfect, Import, export_metadata
from callfs.errors import CallFSError
from callfs.metadata.interfaces import IMetadataStore, StoreUnusable
from callfs.metadata.transfer import Counts
from callfs.metadata.transfer_reading import Unreadable
from callfs.node_metadata import instant, tool_store

FAILURE_STATUS = 1
_THREADS = 2

Job = Callable[[IMetadataStore, Any, ThreadPool], Coroutine[Deferred[Any], Any, None]]
"""What a command does with the store; told the reactor and a pool of threads as well."""


class _Failed(Exception):
    """The command failed; the message says why and what to do."""


@click.group()
@config_option
def metadata() -> None:
    """
    Move the metadata to another store.

    Names, attributes, links and queues go from any kind of store (SQLite, PostgreSQL, Redis, Raft) to any other;
    the bytes of the files stay where they are.
    """


@metadata.command("export")
@config_option
@click.argument("file", metavar="[FILE|-]", default=STANDARD, type=click.Path(dir_okay=False, allow_dash=True))
def export_command(file: str) -> None:
    """
    Write everything that the configured store holds to FILE, or to standard output.

    Each line is a JSON object; the last one has a checksum of all others. A FILE that is there already is never
    overwritten. Stop all daemons first: what is changed after the export isn't in it. With Raft each node has a
    copy of its own, and that of this node is exported: run it beside the leader's daemon, when nothing is written
    any more, and stop the daemons then.

    Exit status: 0 all is written, 1 failure, 2 wrong usage or configuration.
    """

    async def job(store: IMetadataStore, reactor: Any, pool: ThreadPool) -> None:
        await store.open()
        statistics = await store.statistics()
        total = statistics.files + statistics.directories + statistics.links
        total += statistics.garbage + statistics.replications
        with written(file) as stream, _progress("Exporting", total) as bar:
            counts = await export_metadata(store, stream.write, instant(), bar.update)
        click.echo(f"Exported {_described(counts)}.", err=True)

    _run("export", job, read_only=True)


@metadata.command("import")
@config_option
@click.option("--again", is_flag=True, help="Clear away an import that wasn't finished, and begin it again.")
@click.argument(
    "file", metavar="[FILE|-]", default=STANDARD, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
def import_command(file: str, again: bool) -> None:
    """
    Fill the configured store, which must be empty, from FILE or from standard input.

    Everything is read back and compared before the store may be used; until then no daemon opens it. It takes over
    the identity of the store that was exported, so that the root folders of its nodes fit.

    Exit status: 0 all is there, 1 failure, 2 wrong usage or configuration.
    """

    async def job(store: IMetadataStore, reactor: Any, pool: ThreadPool) -> None:
        expected = None if file == STANDARD else await deferToThreadPool(reactor, pool, checked, file)
        await store.open(importing=True)
        with opened(file) as stream:
            counts = await _bring_in(store, Batches(stream), reactor, pool, expected, again)
        click.echo(f"Imported {_described(counts)}.")

    _run("import", job, read_only=False)


async def _bring_in(
    store: IMetadataStore, batches: Batches, reactor: Any, pool: ThreadPool, expected: Counts | None, again: bool
) -> Counts:
    """Import what ``batches`` gives; ``expected`` is known beforehand where it is a file."""
    # The first batch comes before anything is begun: what is no export leaves the store untouched.
    records = await deferToThreadPool(reactor, pool, batches.next)
    reading = batches.reading
    moving = Import(store, now=instant, token_bytes=secrets.token_bytes)
    await moving.begin(again)
    try:
        with _progress("Importing", None if expected is None else expected.all) as bar:
            while records:
                await moving.add(records)
                bar.update(len(records))
                records = await deferToThreadPool(reactor, pool, batches.next)
        with _progress("Checking", reading.tally.counts.all) as bar:
            await moving.check(reading.tally, bar.update)
        await moving.finish(reading.header.store_id)
    except (CallFSError, StoreUnusable, Unreadable, Imperfect) as error:
        raise _Failed(
            f"{error}. The import isn't finished, and no daemon will use this store. "
            "When the cause is mended, run 'callfs metadata import --again'"
        ) from error
    return reading.tally.counts


def _run(name: str, job: Job, read_only: bool) -> None:
    """Do a job with the store of the configuration, then end with its status."""
    config: Config = loaded_configuration(config_path()).config
    react(lambda reactor: Deferred.fromCoroutine(_ending(name, reactor, config, job, read_only)))


async def _ending(name: str, reactor: Any, config: Config, job: Job, read_only: bool) -> None:
    pool = ThreadPool(0, _THREADS, "callfs-metadata")
    pool.start()
    store = tool_store(config, reactor, pool, read_only=read_only)
    try:
        if config.raft_metadata and read_only:
            click.echo(copy_position(config.raft.data_dir, config.raft_node_id), err=True)
        await job(store, reactor, pool)
    except (CallFSError, StoreUnusable, Unreadable, Imperfect, _Failed, OSError) as error:
        click.echo(f"callfs metadata {name}: {_explained(error)}", err=True)
        sys.exit(FAILURE_STATUS)
    finally:
        await store.close()
        pool.stop()


def _explained(error: Exception) -> str:
    if isinstance(error, FileExistsError):
        return f"{error.filename} is there already and stays as it is"
    if isinstance(error, OSError):
        return f"{error.filename or 'the file'}: {error.strerror}"
    if isinstance(error, Unreadable):
        return f"this can't be imported: {error}"
    return str(error)


def _progress(label: str, total: int | None) -> Any:
    return click.progressbar(
        length=total or 0, label=label, file=sys.stderr, show_pos=True, hidden=not total or not sys.stderr.isatty()
    )


def _described(counts: Counts) -> str:
    return (
        f"{counts.inodes} files and directories, {counts.links} links, {counts.garbage} entries of the garbage "
        f"queue, {counts.condemned} condemned blobs, {counts.instances} nodes, {counts.replications} copies to be "
        "made"
    )
