"""``callfs cluster join|remove|transfer-leader|status``, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from callfs.cli import main
from tests.cli.servers import Asked, PlayedDaemon, played, refusal
from tests.cli.test_node import configuration, run
from tests.support.nodesite import SECRET
from tests.support.ports import free_port

JOIN, STATUS = "/v1/internal/raft/join", "/v1/internal/raft/status"


def as_node(tmp_path: Path, **raft: Any) -> Path:
    """The configuration of a node that keeps its metadata with others."""
    return configuration(
        tmp_path,
        server={"protocol": "http", "listen_addr": "127.0.0.1:1", "external_url": "http://n3.example:8443"},
        instance_discovery={"instance_id": "n3"},
        metadata_store={"type": "raft"},
        raft={"bind_addr": "127.0.0.3:7000", "advertise_addr": "10.0.0.3:7000", **raft},
    )


class TestJoin:
    def test_what_is_not_given_comes_from_the_configuration(self, tmp_path: Path) -> None:
        """The node's id, its raft address, the URL of its API, and the secret."""
        with played(lambda _: {"status": "joined", "leader_id": "n1"}) as leader:
            status, out, err = run(as_node(tmp_path), "cluster", "join", "--leader", leader.url)
        assert (status, err) == (0, "")
        assert out.startswith("Node n3 belongs to the cluster that node n1 leads. ")
        joining = {"node_id": "n3", "raft_addr": "10.0.0.3:7000", "api_endpoint": "http://n3.example:8443"}
        assert leader.asked == [Asked("POST", JOIN, f"Bearer {SECRET}", joining)]

    def test_what_is_given_wins(self, tmp_path: Path) -> None:
        """Every option."""
        given = {
            "--node-id": "n4",
            "--raft-addr": "10.0.0.4:7000",
            "--api-endpoint": "http://n4.example",
            "--internal-secret": "another-internal-secret",
        }
        arguments = [text for pair in given.items() for text in pair]
        with played(lambda _: {"status": "joined", "leader_id": None}) as leader:
            status, out, _ = run(as_node(tmp_path), "cluster", "join", "--leader", leader.url, *arguments)
        assert status == 0
        assert out.startswith("Node n4 belongs to the cluster that a node that is just being elected leads.")
        (asked,) = leader.asked
        assert asked.authorization == "Bearer another-internal-secret"
        assert list(asked.body.values()) == list(given.values())[:3]

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (
                refusal(409, "CONFLICT", "the leader can't reach 10.0.0.3:7000: no answer", reason="unreachable"),
                "no answer",
            ),
            (
                refusal(409, "CONFLICT", "another node answers at this address", reason="node"),
                "another node answers",
            ),
            (refusal(401, "AUTHENTICATION_FAILED", "no"), "auth.internal_proxy_secret is the same on all nodes"),
            (refusal(503, "METADATA_UNAVAILABLE", "there is no leader"), "there is no leader"),
            (refusal(404, "NOT_FOUND", "its metadata_store.type isn't raft"), "isn't raft"),
        ],
    )
    def test_refusals(self, tmp_path: Path, answer: Exception, said: str) -> None:
        """Status 1, and what is wrong."""

        def behaviour(_: Asked) -> object:
            raise answer

        with played(behaviour) as leader:
            status, out, err = run(as_node(tmp_path), "cluster", "join", "--leader", leader.url)
        assert (status, out) == (1, "")
        assert err.startswith("callfs cluster join: ")
        assert said in err

    def test_nobody_there(self, tmp_path: Path) -> None:
        """A mistyped URL is named."""
        url = f"http://127.0.0.1:{free_port()}"
        status, _, err = run(as_node(tmp_path), "cluster", "join", "--leader", url)
        assert status == 1
        assert f"the daemon at {url} can't be asked" in err
        assert run(as_node(tmp_path), "cluster", "join", "--leader", "ftp://n1")[0] == 1


class TestChanges:
    @pytest.mark.parametrize(
        ("command", "said"),
        [
            ("remove", "Node n2 doesn't belong to the cluster. Its members are: n1, n3.\n"),
            ("transfer-leader", "Node n2 leads the cluster.\n"),
        ],
    )
    def test_done(self, tmp_path: Path, command: str, said: str) -> None:
        """The daemon is asked, and the outcome said."""
        with played(lambda _: {"leader_id": "n1", "members": ["n1", "n3"]}) as daemon:
            assert run(as_node(tmp_path), "cluster", command, "n2", "--url", daemon.url) == (0, said, "")
        assert daemon.asked == [
            Asked("POST", f"/v1/internal/raft/{command}", f"Bearer {SECRET}", {"node_id": "n2"})
        ]

    @pytest.mark.parametrize("command", ["remove", "transfer-leader"])
    def test_refused(self, tmp_path: Path, command: str) -> None:
        """Status 1 and the reason."""

        def behaviour(_: Asked) -> object:
            raise refusal(409, "CONFLICT", "the node is still catching up, so it can't lead", reason="not_a_voter")

        with played(behaviour) as daemon:
            status, out, err = run(as_node(tmp_path), "cluster", command, "n2", "--url", daemon.url)
        assert (status, out) == (1, "")
        assert err == f"callfs cluster {command}: the node is still catching up, so it can't lead\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            ("join",),
            ("join", "--leader"),
            ("remove",),
            ("remove", "n1", "n2"),
            ("transfer-leader",),
            ("status", "n1"),
            ("recover", "--yes"),
            ("leave",),
        ],
    )
    def test_wrong_usage(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        """Status 2."""
        assert run(as_node(tmp_path), "cluster", *arguments)[0] == 2

    def test_help(self) -> None:
        """Every command explains itself."""
        assert "cluster" in CliRunner().invoke(main, ["--help"]).stdout
        group = main.get_command(click.Context(main), "cluster")
        assert isinstance(group, click.Group)
        assert set(group.commands) == {"join", "remove", "transfer-leader", "status", "recover"}
        assert all("Exit status:" in (command.help or "") for command in group.commands.values())


class Trio:
    """Three daemons whose answers to the status a test changes; ``n3`` is a learner."""

    def __init__(self, stack: ExitStack) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.daemons: dict[str, PlayedDaemon] = {}
        for name in ("n1", "n2", "n3"):
            self.daemons[name] = stack.enter_context(played(lambda _, name=name: self.answers[name]))  # type: ignore[misc]
        members = [
            {
                "node_id": name,
                "voter": name != "n3",
                "raft_addr": f"10.0.0.{name[1]}:7000",
                "api_endpoint": daemon.url,
                "disk_id": f"disk-{name}",
                "version": 1,
            }
            for name, daemon in self.daemons.items()
        ]
        for name in self.daemons:
            self.answers[name] = {
                "node_id": name,
                "cluster_id": "c1",
                "disk_id": f"disk-{name}",
                "role": "follower",
                "term": 4,
                "leader_id": "n1",
                "leader_silent_seconds": 0.1,
                "removed": False,
                "writable": True,
                "disk_full": False,
                "stopped_because": "",
                "first_index": 1,
                "last_index": 118,
                "durable_index": 118,
                "commit_index": 117,
                "applied_index": 116,
                "log_bytes": 1000,
                "transferring_to": None,
                "refused_conflicts": 0,
                "connected": [],
                "members": members,
                "peers": [],
            }
        self.answers["n1"].update(
            role="leader",
            leader_silent_seconds=0.0,
            last_index=120,
            commit_index=119,
            applied_index=119,
            peers=[self.peer("n2", 118), self.peer("n3", 100, silent_seconds=2.5)],
        )

    def peer(self, name: str, match: int, **changes: Any) -> dict[str, Any]:
        """A follower as its leader sees it."""
        seen = {"node_id": name, "state": "replicate", "match_index": match, "lag": 120 - match}
        return {**seen, "silent_seconds": 0.2, "other_disk": False, **changes}

    def lose(self, *names: str) -> None:
        """These don't answer any more."""
        for name in names:
            self.daemons.pop(name).close()

    def status(self, tmp_path: Path, *options: str, of: str = "n1") -> tuple[int, str, str]:
        """``callfs cluster status`` through a node."""
        return run(as_node(tmp_path), "cluster", "status", "--url", self.daemons[of].url, *options)


@pytest.fixture
def trio() -> Iterator[Trio]:
    """Three daemons."""
    with ExitStack() as stack:
        made = Trio(stack)
        yield made
        stack.pop_all()
        made.lose(*list(made.daemons))


class TestStatus:
    def test_all_is_well(self, trio: Trio, tmp_path: Path) -> None:
        """A line for each node with role, term, last contact, log positions and lag; the same whoever is asked."""
        status, out, err = trio.status(tmp_path)
        assert (status, err) == (0, "")
        head, columns, *rows = out.splitlines()
        assert head == "Cluster c1, leader n1, term 4"
        assert columns.split() == [
            "NODE",
            "ROLE",
            "TERM",
            "CONTACT",
            "LOG",
            "END",
            "COMMITTED",
            "APPLIED",
            "LAG",
            "RAFT",
            "API",
        ]
        assert [row.split()[:-1] for row in rows] == [
            ["n1", "leader", "4", "-", "120", "119", "119", "0", "10.0.0.1:7000"],
            ["n2", "follower", "4", "0.2", "s", "118", "117", "116", "2", "10.0.0.2:7000"],
            ["n3", "learner", "4", "2.5", "s", "118", "117", "116", "2", "10.0.0.3:7000"],
        ]
        assert trio.status(tmp_path, of="n2") == (status, out, err)

    def test_for_programs(self, trio: Trio, tmp_path: Path) -> None:
        """The same as JSON."""
        status, out, _ = trio.status(tmp_path, "--json")
        found = json.loads(out)
        assert status == 0
        assert (found["cluster_id"], found["leader_id"], found["term"], found["findings"]) == ("c1", "n1", 4, [])
        assert [node["role"] for node in found["nodes"]] == ["leader", "follower", "learner"]
        assert found["nodes"][1]["contact_seconds"] == 0.2
        assert found["nodes"][1]["lag"] == 2

    def test_a_node_that_is_down(self, trio: Trio, tmp_path: Path) -> None:
        """It is shown with what its leader knows of it, and said below the table; status 1."""
        trio.lose("n3")
        status, out, _ = trio.status(tmp_path)
        assert status == 1
        assert out.splitlines()[4].split()[:-1] == (
            ["n3", "unreachable", "-", "2.5", "s", "100", "-", "-", "20", "10.0.0.3:7000"]
        )
        assert "! node n3 doesn't answer: the daemon at http://" in out

    def test_a_node_that_was_never_heard(self, trio: Trio, tmp_path: Path) -> None:
        """A leader that hasn't heard from it since its election knows nothing of its log."""
        trio.answers["n1"]["peers"] = [trio.peer("n2", 118), trio.peer("n3", 0, silent_seconds=9.0)]
        trio.lose("n3")
        _, out, _ = trio.status(tmp_path)
        assert out.splitlines()[4].split()[:-2] == ["n3", "unreachable", "-", "9.0", "s", "-", "-", "-", "-"]

    def test_without_a_leader(self, trio: Trio, tmp_path: Path) -> None:
        """What is left of the cluster shows what it knows."""
        trio.answers["n2"].update(role="pre_candidate", leader_id=None, term=5)
        trio.lose("n1", "n3")
        status, out, _ = trio.status(tmp_path, of="n2")
        assert status == 1
        assert out.startswith("Cluster c1, leader unknown, term 5\n")
        assert out.splitlines()[3].split()[:4] == ["n2", "pre_candidate", "5", "-"]
        assert "! no leader is known" in out

    def test_an_old_leader_is_not_believed(self, trio: Trio, tmp_path: Path) -> None:
        """Of two that say they lead the one with the newer term counts."""
        trio.answers["n2"].update(role="leader", term=9, leader_id="n2", last_index=130, peers=[])
        status, out, _ = trio.status(tmp_path)
        assert out.startswith("Cluster c1, leader n2, term 9\n")
        assert out.splitlines()[2].split()[7] == "10"
        assert status == 0

    def test_members_that_the_first_does_not_know(self, trio: Trio, tmp_path: Path) -> None:
        """What the leader says about who belongs to the cluster counts."""
        trio.answers["n2"]["members"] = trio.answers["n2"]["members"][:2]
        status, out, _ = trio.status(tmp_path, of="n2")
        assert (status, "n3  " in out) == (0, True)

    @pytest.mark.parametrize(
        ("changes", "role", "said"),
        [
            ({"stopped_because": "its disk failed"}, "stopped", "node n2 takes no part any more: its disk failed"),
            ({"removed": True}, "removed", "node n2 was told that it is removed"),
            ({"disk_full": True}, "follower", "node n2 has no room left"),
            ({"cluster_id": "c2", "term": 99}, "follower", "node n2 says that it belongs to another cluster (c2)"),
        ],
    )
    def test_findings(self, trio: Trio, tmp_path: Path, changes: dict[str, Any], role: str, said: str) -> None:
        """What isn't as it should be is said, with status 1."""
        trio.answers["n2"].update(changes)
        status, out, _ = trio.status(tmp_path)
        assert status == 1
        assert out.startswith("Cluster c1, leader n1, term 4\n")
        assert out.splitlines()[3].split()[:2] == ["n2", role]
        assert f"! {said}" in out

    def test_another_disk(self, trio: Trio, tmp_path: Path) -> None:
        """A voter that was wiped doesn't count until it was removed and joined again."""
        trio.answers["n1"]["peers"][0]["other_disk"] = True
        status, out, _ = trio.status(tmp_path)
        assert status == 1
        assert "! node n2 answers from another disk than it joined with" in out

    def test_another_node_answers(self, trio: Trio, tmp_path: Path) -> None:
        """A URL that belongs to another node isn't taken for the member's."""
        trio.answers["n2"]["node_id"] = "n3"
        status, out, _ = trio.status(tmp_path)
        assert (status, "! node n2 doesn't answer: at http://" in out) == (1, True)

    def test_a_node_that_was_never_joined(self, trio: Trio, tmp_path: Path) -> None:
        """It says what it waits for."""
        trio.answers["n1"].update(cluster_id="", members=[], peers=[], role="follower", leader_id=None)
        status, out, _ = trio.status(tmp_path)
        assert status == 1
        assert "! node n1 belongs to no cluster yet" in out

    @pytest.mark.parametrize("answer", [{}, [], {"node_id": "n1"}, None])
    def test_an_answer_of_another_version(self, tmp_path: Path, answer: object) -> None:
        """What can't be understood is a failure that names the daemon."""
        with played(lambda _: answer) as daemon:
            status, _, err = run(as_node(tmp_path), "cluster", "status", "--url", daemon.url)
        assert status == 1
        assert f"what {daemon.url} answers can't be understood" in err

    def test_terminals_are_safe(self, trio: Trio, tmp_path: Path) -> None:
        """What a node says can't move the cursor."""
        trio.answers["n1"]["members"][1]["raft_addr"] = "10.0.0.2\x1b[2J\n:7000"
        _, out, _ = trio.status(tmp_path)
        assert "\x1b" not in out
        assert len(out.splitlines()) == 5
