"""``callfs replication``: second copies."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
import msgspec

from callfs.cli.daemonclient import FAILURE_STATUS, DaemonClient, failing_with_status, url_option
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.cli.progress import shown
from callfs.cli.tables import table
from callfs.config.schema import Config

PAGE = 1000


@click.group()
@config_option
def replication() -> None:
    """The second copies of files (ha.replication_enabled)."""


@replication.command("status")
@config_option
@url_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status_command(url: str | None, as_json: bool) -> None:
    """
    Show what waits in the replication queue, by the node that has to make the copies.

    Exit status: 0 nothing has failed of late, 1 some copies could not be made so far (they are tried again) or
    failure, 2 wrong usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config

    def job() -> None:
        status = DaemonClient(config, url).get("/v1/internal/replication")
        text = msgspec.json.format(msgspec.json.encode(status)).decode() if as_json else "\n".join(_lines(status))
        click.echo(text)
        if any(each["failing"] for each in status["backlog"]):
            sys.exit(FAILURE_STATUS)

    failing_with_status("replication status", job)


@replication.command("queue-missing")
@config_option
@url_option
@click.option("--dry-run", is_flag=True, help="Only count the files without a second copy.")
def queue_command(url: str | None, dry_run: bool) -> None:
    """
    Look through all files, and have the second copies made that are missing.

    For files that are older than the setting, and after a disk was lost. Copies that wait already are tried at
    once. The daemons make them in the background; 'callfs replication status' shows how far they are. When it is
    interrupted, run it again.

    Exit status: 0 all files were looked through, 1 with --dry-run also when a copy is missing, or failure, 2 wrong
    usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config

    def job() -> None:
        client = DaemonClient(config, url)
        files, lacking, queued = _scan(client, queue=not dry_run)
        click.echo(f"{files} files, {lacking} without their second copy, {queued} of these queued now.")
        if dry_run and lacking:
            sys.exit(FAILURE_STATUS)

    failing_with_status("replication queue-missing", job)


def _scan(client: DaemonClient, queue: bool) -> tuple[int, int, int]:
    files = lacking = queued = 0
    after: str | None = ""
    total = client.get("/v1/internal/replication/files")["files"]
    with shown("Looking through files", total, time.monotonic) as progress:
        while after is not None:
            asking = {"after": after, "limit": PAGE, "queue": queue}
            page = client.post("/v1/internal/replication/scan", asking)
            files += page["files"]
            lacking += page["lacking"]
            queued += page["queued"]
            after = page["after"]
            progress.step(page["files"], f"{lacking} without their second copy")
    return files, lacking, queued


def _lines(status: Any) -> list[str]:
    where = status["replica_backend"]
    head = f"Second copies go to {where}." if where else "This node's configuration asks for no second copies."
    rows = [
        (each["instance_id"], str(each["waiting"]), str(each["failing"]), each["oldest_queued_at"])
        for each in status["backlog"]
    ]
    if not rows:
        return [head, "Nothing waits."]
    return [head, *table(("NODE", "WAITING", "FAILING", "OLDEST"), rows, right=(1, 2))]
