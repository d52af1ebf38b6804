"""``callfs fsck``: do names and bytes agree?"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.threadpool import ThreadPool

from callfs.backends.identity import Identity, Verdict, recognise
from callfs.backends.localfs import LocalBackend
from callfs.backends.rootfolder import RootFolder, RootUnusable
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.config.schema import Config
from callfs.engine.fsck import ConsistencyCheck, Finding, FindingKind, Progress, Repair, Report, TooManyUnnamed
from callfs.errors import CallFSError
from callfs.metadata.commands import RegisterInstance
from callfs.metadata.interfaces import IMetadataStore, StoreUnusable
from callfs.metrics import Metrics
from callfs.node_metadata import tool_store

FAILURE_STATUS = 1
_THREADS = 4
_LOST = (FindingKind.MISSING_BLOB, FindingKind.WRONG_SIZE, FindingKind.WRONG_CHECKSUM)


@dataclass(frozen=True)
class Options:
    """What the operator asked for."""

    deep: bool
    repair: bool
    remove_lost: bool
    adopt_root: bool
    force: bool

    @property
    def changes(self) -> bool:
        """Whether anything is to be written, so that the daemon must be stopped."""
        return self.repair or self.remove_lost or self.adopt_root


@dataclass
class Tally:
    """What was found."""

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
def fsck(deep: bool, repair: bool, remove_lost: bool, adopt_root: bool, force: bool) -> None:
    """
    Check that names and bytes fit together.

    Reports, by path, files whose blob is missing, has another size, or with --deep another content; blobs that
    nothing names; and what is wrong in the database itself. Without options that change something it works beside
    a running daemon; uploads under way, queued garbage, and blobs younger than an hour are no findings. What is on
    other nodes' disks, or in S3, isn't looked at.

    Exit status: 0 nothing was found (or all of it repaired), 1 findings or failure, 2 wrong usage or configuration.
    """
    options = Options(deep, repair, remove_lost, adopt_root, force)
    loaded = loaded_configuration(config_path())
    react(lambda reactor: Deferred.fromCoroutine(_ending(_run(reactor, loaded.config, options))))


async def _ending(run: Coroutine[Deferred[Any], Any, bool]) -> None:
    """Turn the outcome into the exit status."""
    try:
        clean = await run
    except (StoreUnusable, RootUnusable, TooManyUnnamed, CallFSError) as error:
        click.echo(f"callfs fsck: {error}", err=True)
        clean = False
    sys.exit(0 if clean else FAILURE_STATUS)


async def _run(reactor: Any, config: Config, options: Options) -> bool:
    root_path = config.backend.localfs_root_path
    if root_path is None:
        raise RootUnusable(
            "backend.localfs_root_path is empty: fsck checks a node's local disk, so run it on a node that has one"
        )
    pool = ThreadPool(0, _THREADS, "callfs-fsck")
    pool.start()
    root = RootFolder(root_path, secrets.token_bytes)
    store = tool_store(config, reactor, pool, read_only=not options.changes)
    backend = LocalBackend(root_path, reactor=reactor, pool=pool, now=_instant, min_free_bytes=0)
    try:
        if options.changes:
            root.lock()
        await store.open()
        await _check_identity(store, root, config, options)
        return await _check(store, backend, config, options)
    finally:
        await store.close()
        root.unlock()
        pool.stop()


async def _check_identity(store: IMetadataStore, root: RootFolder, config: Config, options: Options) -> None:
    """
    A store must never judge the bytes of another, nor take a disk that isn't mounted for one that lost its files.

    :raises RootUnusable: this folder isn't the one that the store knows, and can't be or isn't to be adopted.
    """
    instance_id = config.instance_discovery.instance_id
    registered = {instance.id: instance.root_id for instance in await store.instances()}
    identity, has_blobs = root.identity(), root.has_blobs()
    decision = recognise(
        store_was_empty=store.was_empty,
        store_id=store.store_id,
        instance_id=instance_id,
        registered=registered,
        identity=identity,
        root_has_blobs=has_blobs,
    )
    may_adopt = not has_blobs and (identity is None or identity.store_id == store.store_id)
    if options.adopt_root and may_adopt:
        if identity is None or identity.root_id != registered.get(instance_id):
            await _adopt(store, root, identity or root.adopt(store.store_id), config)
    elif decision.verdict is Verdict.REFUSE:
        raise RootUnusable(decision.message)


async def _adopt(store: IMetadataStore, root: RootFolder, identity: Identity, config: Config) -> None:
    """Register a marked folder; one that an earlier call marked and couldn't register any more keeps its mark."""
    await store.apply(
        RegisterInstance(
            at=_instant(),
            instance_id=config.instance_discovery.instance_id,
            root_id=identity.root_id,
            api_endpoint=config.external_url,
            replace_root=True,
        )
    )
    click.echo(f"The root folder {root.path} is this node's now.")


async def _check(store: IMetadataStore, backend: LocalBackend, config: Config, options: Options) -> bool:
    check = ConsistencyCheck(
        metadata=store,
        backends={backend.name: backend},
        instance_id=config.instance_discovery.instance_id,
        now=_instant,
        deep=options.deep,
    )
    tally = Tally()
    await _consume("Database", check.store(), tally)
    await _consume("Files", check.files(), tally)
    tally.blobs_judged = await _consume("Blobs", check.blobs(), tally)
    for finding in tally.findings:
        click.echo(_line(finding))
    left = len(tally.findings)
    repair = Repair(metadata=store, backends={backend.name: backend}, now=_instant, metrics=Metrics())
    if options.repair:
        left -= await _put_back(repair, tally)
        left -= await _set_aside(repair, tally, options.force)
    if options.remove_lost:
        left -= await _remove_lost(repair, tally)
    click.echo(
        "Clean: nothing was found." if not tally.findings else f"{len(tally.findings)} findings, {left} left."
    )
    return left == 0


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
    unnamed = tally.of(FindingKind.UNNAMED_BLOB)
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


def _instant() -> int:
    return time.time_ns() // 1000
