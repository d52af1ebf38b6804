"""``callfs cluster``: who belongs to the metadata cluster, and how it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import click
import msgspec

from callfs.cli.clusterview import MemberView, NodeView, gathered, parsed, rendered
from callfs.cli.daemonclient import (
    FAILURE_STATUS,
    DaemonClient,
    DaemonFailure,
    failing_with_status,
    url_option,
)
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.cli.recover import recover
from callfs.config.schema import Config

CHANGE_SECONDS = 60.0
STATUS_SECONDS = 5.0
_ROUTES = "/v1/internal/raft"
_SIDE_BY_SIDE = 16


@click.group()
@config_option
def cluster() -> None:
    """
    The cluster that keeps the metadata (metadata_store.type: raft).

    Every command but recover asks a running daemon, by default this configuration's own; any node will do.
    """


cluster.add_command(recover)


@cluster.command("join")
@config_option
@click.option("--leader", metavar="URL", required=True, help="Base URL of the API of any node of the cluster.")
@click.option("--node-id", metavar="ID", help="Who joins; by default this configuration's node.")
@click.option("--raft-addr", metavar="HOST:PORT", help="Where the others reach it; default raft.advertise_addr.")
@click.option("--api-endpoint", metavar="URL", help="Base URL of its API; default server.external_url.")
@click.option(
    "--internal-secret",
    metavar="SECRET",
    help="The cluster's internal secret; default auth.internal_proxy_secret, which no list of processes shows.",
)
def join_command(
    leader: str, node_id: str | None, raft_addr: str | None, api_endpoint: str | None, internal_secret: str | None
) -> None:
    """
    Let a node into a cluster.

    The node's daemon has to be running, with raft metadata, an empty raft.data_dir and raft.bootstrap off. It gets
    all of the log first, and votes when it has it. Joining twice changes nothing, nor does a join that is refused.

    Exit status: 0 it belongs to the cluster, 1 refusal or failure, 2 wrong usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config
    joining = {
        "node_id": node_id or config.raft_node_id,
        "raft_addr": raft_addr or config.raft_advertise_addr,
        "api_endpoint": api_endpoint or config.external_url,
    }

    def job() -> None:
        answer = DaemonClient(config, leader, CHANGE_SECONDS, internal_secret).post(f"{_ROUTES}/join", joining)
        click.echo(
            f"Node {joining['node_id']} belongs to the cluster that {_leader(answer)} leads. "
            "It votes as soon as it has all of the log; 'callfs cluster status' shows how far it is."
        )

    failing_with_status("cluster join", job)


@cluster.command("remove")
@config_option
@url_option
@click.argument("node")
def remove_command(url: str | None, node: str) -> None:
    """
    Remove NODE from the cluster for good, running or not.

    To come back it needs an empty raft.data_dir and has to join again. Removing twice changes nothing.

    Exit status: 0 it doesn't belong to the cluster, 1 refusal or failure, 2 wrong usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config

    def job() -> None:
        answer = DaemonClient(config, url, CHANGE_SECONDS).post(f"{_ROUTES}/remove", {"node_id": node})
        # Who mistyped the name sees here that the node that was meant is still a member.
        click.echo(f"Node {node} doesn't belong to the cluster. Its members are: {_members(answer)}.")

    failing_with_status("cluster remove", job)


@cluster.command("transfer-leader")
@config_option
@url_option
@click.argument("node")
def transfer_command(url: str | None, node: str) -> None:
    """
    Hand the leadership to NODE, which must be a voter that is up to date.

    Exit status: 0 it leads, 1 refusal or failure (the old leader goes on then), 2 wrong usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config

    def job() -> None:
        DaemonClient(config, url, CHANGE_SECONDS).post(f"{_ROUTES}/transfer-leader", {"node_id": node})
        click.echo(f"Node {node} leads the cluster.")

    failing_with_status("cluster transfer-leader", job)


@cluster.command("status")
@config_option
@url_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status_command(url: str | None, as_json: bool) -> None:
    """
    Show the nodes: role, term, last contact, log positions, lag.

    The daemon that is asked names the members, and each of them is asked for its own view, so this also works
    without a leader. CONTACT is how long ago the leader heard the node (without a leader: the node its leader), LAG
    how many entries of the leader's log it lacks.

    Exit status: 0 all is well, 1 something isn't (it is listed) or failure, 2 wrong usage or configuration.
    """
    config: Config = loaded_configuration(config_path()).config
    failing_with_status("cluster status", lambda: _show(config, url, as_json))


def _show(config: Config, url: str | None, as_json: bool) -> None:
    first = _status_of(DaemonClient(config, url, STATUS_SECONDS))
    view = gathered(first, partial(_ask, config))
    click.echo(msgspec.json.format(msgspec.json.encode(view)) if as_json else rendered(view))
    if view.findings:
        sys.exit(FAILURE_STATUS)


def _ask(config: Config, members: Sequence[MemberView]) -> Mapping[str, NodeView | str]:
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
        answers = threads.map(partial(_answer, config), members)
        return dict(zip((member.node_id for member in members), answers, strict=True))


def _answer(config: Config, member: MemberView) -> NodeView | str:
    if not member.api_endpoint:
        return "the URL of its API isn't known"
    try:
        view = _status_of(DaemonClient(config, member.api_endpoint, STATUS_SECONDS))
    except DaemonFailure as failure:
        return str(failure)
    return view if view.node_id == member.node_id else f"at {member.api_endpoint} answers node {view.node_id}"


def _status_of(client: DaemonClient) -> NodeView:
    answer = client.get(f"{_ROUTES}/status")
    try:
        return parsed(answer)
    except msgspec.ValidationError as error:
        raise DaemonFailure(f"what {client.url} answers can't be understood: {error}") from None


def _leader(answer: object) -> str:
    leader = answer.get("leader_id") if isinstance(answer, dict) else None
    return f"node {leader}" if leader else "a node that is just being elected"


def _members(answer: object) -> str:
    members = answer.get("members") if isinstance(answer, dict) else None
    return ", ".join(map(str, members or ())) or "unknown"
