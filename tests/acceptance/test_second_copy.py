"""S3 beside the local disks of a cluster: as the place of files, and of a second copy of them."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.support.cluster import Cluster, at_once, metadata_server
from tests.support.daemon import Daemon, callfs
from tests.support.http import Answer, Client
from tests.support.s3 import S3Server
from tests.support.tcpswitch import TcpSwitch
from tests.support.waiting import eventually, pace
from tests.support.websocket import WebSocket, websocket_target

FILE_TIMEOUT_SECONDS = 2
MIB = 1 << 20
PREFIX = "acceptance/"
CONTENT = random.Random(9).randbytes(300_001)
BACKGROUND = {"ha": {"replication_enabled": True, "replica_backend": "s3"}}
SYNCHRONOUS = {"ha": {**BACKGROUND["ha"], "require_replica_success": True}}
DISKLESS = {"backend": {"localfs_root_path": "", "default_backend": "s3"}}


class Tier:
    """
    An S3 server that can be out of reach, and what is in it.

    :ivar switch: what the nodes see of the server.
    """

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.switch = TcpSwitch(urlsplit(server.endpoint).port or 0)

    def settings(self) -> dict[str, Any]:
        """A node's configuration."""
        return {
            "s3_bucket_name": self.server.bucket,
            "s3_key_prefix": PREFIX,
            "s3_endpoint": f"http://127.0.0.1:{self.switch.port}",
            "s3_addressing": "path",
            "s3_access_key": self.server.access_key,
            "s3_secret_key": self.server.secret_key,
            "garbage_delay": "1s",
        }

    def contents(self) -> list[bytes]:
        """What all blobs in it hold."""
        s3 = self.server.client()
        found = []
        for key in self.server.keys(f"{PREFIX}blobs/"):
            try:
                found.append(s3.get_object(Bucket=self.server.bucket, Key=key)["Body"].read())
            except s3.exceptions.NoSuchKey:
                continue
        return found

    def has(self, content: bytes) -> bool:
        """Whether a blob holds just this."""
        return content in self.contents()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Nobody reaches it for the time of a block."""
        self.switch.down()
        try:
            yield
        finally:
            self.switch.up()


@pytest.fixture(scope="module")
def tier() -> Iterator[Tier]:
    """The S3 server; its own, because it is made to fail."""
    server = S3Server(own=True).start()
    tier = Tier(server)
    yield tier
    tier.switch.down()
    server.stop()


@pytest.fixture(scope="module")
def nodes(tier: Tier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """
    node-1 and node-2 make second copies in the background, node-3 at once; node-4 has no disk: its files go to S3.
    """
    server = metadata_server("postgres")
    try:
        server.start()
        shared = {
            "limits": ROOMY_LIMITS,
            "server": {"file_op_timeout": f"{FILE_TIMEOUT_SECONDS}s"},
            "backend": tier.settings(),
        }
        cluster = Cluster(tmp_path_factory.mktemp("second-copy"), server, shared, nodes=0)
        try:
            for own in (BACKGROUND, BACKGROUND, SYNCHRONOUS, DISKLESS):
                cluster.add_node(own)
            cluster.start()
            yield cluster
        finally:
            cluster.close()
    finally:
        server.close()


@pytest.fixture
def cluster(nodes: Cluster, tier: Tier, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """All of them running, and S3 within reach."""
    for node in nodes.nodes:
        shown_on_failure(request, node)
    yield nodes
    tier.switch.up()
    for node in nodes.nodes:
        if not node.running:
            node.start()
        node.cont()
    for node in nodes.nodes:
        assert node.wait_ready()


@pytest.fixture
def clients(cluster: Cluster) -> Iterator[list[Client]]:
    """Alice at each of the nodes."""
    clients = cluster.clients()
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def home(clients: list[Client]) -> str:
    """A fresh directory of alice's."""
    return clients[0].made(f"/{secrets.token_hex(6)}")


def fresh(size: int = 50_000) -> bytes:
    """Content that nothing else has."""
    return secrets.token_bytes(size)


def metric(client: Client, series: str) -> float:
    """The value of a series; 0 where there is none yet."""
    for line in client.request("GET", "/metrics").body.decode().splitlines():
        if line.startswith(series + " "):
            return float(line.rpartition(" ")[2])
    return 0.0


def soon(probe: Callable[[], bool], what: str) -> None:
    """Wait for what happens in the background, with its retries."""
    eventually(probe, within_seconds=40, what=what)


def swept(clients: list[Client], probe: Callable[[], bool], what: str) -> None:
    """Wait for bytes to go. A node looks for what it can delete when something is removed there, or later."""
    path = f"/{secrets.token_hex(6)}"

    def looked() -> bool:
        pace(0.3)
        for client in clients:
            client.stored(path, b"")
            assert client.delete(path).status == 204
        return probe()

    eventually(looked, within_seconds=20, what=what)


def everywhere(clients: list[Client], path: str, content: bytes) -> None:
    """Every node serves the file, whole and in part."""
    for client in clients:
        assert client.content(path) == content
        part = client.get(path, headers={"Range": "bytes=10-99"})
        assert (part.status, part.body) == (206, content[10:100])


def on_disk(node: Daemon) -> set[bytes]:
    """What a node's blobs hold."""
    found = set()
    for path in node.blobs():
        try:
            found.add(path.read_bytes())
        except FileNotFoundError:
            continue
    return found


class TestInTheBackground:
    """The write doesn't wait for the second copy."""

    def test_copies(self, clients: list[Client], tier: Tier, home: str) -> None:
        """Every new content gets its copy in S3; what is overwritten or removed loses it."""
        made = metric(clients[0], 'callfs_replications_total{status="made"}')
        first, second, large = fresh(), fresh(), fresh(12 * MIB)
        path = clients[0].stored(f"{home}/f", first)
        clients[1].stored(f"{home}/large", large)
        soon(lambda: tier.has(first) and tier.has(large), "the copies")
        assert clients[1].put(path, second).status == 200
        soon(lambda: tier.has(second), "the copy of the new content")
        swept(clients[:1], lambda: not tier.has(first), "the end of the old content's copy")
        assert clients[2].delete(path).status == 204
        assert clients[2].delete(f"{home}/large").status == 204
        swept(clients[:1], lambda: not tier.has(second) and not tier.has(large), "the end of the copies")
        soon(lambda: metric(clients[0], 'callfs_replications_total{status="made"}') >= made + 2, "the count")
        assert metric(clients[0], "callfs_replication_backlog") == 0

    def test_outage_and_restart(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """
        While S3 is away files are written all the same. What waits is shown, survives a SIGKILL, and is done when
        S3 is back; of what was overwritten or removed meanwhile nothing comes.
        """
        kept, old, removed = fresh(), fresh(), fresh()
        with tier.outage():
            clients[0].stored(f"{home}/kept", kept)
            clients[0].stored(f"{home}/replaced", old)
            clients[0].stored(f"{home}/removed", removed)
            soon(lambda: metric(clients[0], "callfs_replication_failing") >= 3, "the failures in the metrics")
            assert metric(clients[0], "callfs_replication_backlog") >= 3
            config = str(cluster.nodes[0].config_path)
            status = callfs("replication", "status", "-c", config)
            assert (status.returncode, "node-1" in status.stdout) == (1, True), status.stdout + status.stderr
            new = fresh()
            clients[1].stored(f"{home}/replaced", new)
            assert clients[1].delete(f"{home}/removed").status == 204
            assert clients[1].content(f"{home}/kept") == kept
            cluster.nodes[0].kill()
        cluster.nodes[0].start()
        soon(lambda: tier.has(kept) and tier.has(new), "the copies")
        assert not tier.has(old)
        assert not tier.has(removed)
        soon(lambda: metric(clients[0], "callfs_replication_backlog") == 0, "an empty queue in the metrics")
        status = callfs("replication", "status", "-c", config)
        assert status.returncode == 0, status.stdout + status.stderr

    def test_owner_killed(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """
        While the node is down that has them, files with a copy in S3 are read, copied, linked, renamed and removed
        through every other node; only replacing them has to wait. When it is back, all is as it was left.
        """
        contents = {f"{home}/{number}": fresh() for number in range(5)}
        for path, content in contents.items():
            clients[0].stored(path, content)
        soon(lambda: set(contents.values()) <= set(tier.contents()), "the copies")
        cluster.nodes[0].kill()
        others = clients[1:]
        for path, content in contents.items():
            everywhere(others, path, content)
        (first, content), *_ = contents.items()
        assert others[0].head(first)["X-CallFS-Instance-ID"] == "node-1"
        assert others[1].post(f"{home}/copy", query=f"copy_from={first}").status == 201
        token = others[0].link(first).json()["token"]
        assert others[2].request("GET", f"/download/{token}").body == content
        with WebSocket(others[2], websocket_target(first)) as connection:
            frames, code = connection.receive_all()
        assert (b"".join(frame.payload for frame in frames), code) == (content, 1000)
        others[0].put(first, b"new").refused(503, "PEER_UNAVAILABLE")
        for client, path in zip(others, [*contents][1:4], strict=True):
            assert client.delete(path).status == 204
        assert others[2].patch(f"{home}/4", name="renamed").status == 200
        assert others[0].names(home) == ["0", "copy", "renamed"]
        gone = {contents[path] for path in [*contents][1:4]}
        swept(others[:1], lambda: not gone & set(tier.contents()), "the end of the removed copies")
        cluster.nodes[0].start()
        everywhere(clients, f"{home}/renamed", contents[f"{home}/4"])
        assert clients[3].put(first, b"new").status == 200
        soon(lambda: not gone & on_disk(cluster.nodes[0]), "the end of the removed bytes on the node that is back")

    def test_owner_dies_in_mid_stream(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """A download whose node dies goes on with the copy in S3: the client gets it whole and notices nothing."""
        content = fresh(40 * MIB)
        path = clients[0].stored(f"{home}/large", content)
        soon(lambda: metric(clients[0], "callfs_replication_backlog") == 0 and tier.has(content), "the copy")
        with clients[1].connect(receive_buffer_bytes=64 * 1024) as wire:
            wire.send_request("GET", f"/v1/files{path}", clients[1].authorization())
            head = wire.read_head()
            begun = wire.read_exactly(MIB)
            cluster.nodes[0].kill()
            assert begun + wire.read_exactly(int(head["Content-Length"]) - MIB) == content

    def test_owner_paused(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """A node that is silent is waited for no longer than ``file_op_timeout``; then the copy serves."""
        content = fresh()
        path = clients[0].stored(f"{home}/f", content)
        soon(lambda: tier.has(content), "the copy")
        assert clients[1].content(path) == content
        cluster.nodes[0].stop()
        everywhere(clients[1:], path, content)
        assert clients[2].delete(path).status == 204

    def test_disk_lost(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """When the bytes are gone from the disk the copy serves, also at the node itself; and it is a finding."""
        content = fresh()
        path = clients[0].stored(f"{home}/f", content)
        soon(lambda: tier.has(content), "the copy")
        cluster.nodes[0].blob_of(content).unlink()
        everywhere(clients, path, content)
        assert clients[0].put(path, content[::-1]).status == 200
        everywhere(clients, path, content[::-1])


class TestAtOnce:
    """With ``ha.require_replica_success`` the write waits for the second copy."""

    def test_copies(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """When the answer is there so are both copies; overwriting and removing reach both."""
        here, node = clients[2], cluster.nodes[2]
        first, second = fresh(), fresh(9 * MIB)
        path = here.stored(f"{home}/f", first)
        assert tier.has(first)
        assert first in on_disk(node)
        assert here.put(path, [second[:MIB], second[MIB:]]).status == 200
        assert tier.has(second)
        assert second in on_disk(node)
        swept([here], lambda: not tier.has(first) and first not in on_disk(node), "the end of the old content")
        assert clients[0].delete(path).status == 204
        swept([here], lambda: not tier.has(second) and second not in on_disk(node), "the end of both copies")

    def test_outage(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """
        Without S3, from the beginning or from the middle of a body on, a write fails whole: what was there stays,
        and nothing of the new is left anywhere.
        """
        here, node = clients[2], cluster.nodes[2]
        old, new, large = fresh(), fresh(), fresh(20 * MIB)
        path, other = here.stored(f"{home}/f", old), here.stored(f"{home}/large", old)
        before = set(node.blobs())
        away = threading.Event()

        def body() -> Iterator[bytes]:
            yield large[: 10 * MIB]
            tier.switch.down()
            away.set()
            yield large[10 * MIB :]

        def when_away(request: Callable[[Client], Answer]) -> Callable[[], Answer]:
            def asked() -> Answer:
                assert away.wait(20)
                return request(node.client())

            return asked

        answers = at_once(
            [
                lambda: node.client().put(other, body()),
                when_away(lambda client: client.put(path, new)),
                when_away(lambda client: client.put(path, [new[:9000], new[9000:]])),
                when_away(lambda client: client.post(f"{home}/g", new)),
                when_away(lambda client: client.post(f"{home}/copy", query=f"copy_from={path}")),
            ]
        )
        for answer in answers:
            answer.refused(503, "PEER_UNAVAILABLE")
        assert (here.content(path), here.content(other), here.names(home)) == (old, old, ["f", "large"])
        eventually(lambda: set(node.blobs()) <= before, what="no blob more than before")
        assert [*(node.root / "staging").iterdir()] == []
        tier.switch.up()
        assert not tier.has(new)
        assert not tier.has(large)
        assert here.put(path, new).status == 200
        everywhere(clients, path, new)


class TestPlaces:
    """S3 as the place of files."""

    def test_without_a_disk(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """
        A node without a disk stores in S3, from where every node serves and replaces; and it serves and replaces
        what is on the disks of the others.
        """
        bare = clients[3]
        # One begun while S3 was away in another test, whose reply was lost, stays until it is stale.
        before = set(tier.server.uploads(PREFIX))
        for number, content in enumerate((b"", fresh(), fresh(20 * MIB))):
            path = bare.stored(f"{home}/{number}", content)
            heads = [client.head(path) for client in clients]
            assert {head["X-CallFS-Backend"] for head in heads} == {"s3"}
            assert [head["X-CallFS-Instance-ID"] for head in heads] == [f"node-{n}" for n in (1, 2, 3, 4)]
            assert {client.content(path) == content for client in clients} == {True}
            for client in clients:
                assert client.put(path, [content, b"more"]).status == 200
                assert client.head(path)["X-CallFS-Backend"] == "s3"
            assert bare.content(path) == content + b"more"
        path = clients[0].stored(f"{home}/local", b"content")
        assert bare.content(path) == b"content"
        assert bare.put(path, CONTENT).status == 200
        everywhere(clients, path, CONTENT)
        assert bare.head(path)["X-CallFS-Instance-ID"] == "node-1"
        assert bare.post(f"{home}/copy", query=f"copy_from={path}").status == 201
        assert clients[1].head(f"{home}/copy")["X-CallFS-Backend"] == "s3"
        bare.post(f"{home}/there", b"x", query="backend=localfs").refused(400, "BAD_REQUEST")
        bare.patch(path, instance="node-4").refused(400, "BAD_REQUEST")
        assert set(tier.server.uploads(PREFIX)) <= before

    def test_by_request(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """``backend`` chooses for a new file, the header before the query; a file stays in its place."""
        here, content = clients[0], fresh()
        assert here.post(f"{home}/q", content, query="backend=s3").status == 201
        assert here.put(f"{home}/h", b"x", "backend=localfs", {"X-CallFS-Backend": "s3"}).status == 201
        assert here.put(f"{home}/l", b"x", "backend=localfs").status == 201
        entries = here.directory(home).json()["items"]
        assert [(entry["name"], entry["backend"]) for entry in entries] == [
            ("h", "s3"),
            ("l", "localfs"),
            ("q", "s3"),
        ]
        assert content not in on_disk(cluster.nodes[0])
        assert tier.contents().count(content) == 1
        assert here.put(f"{home}/q", content, "backend=localfs").status == 200
        assert here.head(f"{home}/q")["X-CallFS-Backend"] == "s3"
        here.post(f"{home}/q", b"x").refused(409, "FILE_ALREADY_EXISTS")

    def test_relocation(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """
        Files and trees go from disks to S3 and back, through any node, with the same content and entity tag; what
        they leave behind goes.
        """
        contents = {f"{home}/t/{number}": fresh() for number in range(4)}
        for number, (path, content) in enumerate(contents.items()):
            clients[number].stored(path, content)
        tags = {path: clients[0].head(path)["ETag"] for path in contents}

        def are_at(backend: str, instance: str | None = None) -> None:
            for path, content in contents.items():
                heads = [client.head(path) for client in clients]
                assert {(head["X-CallFS-Backend"], head["ETag"]) for head in heads} == {(backend, tags[path])}
                if instance is not None:
                    assert {head["X-CallFS-Instance-ID"] for head in heads} == {instance}
                everywhere(clients, path, content)

        assert clients[1].patch(f"{home}/t", backend="s3").status == 200
        are_at("s3")
        clients[1].patch(f"{home}/t", backend="s3").refused(400, "BAD_REQUEST")
        swept(
            clients[:3],
            lambda: not any(set(contents.values()) & on_disk(node) for node in cluster.nodes[:3]),
            "the end of the bytes on the disks",
        )
        assert clients[3].patch(f"{home}/t", backend="localfs", instance="node-2").status == 200
        are_at("localfs", "node-2")
        assert clients[0].patch(f"{home}/t", instance="node-3").status == 200
        are_at("localfs", "node-3")
        assert set(contents.values()) <= on_disk(cluster.nodes[2])
        assert clients[2].delete(f"{home}/t", "recursive=true").status == 204
        swept(
            clients[2:3],
            lambda: not set(contents.values()) & {*tier.contents(), *on_disk(cluster.nodes[2])},
            "the end of all of it in S3, and on the disk",
        )

    def test_outage(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """Without S3 its files are refused in time, those on disks aren't, readiness says it; it comes back."""
        there, here = clients[3].stored(f"{home}/there", CONTENT), clients[0].stored(f"{home}/here", CONTENT)
        with tier.outage():
            refusals = [partial(node.client().get, there) for node in cluster.nodes]
            refusals.append(partial(cluster.nodes[3].client().put, f"{home}/new", CONTENT))
            for answer in at_once(refusals):
                answer.refused(503, "PEER_UNAVAILABLE")
            for client in clients:
                assert client.content(here) == CONTENT
                assert client.names(home) == ["here", "there"]
            readiness = cluster.nodes[3].health()
            assert readiness is not None
            assert (readiness.status, readiness.json()["parts"]["backends"]["ok"]) == (503, False)
        everywhere(clients, there, CONTENT)
        assert all(node.wait_ready() for node in cluster.nodes)

    def test_killed_during_uploads(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """A node that dies with a body on its way to S3 leaves what was there, and nothing new to be seen."""
        path = clients[3].stored(f"{home}/f", b"old")
        content = fresh(24 * MIB)

        def body() -> Iterator[bytes]:
            yield content[: 20 * MIB]
            cluster.nodes[3].kill()
            yield content[20 * MIB :]

        for target in (path, f"{home}/new"):
            with pytest.raises((EOFError, ConnectionResetError, BrokenPipeError)):
                cluster.nodes[3].client().put(target, body())
            cluster.nodes[3].start()
        assert clients[0].names(home) == ["f"]
        assert clients[3].content(path) == b"old"
        assert not tier.has(content)

    def test_another_place(self, cluster: Cluster, clients: list[Client], tier: Tier, home: str) -> None:
        """A node that is led to an empty place by mistake doesn't start: the files are elsewhere."""
        clients[3].stored(f"{home}/f", CONTENT)
        stray = cluster.add_node({"backend": {"s3_key_prefix": "mistyped/"}})
        cluster.nodes.remove(stray)
        try:
            _, said = stray.refuses_to_start()
        finally:
            stray.close()
        assert "they must be elsewhere" in said
        assert tier.server.keys("mistyped/") == []
