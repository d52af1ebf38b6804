"""``callfs node``: taking nodes away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import click

from callfs.cli.daemonclient import (
    DaemonClient,
    DaemonFailure,
    failing_with_status,
    url_option,
)
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.cli.progress import shown
from callfs.cli.tables import size_text
from callfs.config.schema import Config

BATCH = 16
"""Copies in one request. Small, because progress shows after each, and what breaks off is done again."""

BATCH_SECONDS = 6 * 3600.0
MOST_PASSES = 25
_S3 = "s3"


@dataclass
class Tally:
    """What became of the copies on a node."""

    moved: int = 0
    bytes: int = 0
    failed: tuple[tuple[str, str], ...] = ()


@dataclass
class _Pass:
    """What one way through all of them came to."""

    moved: int = 0
    skipped: int = 0
    failed: tuple[tuple[str, str], ...] = ()


@click.group()
@config_option
def node() -> None:
    """Take a node away without losing what its disk holds."""


@node.command("drain")
@config_option
@url_option
@click.argument("instance", metavar="ID")
@click.option(
    "--to",
    "target",
    metavar="INSTANCE|s3",
    help="Where everything goes; by default to all other nodes in equal parts.",
)
@click.option("--forget", is_flag=True, help="Afterwards forget the node, which has been stopped for good.")
def drain_command(url: str | None, instance: str, target: str | None, forget: bool) -> None:
    """
    Relocate everything that the local disk of node ID holds, first copies and second ones.

    Files stay readable and writable all the time. First see to it that no client sends new files to the node. When
    it is interrupted, the same command goes on where it was. A node that is down can be drained of what has a copy
    elsewhere.

    Exit status: 0 the node holds nothing, 1 something is still there (it is listed) or failure, 2 wrong usage or
    configuration.
    """
    config: Config = loaded_configuration(config_path()).config

    def job() -> None:
        client = DaemonClient(config, url, BATCH_SECONDS)
        tally = Tally()
        try:
            _drain(client, instance, _place(target), tally)
        except DaemonFailure as failure:
            if not tally.moved:
                raise
            raise DaemonFailure(f"{failure}. Relocated {_copies(tally.moved)}; drain again to go on") from failure
        click.echo(f"Relocated {_copies(tally.moved)}, {size_text(tally.bytes)} of it copied.")
        if tally.failed:
            for path, reason in tally.failed:
                click.echo(f"{path}: {reason}")
            raise DaemonFailure(
                f"still on {instance}: {_copies(len(tally.failed))}. Mend what is said above, and drain again"
            )
        click.echo(f"Nothing is left on {instance}.")
        if forget:
            _forget(client, instance)

    failing_with_status("node drain", job)


@node.command("forget")
@config_option
@url_option
@click.argument("instance", metavar="ID")
@click.option("--force", is_flag=True, help="Also when it gave a sign of life a moment ago, but is stopped by now.")
def forget_command(url: str | None, instance: str, force: bool) -> None:
    """
    Forget node ID, which was drained and stopped for good; ask another node.

    It is refused as long as files have copies on it, and for a minute after its last sign of life: a node that runs
    would make itself known again.

    Exit status: 0 it is forgotten, 1 refusal or failure, 2 wrong usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config
    failing_with_status("node forget", lambda: _forget(DaemonClient(config, url), instance, force))


def _copies(count: int) -> str:
    return "1 copy" if count == 1 else f"{count} copies"


def _place(target: str | None) -> dict[str, Any]:
    if target is None:
        return {}
    return {"to_s3": True} if target == _S3 else {"to_instance": target}


def _drain(client: DaemonClient, instance: str, place: dict[str, Any], tally: Tally) -> None:
    """Pass after pass, because files may come to the node meanwhile, until one finds nothing or moves nothing."""
    for _ in range(MOST_PASSES):
        held = client.get(f"/v1/internal/nodes/{quote(instance, safe='')}/copies")["copies"]
        found = _one_pass(client, {"instance_id": instance, "limit": BATCH, **place}, held, tally)
        tally.failed = found.failed
        if not found.moved and (found.failed or not found.skipped):
            return
    raise DaemonFailure(f"{instance} still gets new files: see to it that no client sends it any")


def _one_pass(client: DaemonClient, asking: dict[str, Any], held: int, tally: Tally) -> _Pass:
    found = _Pass()
    after: str | None = ""
    with shown("Draining", held, time.monotonic) as progress:
        while after is not None:
            batch = client.post("/v1/internal/nodes/drain", {**asking, "after": after})
            failed = tuple((each["path"], each["reason"]) for each in batch["failed"])
            found.moved += batch["moved"]
            found.skipped += batch["skipped"]
            found.failed += failed
            tally.moved += batch["moved"]
            tally.bytes += batch["bytes"]
            after = batch["after"]
            progress.step(
                batch["moved"] + batch["skipped"] + len(failed),
                f"{size_text(tally.bytes)} copied, {len(found.failed)} failed",
            )
    return found


def _forget(client: DaemonClient, instance: str, force: bool = False) -> None:
    answer = client.post("/v1/internal/nodes/forget", {"instance_id": instance, "force": force})
    click.echo(f"{instance} is forgotten. Blobs that were still to be deleted on its disk: {answer['garbage']}.")
