"""``callfs fsck``: do names and bytes agree?"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from callfs.backends.interfaces import IBlobBackend
from callfs.backends.rootfolder import RootUnusable
from callfs.backends.s3_unusable import S3Unusable
from callfs.cli.fsck_places import Options, Places, check_bucket, check_disk, chosen_places, instant
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.config.schema import Config
from callfs.engine.fsck import ConsistencyCheck, Finding, FindingKind, Progress, Repair, Report, TooManyUnnamed
from callfs.engine.routing import LOCAL_BACKEND, S3_BACKEND
from callfs.errors import CallFSError
from callfs.metadata.interfaces import IMetadataStore, StoreUnusable
from callfs.metrics import Metrics
from callfs.node_metadata import tool_store

FAILURE_STATUS = 1
_THREADS = 4
_LOST = (FindingKind.MISSING_BLOB, FindingKind.WRONG_SIZE, FindingKind.WRONG_CHECKSUM)


@dataclass
class Tally:
    """
    What was found.

    :ivar blobs_judged: how many blobs of the local disk were looked at.
    """

    findings: list[Finding] = field(default_factory=list)
    blobs_judged: int = 0

    def of(self, *kinds: FindingKind) -> list[Finding]:
        """The findings of these kinds."""
        return [finding for finding in self.findings if finding.kind in kinds]


@click.command()
@config_option
@click.option(
    "--deep", is_flag=True, help="Read every blob and verify its SHA-256; takes as long as reading it all."
)
@click.option(
    "--repair",
    is_flag=True,
    help="Move blobs that nothing names aside (deleted a week later), and put back those that have a name again.",
)
@click.option(
    "--remove-lost", is_flag=True, help="Remove files whose bytes are lost or damaged. There is no way back."
)
@click.option(
    "--adopt-root",
    is_flag=True,
    help="Make an empty root folder this node's own, after its disk was lost and replaced.",
)
@click.option(
    "--force", is_flag=True, help="Repair although so much looks unnamed that the database is to be doubted."
)
@click.option(
    "--backend",
    type=click.Choice([LOCAL_BACKEND, S3_BACKEND]),
    help="Look at what this backend has alone; by default at all that the node has.",
)
def fsck(deep: bool, repair: bool, remove_lost: bool, adopt_root: bool, force: bool, backend: str | None) -> None:
    """
    Check that names and bytes fit together.

    Reports, by path, files whose blob is missing, has another size, or with --deep another content; blobs that
    nothing names; and what is wrong in the database itself. Without options that change something it works beside
    a running daemon; uploads under way, queued garbage, and blobs younger than an hour are no findings. What is on
    other nodes' disks isn't looked at. A bucket, where one is configured, is only ever read: what nothing names
    there the daemons find and remove themselves.

    Exit status: 0 nothing was found (or all of it repaired), 1 findings or failure, 2 wrong usage or configuration.
    """
    options = Options(deep, repair, remove_lost, adopt_root, force, backend)
    loaded = loaded_configuration(config_path())
    react(lambda reactor: Deferred.fromCoroutine(_ending(_run(reactor, loaded.config, options))))


async def _ending(run: Coroutine[Deferred[Any], Any, bool]) -> None:
    """Turn the outcome into the exit status."""
    try:
        clean = await run
    except (StoreUnusable, RootUnusable, S3Unusable, TooManyUnnamed, CallFSError) as error:
        click.echo(f"callfs fsck: {error}", err=True)
        clean = False
    sys.exit(0 if clean else FAILURE_STATUS)


async def _run(reactor: Any, config: Config, options: Options) -> bool:
    pool = ThreadPool(0, _THREADS, "callfs-fsck")
    places = chosen_places(reactor, pool, config, options)
    pool.start()
    store = tool_store(config, reactor, pool, read_only=not options.changes)
    try:
        if options.changes and places.disk is not None:
            places.disk.root.lock()
        await store.open()
        if places.disk is not None:
            await check_disk(store, places.disk.root, config, options)
        if places.bucket is not None:
            await check_bucket(store, places.bucket)
        return await _check(store, places, config, options)
    finally:
        if places.bucket is not None:
            await places.bucket.blobs.close()
        await store.close()
        if places.disk is not None:
            places.disk.root.unlock()
        pool.stop()


async def _check(store: IMetadataStore, places: Places, config: Config, options: Options) -> bool:
    def check(backends: dict[str, IBlobBackend]) -> ConsistencyCheck:
        return ConsistencyCheck(
            metadata=store,
            backends=backends,
            instance_id=config.instance_discovery.instance_id,
            now=instant,
            deep=options.deep,
        )

    tally, backends = Tally(), places.backends()
    await _consume("Database", check(backends).store(), tally)
    await _consume("Files", check(backends).files(), tally)
    for name, backend in backends.items():
        judged = await _consume(f"Blobs ({name})", check({name: backend}).blobs(), tally)
        tally.blobs_judged += judged if name == LOCAL_BACKEND else 0
    for finding in tally.findings:
        click.echo(_line(finding))
    left = len(tally.findings) - await _mend(store, places, tally, options)
    click.echo(
        "Clean: nothing was found." if not tally.findings else f"{len(tally.findings)} findings, {left} left."
    )
    return left == 0


async def _mend(store: IMetadataStore, places: Places, tally: Tally, options: Options) -> int:
    """Do what was asked for about the findings; how many of them it has settled. A bucket isn't written to."""
    mended = 0
    own = {} if places.disk is None else {LOCAL_BACKEND: places.disk.blobs}
    repair = Repair(metadata=store, backends=own, now=instant, metrics=Metrics())
    if options.repair:
        mended += await _put_back(repair, tally)
        mended += await _set_aside(repair, tally, options.force)
        if any(f.backend == S3_BACKEND for f in tally.of(FindingKind.UNNAMED_BLOB, FindingKind.SET_ASIDE_BLOB)):
            click.echo("What is unnamed or set aside in S3 is left to the daemons, which see to it by themselves.")
    if options.remove_lost:
        mended += await _remove_lost(repair, tally)
    return mended


async def _consume(label: str, report: Report, tally: Tally) -> int:
    """Collect the findings of one part while a progress bar shows how far it is; how many it checked."""
    checked = 0
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True, hidden=hidden) as bar:
        async for step in report:
            if isinstance(step, Finding):
                tally.findings.append(step)
            elif isinstance(step, Progress):
                if step.total:
                    bar.length = step.total
                bar.update(step.checked - checked)
                checked = step.checked
    return checked


async def _put_back(repair: Repair, tally: Tally) -> int:
    put_back = set(await repair.put_back())
    if put_back:
        click.echo(f"{len(put_back)} blobs that have a name put back.")
    return sum(finding.blob_id in put_back for finding in tally.of(FindingKind.SET_ASIDE_BLOB))


async def _set_aside(repair: Repair, tally: Tally, force: bool) -> int:
    unnamed = [finding for finding in tally.of(FindingKind.UNNAMED_BLOB) if finding.backend == LOCAL_BACKEND]
    aside = await repair.set_aside(unnamed, tally.blobs_judged, force)
    if aside:
        click.echo(f"{len(aside)} blobs moved aside; they are deleted in seven days.")
    return len(aside)


async def _remove_lost(repair: Repair, tally: Tally) -> int:
    removed = 0
    for finding in tally.of(*_LOST):
        if await repair.remove_file(finding):
            click.echo(f"removed {finding.path}")
        removed += 1
    return removed


def _line(finding: Finding) -> str:
    where = f"{finding.path}: " if finding.path is not None else ""
    return f"{finding.kind.value}: {where}{finding.detail}"
