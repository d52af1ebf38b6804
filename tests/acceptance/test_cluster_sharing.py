"""Three daemons on one PostgreSQL, on one Redis, and on none: one tree, and all its bytes, whoever is asked."""

from __future__ import annotations

import base64
import hashlib
import random
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.acceptance.test_ranges import parts_of
from tests.acceptance.test_state_machine import IN_CI, FilesystemMachine
from tests.support.cluster import KINDS, Cluster, SpreadClient, at_once, running_cluster
from tests.support.http import Answer, Client
from tests.support.raftcluster import running_raft_cluster
from tests.support.waiting import eventually
from tests.support.websocket import WebSocket, websocket_target

RAFT = "raft"
CONTENT = random.Random(4).randbytes(300_001)
CONFLICT_FIELDS = {
    *("code", "message", "error", "existing_path", "instance_id", "backend_type", "suggestion", "update_url"),
}


@pytest.fixture(scope="module", params=(*KINDS, RAFT))
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three daemons on one server, which find each other through it; or without one, by Raft."""
    folder = tmp_path_factory.mktemp(f"cluster-{request.param}")
    limits = {"limits": ROOMY_LIMITS}
    running: AbstractContextManager[Cluster] = (
        running_raft_cluster(folder, settings=limits)
        if request.param == RAFT
        else running_cluster(folder, request.param, settings=limits)
    )
    with running as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes: Cluster, request: pytest.FixtureRequest) -> Cluster:
    """The daemons; their logs are shown when the test fails."""
    for node in nodes.nodes:
        shown_on_failure(request, node)
    return nodes


@pytest.fixture
def trio(cluster: Cluster) -> Iterator[list[Client]]:
    """Alice at each of the nodes."""
    clients = cluster.clients()
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def pair(trio: list[Client]) -> tuple[Client, Client]:
    """Alice at the first node and at the second."""
    return trio[0], trio[1]


@pytest.fixture
def home(trio: list[Client]) -> str:
    """A fresh directory of alice's, made through the first node."""
    return trio[0].made(f"/{secrets.token_hex(6)}")


def instance(number: int) -> str:
    """The name of the node that a client of that number speaks to."""
    return f"node-{number + 1}"


@pytest.fixture
def files(trio: list[Client], home: str) -> dict[str, str]:
    """A file on each of the nodes: its path by the name of the node."""
    return {
        instance(number): client.stored(f"{home}/on-{number + 1}", CONTENT, Content_Type="text/plain")
        for number, client in enumerate(trio)
    }


def blobs_of(cluster: Cluster) -> set[Path]:
    """What all nodes have on their disks."""
    return {path for node in cluster.nodes for path in node.blobs()}


def stable(answer: Answer) -> dict[str, str]:
    """The headers that don't differ from one request to the next."""
    return {name: value for name, value in answer.headers if name not in ("date", "x-request-id")}


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

    def test_listings(self, trio: list[Client], home: str) -> None:
        """All list the same entries, those of all nodes among each other, in one order."""
        names = [f"{number:02}" for number in range(21)]
        for number, name in enumerate(names):
            trio[number % 3].stored(f"{home}/{name}", name.encode())
        for client in trio:
            entries = client.directory(home).json()["items"]
            assert [entry["name"] for entry in entries] == names
            assert [entry["instance_id"] for entry in entries] == ["node-1", "node-2", "node-3"] * 7
            assert [entry["name"] for entry in client.get(home).json()] == names

    def test_pages(self, trio: list[Client], home: str) -> None:
        """The cursor of one node's page is good at another."""
        for number in range(9):
            trio[number % 3].stored(f"{home}/d/{number}")
        seen: list[str] = []
        cursor = {}
        for number in range(5):
            page = trio[number % 3].directory(f"{home}/d", limit=2, **cursor).json()
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
    """Every node does everything with the files of every node; the bytes stay where they are."""

    def test_reading(self, trio: list[Client], files: dict[str, str]) -> None:
        """Every node serves every file, whole, with the same headers, which name the node that has it."""
        for holder, path in files.items():
            answers = [client.get(path) for client in trio]
            assert [(answer.status, answer.body) for answer in answers] == [(200, CONTENT)] * 3
            heads = [client.head(path) for client in trio]
            assert all(stable(head) == stable(answers[0]) for head in (*heads, *answers))
            assert heads[0]["X-CallFS-Instance-ID"] == holder
            assert (
                heads[0]["Repr-Digest"]
                == f"sha-256=:{base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()}:"
            )

    def test_sizes(self, trio: list[Client], home: str) -> None:
        """A file with nothing in it, one with a byte, and one of many megabytes, written and read elsewhere."""
        for number, size in enumerate((0, 1, 24 * 1024 * 1024)):
            path, content = f"{home}/{number}", random.Random(size).randbytes(size)
            trio[0].stored(path)
            assert trio[1].put(path, content).status == 200
            assert {client.content(path) == content for client in trio} == {True}
            assert trio[2].head(path)["X-CallFS-Instance-ID"] == "node-1"

    def test_ranges(self, trio: list[Client], files: dict[str, str]) -> None:
        """One range, several of them, and none that is there."""
        for path in files.values():
            for client in trio:
                answer = client.get(path, headers={"Range": "bytes=100000-200000"})
                assert (answer.status, answer.body) == (206, CONTENT[100_000:200_001])
                assert answer["Content-Range"] == f"bytes 100000-200000/{len(CONTENT)}"
                assert client.get(path, headers={"Range": "bytes=-5"}).body == CONTENT[-5:]
                # In no order, and far apart: what streams from another node is read forwards and backwards.
                answer = client.get(path, headers={"Range": "bytes=250000-250009,0-9,299000-"})
                assert [part for _, part in parts_of(answer)] == [
                    CONTENT[250_000:250_010],
                    CONTENT[:10],
                    CONTENT[299_000:],
                ]
                client.get(path, headers={"Range": "bytes=300001-"}).refused(416, "RANGE_NOT_SATISFIABLE")

    def test_conditional_reads(self, trio: list[Client], files: dict[str, str]) -> None:
        """304, 412, and a range only of the content that the client knows."""
        for path in files.values():
            tag = trio[0].head(path)["ETag"]
            for client in trio:
                assert client.get(path, headers={"If-None-Match": tag}).status == 304
                assert client.get(path, headers={"If-Match": '"other"'}).status == 412
                part = {"Range": "bytes=0-2"}
                assert client.get(path, headers={**part, "If-Range": tag}).body == CONTENT[:3]
                assert client.get(path, headers={**part, "If-Range": '"other"'}).body == CONTENT

    def test_replacing(self, trio: list[Client], files: dict[str, str]) -> None:
        """New content through every node, with a length and without: it stays on its node, all see it at once."""
        for holder, path in files.items():
            for number, client in enumerate(trio):
                content = secrets.token_bytes(100_000)
                for body in (content[::-1], [content[:70_000], content[70_000:]]):
                    assert client.put(path, body, headers={"Content-Type": "text/css"}).status == 200
                seen = [other.get(path) for other in trio[number:] + trio[:number]]
                assert {answer.body for answer in seen} == {content}
                assert {answer["X-CallFS-Instance-ID"] for answer in seen} == {holder}
                assert {answer["Content-Type"] for answer in seen} == {"text/css"}

    def test_conditional_writes(self, trio: list[Client], files: dict[str, str]) -> None:
        """What must be replaced is replaced once; a refusal comes before the body."""
        for path in files.values():
            for client in trio:
                tag = client.head(path)["ETag"]
                assert client.put(path, b"new", headers={"If-Match": tag}).status == 200
                client.put(path, b"newer", headers={"If-Match": tag}).refused(412, "PRECONDITION_FAILED")
                client.put(path, b"newer", headers={"If-None-Match": "*"}).refused(412, "PRECONDITION_FAILED")
                with client.connect() as wire:
                    headers = {**client.authorization(), "Content-Length": "5", "If-Match": tag}
                    wire.send_request("PUT", f"/v1/files{path}", {**headers, "Expect": "100-continue"})
                    assert wire.read_head().status == 412
            assert trio[0].content(path) == b"new"

    def test_bad_bodies(self, cluster: Cluster, trio: list[Client], files: dict[str, str]) -> None:
        """A wrong digest, and a client that goes away: the content stays, and nothing is left on any node."""
        before = blobs_of(cluster)
        for path in files.values():
            for client in trio:
                wrong = {"Content-MD5": base64.b64encode(bytes(16)).decode()}
                client.put(path, CONTENT[::-1], headers=wrong).refused(400, "CHECKSUM_MISMATCH")
                with client.connect() as wire:
                    wire.send_request(
                        "PUT", f"/v1/files{path}", {**client.authorization(), "Content-Length": "500000"}
                    )
                    wire.send(CONTENT)
                    wire.reset()
            assert {client.content(path) == CONTENT for client in trio} == {True}
        staging = [node.root / "staging" for node in cluster.nodes]
        eventually(lambda: not any(list(folder.iterdir()) for folder in staging), what="empty staging folders")
        eventually(lambda: blobs_of(cluster) <= before, what="no blob more than before")

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
        assert there.content(path) == b"other"
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

    def test_copies(self, trio: list[Client], files: dict[str, str], home: str) -> None:
        """Every node copies every file; the copy is its own."""
        for holder, path in files.items():
            for number, client in enumerate(trio):
                copy = f"{home}/copy-of-{holder}-{number}"
                assert client.post(copy, query=f"copy_from={path}").status == 201
                seen = [other.get(copy) for other in trio]
                assert {answer.body == CONTENT for answer in seen} == {True}
                assert {answer["X-CallFS-Instance-ID"] for answer in seen} == {instance(number)}

    def test_owners(self, cluster: Cluster, files: dict[str, str], home: str) -> None:
        """Whoever asked is the owner, and is the one who may write, whichever node was asked and has the bytes."""
        bobs = cluster.clients("bob")
        for number, bob in enumerate(bobs):
            path = bob.stored(f"{home}/of-bob-{number}")
            assert {client.head(path)["X-CallFS-Owner"] for client in bobs} == {"bob"}
            for other in files.values():
                assert bob.content(other) == CONTENT
                bob.put(other, b"mine").refused(403, "PERMISSION_DENIED")
                bob.delete(other).refused(403, "PERMISSION_DENIED")
        for carol, path in zip(cluster.clients("carol")[::-1], files.values(), strict=True):
            assert carol.put(path, b"by the administrator").status == 200
            assert carol.head(path)["X-CallFS-Owner"] == "alice"

    def test_logs(self, cluster: Cluster, pair: tuple[Client, Client], home: str) -> None:
        """What a node does for a request at another says so: request id and user are those of the request."""
        here, there = pair
        path = here.stored(f"{home}/f")
        for answer in (there.get(path), there.put(path, b"new")):
            asked = answer["X-Request-ID"]

            def joined(asked: str = asked) -> list[str]:
                events = cluster.node("node-1").access_events()
                return [event["origin_user"] for event in events if event.get("origin_request_id") == asked]

            assert set(eventually(joined, what="the request's trace on the other node")) == {"alice"}

    def test_removal(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """Every node removes the files of every node, and whole trees of them; their bytes go."""
        before = blobs_of(cluster)
        for number, client in enumerate(trio):
            client.stored(f"{home}/{number}")
            client.stored(f"{home}/tree/{number}/f")
        new = blobs_of(cluster) - before
        assert len(new) == 6
        for number, client in enumerate(trio):
            assert client.delete(f"{home}/{(number + 1) % 3}").status == 204
        assert trio[1].delete(f"{home}/tree", "recursive=true").status == 204
        assert [client.names(home) for client in trio] == [[]] * 3
        eventually(
            lambda: not any(path.exists() for path in new), within_seconds=30, what="the end of the removed bytes"
        )

    def test_websockets(self, trio: list[Client], files: dict[str, str], home: str) -> None:
        """Up and down over WebSocket, through every node, for the files of every node, and for new ones."""
        for holder, path in files.items():
            for number, client in enumerate(trio):
                with WebSocket(client, websocket_target(path, "offset=100000")) as connection:
                    frames, code = connection.receive_all()
                assert (b"".join(frame.payload for frame in frames), code) == (CONTENT[100_000:], 1000)
                content = secrets.token_bytes(100_000)
                target = websocket_target(path, f"mode=upload&size={len(content)}")
                with WebSocket(client, target) as connection:
                    connection.send(content)
                    frames, code = connection.receive_all()
                assert ([frame.payload for frame in frames], code) == ([b"ok:100000"], 1000)
                seen = trio[(number + 1) % 3].get(path)
                assert (seen.body == content, seen["X-CallFS-Instance-ID"]) == (True, holder)
                client.stored(path, CONTENT)
        with WebSocket(trio[2], websocket_target(f"{home}/new", "mode=upload&size=3")) as connection:
            connection.send(b"new")
            connection.receive_all()
        assert trio[0].get(f"{home}/new")["X-CallFS-Instance-ID"] == "node-3"

    def test_links(self, trio: list[Client], files: dict[str, str]) -> None:
        """A link made on any node for a file of any node works once, on any node."""
        for path in files.values():
            for number, maker in enumerate(trio):
                token = maker.link(path).json()["token"]
                user = trio[(number + 1) % 3]
                assert user.request("HEAD", f"/download/{token}").status == 200
                answer = user.request("GET", f"/download/{token}")
                assert (answer.status, answer.body) == (200, CONTENT)
                for client in trio:
                    client.request("GET", f"/download/{token}").refused(410, "LINK_USED")

    def test_relocation(self, cluster: Cluster, trio: list[Client], files: dict[str, str], home: str) -> None:
        """
        Every node brings a file, and a tree, from any node to any other; entity tag and content are the same, and
        what was on the disk before goes.
        """
        path = files["node-1"]
        tag = trio[0].head(path)["ETag"]
        for number, target in enumerate(("node-2", "node-3", "node-1")):
            asked = trio[(number + 2) % 3]
            assert asked.patch(path, instance=target).status == 200
            heads = [client.head(path) for client in trio]
            assert {(head["X-CallFS-Instance-ID"], head["ETag"]) for head in heads} == {(target, tag)}
            assert {client.content(path) == CONTENT for client in trio} == {True}
        assert trio[1].patch(home, name=f"{home[1:]}-moved", instance="node-3").status == 200
        moved = f"{home}-moved"
        assert trio[0].exists(home) is False
        entries = trio[0].directory(moved).json()["items"]
        assert [(entry["name"], entry["instance_id"]) for entry in entries] == [
            (f"on-{number}", "node-3") for number in (1, 2, 3)
        ]
        assert {client.content(f"{moved}/on-2") == CONTENT for client in trio} == {True}
        trio[0].patch(moved, instance="node-9").refused(400, "BAD_REQUEST")


class TestRaces:
    """Simultaneous requests to both nodes have one outcome."""

    def test_one_redemption(self, cluster: Cluster, pair: tuple[Client, Client], home: str) -> None:
        """Of 30 simultaneous requests for one link, at all nodes, exactly one gets the file."""
        here, there = pair
        token = there.link(here.stored(f"{home}/f", CONTENT)).json()["token"]
        askers = [node.client(None) for node in cluster.nodes * 10]
        answers = at_once([partial(asker.request, "GET", f"/download/{token}") for asker in askers])
        assert Counter(answer.status for answer in answers) == {200: 1, 410: 29}
        assert [answer.body for answer in answers if answer.status == 200] == [CONTENT]

    def test_one_creation(self, cluster: Cluster, home: str) -> None:
        """Of 18 simultaneous creations of one path exactly one succeeds, with its parents; the rest are 409."""
        path = f"{home}/new/deep/f"
        clients = [node.client() for node in cluster.nodes for _ in range(6)]
        bodies = [b"%d" % number * 1000 for number in range(18)]
        answers = at_once([partial(client.post, path, body) for client, body in zip(clients, bodies, strict=True)])
        assert Counter(answer.status for answer in answers) == {201: 1, 409: 17}
        winner = next(number for number, answer in enumerate(answers) if answer.status == 201)
        assert clients[winner].content(path) == bodies[winner]
        assert {client.head(path)["ETag"] for client in clients} == {answers[winner]["ETag"]}
        elsewhere = [answer for number, answer in enumerate(answers) if number // 6 != winner // 6]
        assert all(set(answer.json()) == CONFLICT_FIELDS for answer in elsewhere)

    def test_one_file(self, cluster: Cluster, home: str) -> None:
        """
        Simultaneous PUTs of one path through all nodes all succeed; in the end every node has the content of one of
        them, the same one at once, and the node that got the file first has it still.
        """
        path = f"{home}/new/f"
        for first in range(3):
            clients = [node.client() for node in cluster.nodes * 6]
            bodies = [b"%d %d " % (first, number) * 1000 for number in range(18)]
            answers = at_once(
                [partial(client.put, path, body) for client, body in zip(clients, bodies, strict=True)]
            )
            assert Counter(answer.status for answer in answers) == ({200: 18} if first else {201: 1, 200: 17})
            contents = {answer["ETag"]: body for answer, body in zip(answers, bodies, strict=True)}
            seen = at_once([partial(node.client().get, path) for node in cluster.nodes * 2])
            assert len({answer["ETag"] for answer in seen}) == 1
            assert {answer.body for answer in seen} == {contents[seen[0]["ETag"]]}
            assert len({answer["X-CallFS-Instance-ID"] for answer in seen}) == 1

    def test_one_move(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """Of 9 simultaneous moves of one directory exactly one succeeds, and takes everything along."""
        names = [f"{number:02}" for number in range(12)]
        for number, name in enumerate(names):
            trio[number % 3].stored(f"{home}/tree/sub/{name}", name.encode())
        movers = [node.client() for node in cluster.nodes * 3]
        answers = at_once(
            [
                partial(client.patch, f"{home}/tree", destination=f"{home}/moved-{number}")
                for number, client in enumerate(movers)
            ]
        )
        assert Counter(answer.status for answer in answers) == {200: 1, 404: 8}
        moved = next(answer.json()["path"] for answer in answers if answer.status == 200)
        for client in trio:
            assert client.names(home) == [moved.rpartition("/")[2]]
            assert client.names(f"{moved}/sub") == names
        for number, name in enumerate(names):
            assert trio[(number + 1) % 3].content(f"{moved}/sub/{name}") == name.encode()

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
        """Of writers at all nodes that compare and set none overwrites another's step."""
        path = cluster.nodes[0].client().stored(f"{home}/counter", b"0")

        def count(client: Client) -> None:
            for _ in range(4):
                while True:
                    seen = client.get(path)
                    step = b"%d" % (int(seen.body) + 1)
                    answer = client.put(path, step, headers={"If-Match": seen["ETag"]})
                    assert answer.status in (200, 412), answer
                    if answer.status == 200:
                        break

        at_once([partial(count, node.client()) for node in cluster.nodes * 2])
        assert {client.content(path) for client in cluster.clients()} == {b"24"}

    def test_relocated_under_use(self, cluster: Cluster, home: str) -> None:
        """
        A file that goes from node to node while all nodes read and replace it: every reader gets one whole
        content, and what was acknowledged last is what is there.
        """
        path = cluster.nodes[0].client().stored(f"{home}/f", CONTENT)
        contents = [random.Random(number).randbytes(80_000 + number) for number in range(30)]
        ending = threading.Event()

        def relocate() -> list[int]:
            try:
                return [
                    node.client().patch(path, instance=f"node-{number % 3 + 1}").status
                    for number, node in enumerate(cluster.nodes * 5)
                ]
            finally:
                ending.set()

        def read(client: Client) -> list[int]:
            while not ending.is_set():
                answer = client.get(path)
                assert (answer.status, answer.body in (CONTENT, *contents)) == (200, True), answer
            return []

        def write(client: Client) -> list[int]:
            statuses = []
            for content in contents:
                if ending.is_set():
                    break
                statuses.append(client.put(path, content).status)
            return statuses

        relocated, *_, written = at_once(
            [relocate, *(partial(read, client) for client in cluster.clients()), partial(write, cluster.client())]
        )
        assert set(relocated) <= {200, 400, 409}
        assert 200 in relocated
        assert set(written) <= {200, 409}
        last = max(number for number, status in enumerate(written) if status == 200)
        assert [client.content(path) == contents[last] for client in cluster.clients()] == [True] * 3


class SpreadMachine(FilesystemMachine):
    """As on one node, with every request at whichever node chance picks, and the bytes on their way."""

    @initialize(seed=st.integers(0, 1 << 16))
    def spread(self, seed: int) -> None:
        for client in self.clients.values():
            assert isinstance(client, SpreadClient)
            client.reseed(seed)

    @precondition(lambda self: len(self.tree.nodes) > 1)
    @rule(data=st.data(), goal=st.integers(0, 2), whole=st.booleans())
    def relocate(self, data: st.DataObject, goal: int, whole: bool) -> None:
        """Bytes on another node make no difference to anything; there may be none that have to go."""
        path = self.top if whole else self.inner_path(data)
        self.answered(self.clients["carol"].patch(path, instance=instance(goal)), frozenset({200, 400}))


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
