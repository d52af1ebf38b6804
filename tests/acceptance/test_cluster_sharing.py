"""Two daemons on one PostgreSQL, and on one Redis: one tree, whichever of them is asked."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, run_state_machine_as_test

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.acceptance.test_state_machine import IN_CI, FilesystemMachine
from tests.support.cluster import KINDS, Cluster, SpreadClient, at_once, running_cluster
from tests.support.http import Answer, Client

CONFLICT_FIELDS = {
    *("code", "message", "error", "existing_path", "instance_id", "backend_type", "suggestion", "update_url"),
}


@pytest.fixture(scope="module", params=KINDS)
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two daemons on one server."""
    folder = tmp_path_factory.mktemp(f"cluster-{request.param}")
    with running_cluster(folder, request.param, settings={"limits": ROOMY_LIMITS}) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """The two daemons; their logs are shown when the test fails."""
    for node in nodes.nodes:
        shown_on_failure(request, node)
    return nodes


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[tuple[Client, Client]]:
    """Alice at each of the nodes."""
    first, second = cluster.clients()
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def home(pair: tuple[Client, Client]) -> str:
    """A fresh directory of alice's, made through the first node."""
    return pair[0].made(f"/{secrets.token_hex(6)}")


def unreachable(answer: Answer) -> None:
    """The refusal of a node that would need bytes which are on the other."""
    answer.refused(503, "PEER_UNAVAILABLE")
    assert int(answer["Retry-After"]) >= 1


class TestSharing:
    """What one node acknowledged the other shows, in the very next request."""

    def test_files(self, pair: tuple[Client, Client], home: str) -> None:
        """New files, new content, and removals, in both directions, twenty times in a row."""
        for number in range(20):
            here, there = pair if number % 2 else pair[::-1]
            path = f"{home}/f{number}"
            assert there.head(path).status == 404
            tag = here.put(path, b"old")["ETag"]
            assert there.head(path)["ETag"] == tag
            new_tag = here.put(path, b"newer")["ETag"]
            seen = there.head(path)
            assert (seen["ETag"], seen["X-CallFS-Size"]) == (new_tag, "5")
            assert there.delete(path).status == 204
            assert here.get(path).status == 404

    def test_headers(self, pair: tuple[Client, Client], home: str) -> None:
        """HEAD says the same on both nodes: all about the file, and which node has its bytes."""
        here, there = pair
        path = here.stored(f"{home}/f", b"content", Content_Type="text/plain")
        changing = {"date", "x-request-id"}
        ours, theirs = (
            {name: value for name, value in client.head(path).headers if name not in changing} for client in pair
        )
        assert ours == theirs
        assert ours["x-callfs-instance-id"] == "node-1"
        there.stored(f"{home}/g")
        assert here.head(f"{home}/g")["X-CallFS-Instance-ID"] == "node-2"

    def test_listings(self, pair: tuple[Client, Client], home: str) -> None:
        """Both list the same entries, those of both nodes among each other, in one order."""
        names = [f"{number:02}" for number in range(20)]
        for number, name in enumerate(names):
            pair[number % 2].stored(f"{home}/{name}", name.encode())
        for client in pair:
            entries = client.directory(home).json()["items"]
            assert [entry["name"] for entry in entries] == names
            assert [entry["instance_id"] for entry in entries] == ["node-1", "node-2"] * 10
            assert [entry["name"] for entry in client.get(home).json()] == names

    def test_pages(self, pair: tuple[Client, Client], home: str) -> None:
        """The cursor of one node's page is good at the other."""
        for number in range(9):
            pair[number % 2].stored(f"{home}/d/{number}")
        seen: list[str] = []
        cursor = {}
        for number in range(5):
            page = pair[number % 2].directory(f"{home}/d", limit=2, **cursor).json()
            seen += [entry["name"] for entry in page["items"]]
            cursor = {"cursor": page["next_cursor"]} if "next_cursor" in page else {}
        assert (seen, cursor) == ([str(number) for number in range(9)], {})

    def test_names(self, pair: tuple[Client, Client], home: str) -> None:
        """A node renames, moves and removes what the other stores; the bytes stay where they are."""
        here, there = pair
        here.stored(f"{home}/a/b/f", b"content")
        assert there.patch(f"{home}/a/b/f", name="g").status == 200
        assert here.content(f"{home}/a/b/g") == b"content"
        assert there.patch(f"{home}/a", destination=f"{home}/x/y", create_parents=True).status == 200
        assert (here.content(f"{home}/x/y/b/g"), here.exists(f"{home}/a")) == (b"content", False)
        assert here.delete(f"{home}/x", "recursive=true").status == 204
        assert (there.exists(f"{home}/x"), there.names(home)) == (False, [])

    def test_attributes(self, cluster: Cluster, pair: tuple[Client, Client], home: str) -> None:
        """A node changes mode, time, type and owner of what the other stores."""
        here, there = pair
        path = here.stored(f"{home}/f")
        wanted = {"mode": "0600", "mtime": "2024-02-29T12:00:00.123456Z", "content_type": "text/css"}
        assert there.patch(path, **wanted).status == 200
        seen = here.head(path)
        assert (seen["X-CallFS-Mode"], seen["Content-Type"]) == ("0600", "text/css")
        assert seen["X-CallFS-MTime"] == there.head(path)["X-CallFS-MTime"] == "2024-02-29T12:00:00.123456Z"
        assert cluster.nodes[1].client("carol").patch(path, owner="bob").status == 200
        assert here.head(path)["X-CallFS-Owner"] == "bob"
        here.put(path, b"mine no more").refused(403, "PERMISSION_DENIED")

    def test_preconditions(self, pair: tuple[Client, Client], home: str) -> None:
        """The entity tag that one node gave is the one that the other compares."""
        here, there = pair
        path = f"{home}/f"
        old = here.put(path, b"old")["ETag"]
        new = here.put(path, b"new")["ETag"]
        there.request("DELETE", f"/v1/files{path}", headers={"If-Match": old}).refused(412, "PRECONDITION_FAILED")
        assert here.put(path, b"newer", headers={"If-Match": old}).status == 412
        assert there.request("DELETE", f"/v1/files{path}", headers={"If-Match": new}).status == 204


class TestBytesElsewhere:
    """A file whose bytes are on the other node: said at once, and nothing changes."""

    def test_reading(self, pair: tuple[Client, Client], home: str) -> None:
        """503 PEER_UNAVAILABLE, whole or in part; also where it shall be copied."""
        here, there = pair
        path = here.stored(f"{home}/f", b"content")
        unreachable(there.get(path))
        unreachable(there.get(path, headers={"Range": "bytes=1-2"}))
        unreachable(there.post(f"{home}/copy", query=f"copy_from={path}"))
        assert here.names(home) == ["f"]

    def test_replacing(self, pair: tuple[Client, Client], home: str) -> None:
        """503 PEER_UNAVAILABLE before the body; the content stays, and its own node replaces it."""
        here, there = pair
        path = here.stored(f"{home}/f", b"content")
        unreachable(there.put(path, b"other"))
        with there.connect() as wire:
            headers = {**there.authorization(), "Content-Length": "5", "Expect": "100-continue"}
            wire.send_request("PUT", f"/v1/files{path}", headers)
            assert wire.read_head().status == 503
        assert here.content(path) == b"content"
        assert here.put(path, b"other").status == 200

    def test_conflict(self, cluster: Cluster, pair: tuple[Client, Client], home: str) -> None:
        """409 says where the file is that is in the way, and the URL it gives is where to replace it."""
        here, there = pair
        path = here.stored(f"{home}/a b%ä", b"content")
        answer = there.post(path, b"other")
        answer.refused(409, "FILE_ALREADY_EXISTS")
        told = answer.json()
        assert set(told) == CONFLICT_FIELDS
        assert (told["existing_path"], told["instance_id"], told["backend_type"]) == (path, "node-1", "localfs")
        origin = cluster.node("node-1").origin
        assert told["update_url"].startswith(f"{origin}/v1/files/")
        assert here.request("PUT", told["update_url"].removeprefix(origin), b"other").status == 200
        assert here.content(path) == b"other"
        assert set(here.post(path, b"x").json()) == {"code", "message"}
        there.made(f"{home}/d")
        assert set(here.post(f"{home}/d", b"x").json()) == {"code", "message"}

    def test_parent_elsewhere(self, pair: tuple[Client, Client], home: str) -> None:
        """A file on the other node is no directory here either."""
        here, there = pair
        here.stored(f"{home}/f")
        for target in (f"{home}/f/g", f"{home}/f/g/h"):
            there.post(target, b"x").refused(409, "PARENT_NOT_A_DIRECTORY")
            there.put(target, b"x").refused(409, "PARENT_NOT_A_DIRECTORY")

    def test_link(self, pair: tuple[Client, Client], home: str) -> None:
        """A link made on one node works on the one that has the bytes; asking the other doesn't use it up."""
        here, there = pair
        token = there.link(here.stored(f"{home}/f", b"content")).json()["token"]
        assert there.request("HEAD", f"/download/{token}").status == 200
        unreachable(there.request("GET", f"/download/{token}"))
        assert here.request("GET", f"/download/{token}").body == b"content"
        for client in pair:
            client.request("GET", f"/download/{token}").refused(410, "LINK_USED")


class TestRaces:
    """Simultaneous requests to both nodes have one outcome."""

    def test_one_redemption(self, cluster: Cluster, pair: tuple[Client, Client], home: str) -> None:
        """Of 30 simultaneous requests for one link exactly one gets the file, whatever the other node is asked."""
        here, there = pair
        token = there.link(here.stored(f"{home}/f", b"content")).json()["token"]
        serving = [node.client(None) for node in [cluster.nodes[0]] * 30]
        asking = [node.client(None) for node in [cluster.nodes[1]] * 5]
        answers = at_once([partial(each.request, "GET", f"/download/{token}") for each in (*serving, *asking)])
        assert Counter(answer.status for answer in answers[:30]) == {200: 1, 410: 29}
        assert {answer.status for answer in answers[30:]} <= {503, 410}
        assert [answer.body for answer in answers if answer.status == 200] == [b"content"]

    def test_one_creation(self, cluster: Cluster, home: str) -> None:
        """Of 20 simultaneous creations of one path exactly one succeeds, with its parents; the rest are 409."""
        path = f"{home}/new/deep/f"
        clients = [node.client() for node in cluster.nodes for _ in range(10)]
        bodies = [b"%d" % number * 1000 for number in range(20)]
        answers = at_once([partial(client.post, path, body) for client, body in zip(clients, bodies, strict=True)])
        assert Counter(answer.status for answer in answers) == {201: 1, 409: 19}
        winner = next(number for number, answer in enumerate(answers) if answer.status == 201)
        assert clients[winner].content(path) == bodies[winner]
        assert {client.head(path)["ETag"] for client in clients} == {answers[winner]["ETag"]}
        from_the_other = answers[10:] if winner < 10 else answers[:10]
        assert all(set(answer.json()) == CONFLICT_FIELDS for answer in from_the_other)

    def test_one_file(self, cluster: Cluster, home: str) -> None:
        """Of 20 simultaneous PUTs of one path one creates it; its node replaces it, the other can't and says so."""
        path = f"{home}/new/f"
        clients = [node.client() for node in cluster.nodes for _ in range(10)]
        bodies = [b"%d" % number * 1000 for number in range(20)]
        answers = at_once([partial(client.put, path, body) for client, body in zip(clients, bodies, strict=True)])
        assert [answer.status for answer in answers].count(201) == 1
        holder = int(clients[0].head(path)["X-CallFS-Instance-ID"].removeprefix("node-")) - 1
        inside, outside = (answers[:10], answers[10:]) if holder == 0 else (answers[10:], answers[:10])
        assert Counter(answer.status for answer in inside) == {201: 1, 200: 9}
        assert {(answer.status, answer.code) for answer in outside} <= {
            (503, "PEER_UNAVAILABLE"),
            (409, "CONFLICT"),
        }
        tags = {answer["ETag"]: body for answer, body in zip(answers, bodies, strict=True) if answer.status < 300}
        last = clients[10 * holder].get(path)
        assert tags[last["ETag"]] == last.body

    def test_one_move(self, cluster: Cluster, pair: tuple[Client, Client], home: str) -> None:
        """Of 10 simultaneous moves of one directory exactly one succeeds, and takes everything along."""
        names = [f"{number:02}" for number in range(12)]
        for number, name in enumerate(names):
            pair[number % 2].stored(f"{home}/tree/sub/{name}", name.encode())
        movers = [node.client() for node in cluster.nodes * 5]
        answers = at_once(
            [
                partial(client.patch, f"{home}/tree", destination=f"{home}/moved-{number}")
                for number, client in enumerate(movers)
            ]
        )
        assert Counter(answer.status for answer in answers) == {200: 1, 404: 9}
        moved = next(answer.json()["path"] for answer in answers if answer.status == 200)
        for client in pair:
            assert client.names(home) == [moved.rpartition("/")[2]]
            assert client.names(f"{moved}/sub") == names
        for number, name in enumerate(names):
            assert pair[number % 2].content(f"{moved}/sub/{name}") == name.encode()

    def test_no_circle(self, pair: tuple[Client, Client], home: str) -> None:
        """Two directories moved into each other at the same moment: one is moved, and nothing is cut off."""
        here, there = pair
        for number in range(8):
            a, b = here.made(f"{home}/{number}a"), there.made(f"{home}/{number}b")
            answers = at_once(
                [
                    partial(here.patch, a, destination=f"{b}/a"),
                    partial(there.patch, b, destination=f"{a}/b"),
                ]
            )
            statuses = sorted(answer.status for answer in answers)
            assert statuses[0] == 200, statuses
            assert statuses[1] in (400, 404), statuses
            entries = here.directory(home, recursive="true").json()["items"]
            ours = [entry["path"] for entry in entries if entry["path"].startswith(f"{home}/{number}")]
            assert ours in ([a, f"{a}/b"], [b, f"{b}/a"])

    def test_creation_and_removal(self, pair: tuple[Client, Client], home: str) -> None:
        """A file created in a directory that the other node removes: never a file whose directory is gone."""
        here, there = pair
        for number in range(10):
            directory = here.made(f"{home}/{number}")
            made, gone = at_once([partial(here.post, f"{directory}/f", b"x"), partial(there.delete, directory)])
            assert made.status == 201
            assert gone.status in (204, 409)
            assert there.names(directory) == ["f"]

    def test_counting(self, cluster: Cluster, home: str) -> None:
        """Of writers that compare and set, on the node that has the file, none overwrites another's step."""
        path = cluster.nodes[0].client().stored(f"{home}/counter", b"0")

        def count() -> None:
            client = cluster.nodes[0].client()
            for _ in range(5):
                while True:
                    seen = client.get(path)
                    step = b"%d" % (int(seen.body) + 1)
                    if client.put(path, step, headers={"If-Match": seen["ETag"]}).status == 200:
                        break

        at_once([count] * 6)
        assert cluster.nodes[0].client().content(path) == b"30"


class SpreadMachine(FilesystemMachine):
    """As on one node, with every request at whichever node chance picks, unless it needs a file's bytes."""

    @initialize(seed=st.integers(0, 1 << 16))
    def spread(self, seed: int) -> None:
        for client in self.clients.values():
            assert isinstance(client, SpreadClient)
            client.reseed(seed)


@pytest.mark.timeout(300)
def test_against_the_model(cluster: Cluster) -> None:
    """Whatever several users do, in any order, through any node, the API and a plain dict agree."""
    SpreadMachine.daemon = cluster
    bounded = settings(
        max_examples=8,
        stateful_step_count=30,
        deadline=None,
        derandomize=IN_CI,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(SpreadMachine, settings=bounded)
