"""``callfs cluster recover``: a new cluster out of one survivor, when the majority of the old one is lost."""

from __future__ import annotations

import secrets
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.cluster.interfaces import SnapshotMeta, StateUnusable
from callfs.cluster.logfile import FILE_NAME, LogFile, LogUnusable
from callfs.cluster.recovery import NothingToRecover, Recovery, Survivor
from callfs.config.schema import Config
from callfs.metadata.replicated_codec import COMMAND_VERSION
from callfs.metadata.replicated_file import STATE_FOLDER, StateFolder, current_state, recorded
from callfs.raft.membership import NOBODY

FAILURE_STATUS = 1
_BUSY_SECONDS = 10.0
_NO_STATE = SnapshotMeta(0, 0, NOBODY)


@click.command("recover")
@config_option
@click.option(
    "--yes-data-may-be-lost",
    "confirmed",
    is_flag=True,
    help="Do it. Without this option the command only says what it would do, and what may be lost.",
)
def recover(confirmed: bool) -> None:
    """
    Make this stopped node the only voter of a new cluster.

    For the day on which so many nodes are lost for ever that the rest has no majority. Stop all daemons, and run it
    on one survivor, the one whose log ends last, as the user that runs the daemon. All that is in this node's log
    survives; what was acknowledged by others alone is lost. The other nodes of the old cluster must never be
    started again with their raft.data_dir: empty it, start them, and let them join.

    Exit status: 0 the node can be started, 1 nothing was done, 2 wrong usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config
    try:
        done = _recover(config, confirmed)
    except (NothingToRecover, LogUnusable, StateUnusable) as error:
        click.echo(f"callfs cluster recover: {error}", err=True)
        done = False
    except (sqlite3.Error, OSError) as error:
        click.echo(f"callfs cluster recover: {config.raft.data_dir} can't be used: {error}", err=True)
        done = False
    if not done:
        sys.exit(FAILURE_STATUS)


def _recover(config: Config, confirmed: bool) -> bool:
    folder = config.raft.data_dir
    _check_stopped(folder, config.raft_node_id)
    with _held(folder) as state:
        recovery = Recovery(folder, config.raft_node_id, state, secrets.token_bytes)
        survivor = recovery.examine()
        click.echo("\n".join(described(survivor)))
        if not confirmed:
            click.echo("Nothing was changed. To do it, say --yes-data-may-be-lost.", err=True)
            return False
        membership = recovery.carry_out(
            raft_address=config.raft_advertise_addr, api_endpoint=config.external_url, version=COMMAND_VERSION
        )
    click.echo(
        f"Node {survivor.node_id} is the only voter of the new cluster {membership.cluster_id}. Start its daemon; "
        "then empty the raft.data_dir of each other node, start it with raft.bootstrap off, and run "
        "'callfs cluster join' there."
    )
    return True


def described(survivor: Survivor) -> list[str]:
    """
    What an operator has to know before, a line each.

    :param survivor: what the node has.
    """
    others = ", ".join(f"{member.node_id} ({member.raft_address})" for member in survivor.others)
    cluster_id = survivor.membership.cluster_id
    lines = [
        f"Node {survivor.node_id} of cluster {cluster_id}; the others were: {others or 'none'}.",
        f"Its log ends with entry {survivor.last_index} of term {survivor.last_term}; up to entry "
        f"{survivor.committed} it knows that a majority agreed.",
        "! Changes that were acknowledged after that entry are lost: files written since then are missing, files "
        "deleted since then are back, and their bytes may be gone. Compare the line above with that of every other "
        "survivor, and take the node with the highest term, among these the one with the last entry.",
        "! Entries that no majority may have agreed on take effect: changes of which no client was told that they "
        "were made.",
        "! The other nodes must never run again with the raft.data_dir that they have: two clusters would then "
        "change the same files. Empty it first.",
    ]
    if survivor.log_lost:
        lines.append("! The log of this node is gone; only its state is there, which is older than the log was.")
    if survivor.outdated:
        lines.append("! The log of this node doesn't fit its state: the state counts, and the log is thrown away.")
    if not survivor.belongs:
        lines.append(
            "! This node is no voter of that cluster, or was one on another disk: it may lack much more than a "
            "voter would. Prefer any voter that is left."
        )
    return lines


def _check_stopped(folder: Path, node_id: str) -> None:
    """
    See to the log before the state, whose complaint about a running daemon says less.

    :raises LogUnusable: the daemon is running, or the log is damaged.
    """
    if (folder / FILE_NAME).exists():
        log = LogFile(folder, node_id)
        log.open(secrets.token_bytes)
        log.close()


@contextmanager
def _held(folder: Path) -> Iterator[SnapshotMeta]:
    """What the state contains, while no daemon can use it; a missing one isn't made."""
    if current_state(folder) is None:
        yield _NO_STATE
        return
    state = StateFolder(folder / STATE_FOLDER, secrets.token_bytes, _BUSY_SECONDS, (), lambda _: None)
    file = state.open()
    try:
        connection = file.reader(may_wait=True)
        try:
            found = recorded(connection)
        finally:
            connection.close()
        yield found
    finally:
        state.close()
