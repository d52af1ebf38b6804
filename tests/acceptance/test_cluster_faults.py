"""Nodes that die, freeze, or are told wrong things of each other, while the others go on."""

from __future__ import annotations

import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import pytest

from tests.acceptance.conftest import ROOMY_LIMITS, shown_on_failure
from tests.support.alongside import Alongside, again_and_again
from tests.support.cluster import Cluster, at_once, instance_of, running_cluster
from tests.support.daemon import Daemon, callfs, callfs_begun
from tests.support.http import Answer, Client, Wire
from tests.support.ports import free_port
from tests.support.waiting import eventually, pace
from tests.support.websocket import WebSocket, websocket_target

FILE_TIMEOUT_SECONDS = 2
SETTINGS = {
    "limits": ROOMY_LIMITS,
    "server": {"file_op_timeout": f"{FILE_TIMEOUT_SECONDS}s"},
}
MIB = 1 << 20
LARGE_BYTES = 48 * MIB
"""More than all buffers between two nodes and a client who doesn't read can hold."""
SMALL_BUFFER_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes; with Redis, because a node that dies there leaves locks behind."""
    with running_cluster(tmp_path_factory.mktemp("faults"), "redis", settings=SETTINGS) as cluster:
        yield cluster
        for node in cluster.nodes:
            is_sound(node)


@pytest.fixture
def cluster(nodes: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """All three running; whatever a test does to them, they come back and never have an unexpected error."""
    for node in nodes.nodes:
        shown_on_failure(request, node)
    all_reach_all(nodes)
    yield nodes
    for node in nodes.nodes[3:]:
        node.close()
    del nodes.nodes[3:]
    for node in nodes.nodes:
        if not node.running:
            node.start()
        node.cont()
    for node in nodes.nodes:
        assert node.wait_ready()
        assert "Traceback" not in node.log_text()


@pytest.fixture
def trio(cluster: Cluster) -> Iterator[list[Client]]:
    """Alice at each of the nodes."""
    clients = cluster.clients()
    yield clients
    for client in clients:
        client.close()


@pytest.fixture
def home(trio: list[Client]) -> str:
    """A fresh directory of alice's."""
    return trio[0].made(f"/{secrets.token_hex(6)}")


@pytest.fixture(scope="module")
def large(nodes: Cluster) -> tuple[str, bytes]:
    """A large file on the second node."""
    content = secrets.token_bytes(LARGE_BYTES)
    return nodes.nodes[1].client().stored("/large", content), content


def all_reach_all(cluster: Cluster) -> None:
    """Wait until every node serves a file of every other, as they do by themselves."""
    for node in cluster.nodes:
        path = f"/small-on-{instance_of(node)}"
        if not node.client().exists(path):
            node.client().stored(path)
        for other in cluster.nodes:
            serves_again(other.client(), path, b"content")


def unavailable(answer: Answer) -> None:
    """The refusal for bytes on a node that can't be reached."""
    answer.refused(503, "PEER_UNAVAILABLE")
    assert int(answer["Retry-After"]) >= 1


def timed(action: Callable[[], Answer]) -> tuple[Answer, float]:
    """An answer, and after how many seconds it came."""
    began = time.monotonic()
    return action(), time.monotonic() - began


def serves_again(client: Client, path: str, content: bytes) -> None:
    """Wait until a file can be read there, without anybody doing anything about it."""

    def served() -> bool:
        answer = client.get(path)
        if answer.status != 200:
            unavailable(answer)
            return False
        assert answer.body == content
        return True

    eventually(served, within_seconds=20, what="the file, by itself")


def events(node: Daemon, name: str) -> list[dict[str, object]]:
    """What a node's log says of that kind."""
    return [event for event in node.events() if event.get("event") == name]


def breaker_state(client: Client, peer: str) -> str:
    """Whether a node spares another: 0.0, 1.0 or 2.0."""
    text = client.request("GET", "/metrics").body.decode()
    (value,) = [
        line.rpartition(" ")[2]
        for line in text.splitlines()
        if line.startswith(f'callfs_peer_breaker_state{{peer="{peer}"}}')
    ]
    return value


@dataclass
class Writer:
    """
    Replaces files of one node through another, without a pause.

    :ivar contents: what each file holds by what was acknowledged.
    """

    client: Client
    paths: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)
    acknowledged: int = 0
    refused: int = 0

    def run(self, ending: threading.Event) -> None:
        """Write until it is to end."""
        for number in count():
            if ending.is_set():
                break
            path = self.paths[number % len(self.paths)]
            content = secrets.token_bytes(200_000)
            answer = self.client.put(path, [content[:90_000], content[90_000:]] if number % 2 else content)
            if answer.status == 200:
                self.contents[path] = content
                self.acknowledged += 1
            else:
                unavailable(answer)
                self.refused += 1
        self.client.close()


def is_sound(node: Daemon) -> None:
    """Its disk and the metadata agree."""
    done = node.fsck("--deep")
    assert done.returncode == 0, done.stdout + done.stderr


class TestKilled:
    """SIGKILL of one node while the others use it."""

    def test_uploads(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """
        Of a node killed under uploads through the others every file has what was acknowledged last: a refused
        upload changed nothing. The others' own files don't notice. It comes back, and all goes on by itself.
        """
        victim = cluster.nodes[1]
        writers = []
        for number, node in enumerate((cluster.nodes[0], cluster.nodes[2], cluster.nodes[0], cluster.nodes[2])):
            paths = [trio[1].stored(f"{home}/{number}-{each}") for each in range(3)]
            writers.append(Writer(node.client(), paths, dict.fromkeys(paths, b"content")))
        own = Writer(cluster.nodes[0].client(), [trio[0].stored(f"{home}/own")])
        with Alongside(writer.run for writer in [*writers, own]):
            eventually(lambda: all(writer.acknowledged > 3 for writer in writers), what="uploads")
            victim.kill()
            eventually(lambda: all(writer.refused for writer in writers), what="refusals")
            before = own.acknowledged
            eventually(lambda: own.acknowledged > before + 3, what="uploads elsewhere")
            victim.start()
            seen = [writer.acknowledged for writer in writers]
            eventually(
                lambda: all(writer.acknowledged > old for writer, old in zip(writers, seen, strict=True)),
                within_seconds=20,
                what="uploads to the node that is back",
            )
        assert own.refused == 0
        for writer in writers:
            for path, content in writer.contents.items():
                assert {client.content(path) == content for client in trio} == {True}

    def test_downloads(self, cluster: Cluster, large: tuple[str, bytes]) -> None:
        """
        A download through another node is cut when the node that has the file dies: whole, in part, in parts, by a
        link, by WebSocket. What came is right, and its end is never taken for the end of the file.
        """
        path, content = large
        client = cluster.nodes[0].client()
        token = client.link(path).json()["token"]
        half = LARGE_BYTES // 2
        wanted = [
            (f"/v1/files{path}", {}, 0),
            (f"/v1/files{path}", {"Range": f"bytes=1000-{LARGE_BYTES - 10}"}, 1000),
            (f"/v1/files{path}", {"Range": f"bytes=0-{half},{half + 5}-"}, None),
            (f"/download/{token}", {}, 0),
        ]
        wires = []
        for target, headers, _ in wanted:
            wire = client.connect(receive_buffer_bytes=SMALL_BUFFER_BYTES)
            wire.send_request("GET", target, {**client.authorization(), **headers})
            wires.append((wire, wire.read_head(), wire.read_exactly(MIB)))
        socket = WebSocket(client, websocket_target(path), receive_buffer_bytes=SMALL_BUFFER_BYTES)
        first = socket.receive()
        assert first.payload == content[: len(first.payload)]
        cluster.nodes[1].kill()
        for (wire, head, begun), (_, _, offset) in zip(wires, wanted, strict=True):
            assert head.status in (200, 206)
            came = begun + wire.read_to_end()
            assert len(came) < int(head["Content-Length"])
            if offset is not None:
                assert content.startswith(came, offset)
            wire.close()
        with pytest.raises((EOFError, ConnectionResetError)):  # noqa: PT012 - the end may come with any of them
            while (received := socket.receive()).close_code is None:
                pass
            assert received.close_code == 1011
            raise EOFError
        socket.wire.close()
        unavailable(client.get(path))
        client.request("GET", f"/download/{token}").refused(410, "LINK_USED")

    def test_with_a_lock(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """The lock of a node that died right before a change is free again soon; until then the others say so."""
        path = trio[1].stored(f"{home}/f")
        dying = cluster.nodes[0]
        dying.kill()
        dying.start(launcher=[sys.executable, "-m", "tests.support.failing_daemon", "write.before_command", "1"])
        with pytest.raises((EOFError, ConnectionResetError)):
            trio[0].put(path, b"new")
        assert trio[2].content(path) == b"content"

        def replaced() -> bool:
            answer = trio[2].put(path, b"newer")
            if answer.status != 200:
                answer.refused(423, "RESOURCE_LOCKED")
                assert int(answer["Retry-After"]) >= 1
            return answer.status == 200

        eventually(replaced, within_seconds=30, what="the lock of a dead node")
        assert trio[1].content(path) == b"newer"

    def test_first_bytes(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """What needs the bytes of a dead node is refused at once; names, links and removal need none."""
        path = trio[1].stored(f"{home}/f")
        token = trio[0].link(path).json()["token"]
        copy = f"{home}/copy"
        cluster.nodes[1].kill()
        here = trio[0]
        for action in (
            partial(here.get, path),
            partial(here.get, path, headers={"Range": "bytes=1-2"}),
            partial(here.put, path, b"new"),
            partial(here.post, copy, query=f"copy_from={path}"),
            partial(here.request, "GET", f"/download/{token}"),
            partial(here.patch, path, instance="node-3"),
        ):
            answer, seconds = timed(action)
            unavailable(answer)
            assert seconds < FILE_TIMEOUT_SECONDS
        with WebSocket(here, websocket_target(path)) as connection:
            assert connection.answer.status == 503 or connection.receive_all() == ([], 1011)
        assert here.head(path)["X-CallFS-Instance-ID"] == "node-2"
        assert here.get(path, headers={"If-None-Match": here.head(path)["ETag"]}).status == 304
        assert here.patch(path, name="g").status == 200
        cluster.nodes[1].start()
        assert trio[2].content(f"{home}/g") == b"content"
        serves_again(here, f"{home}/g", b"content")  # a link asks once, and this node spares the other for a while
        assert here.request("GET", f"/download/{token}").body == b"content"
        cluster.nodes[1].kill()
        assert here.delete(f"{home}/g").status == 204
        assert trio[2].names(home) == []

    def test_stopped_in_order(self, cluster: Cluster, large: tuple[str, bytes]) -> None:
        """A node that is stopped by SIGTERM serves what others are streaming from it to the end."""
        path, content = large
        client = cluster.nodes[0].client()
        with client.connect(receive_buffer_bytes=SMALL_BUFFER_BYTES) as wire:
            wire.send_request("GET", f"/v1/files{path}", client.authorization())
            head = wire.read_head()
            begun = wire.read_exactly(MIB)
            cluster.nodes[1].signal(signal.SIGTERM)
            assert begun + wire.read_exactly(int(head["Content-Length"]) - MIB) == content
        assert cluster.nodes[1].wait_ended() == 0


class Watcher:
    """
    Looks at a tree without a pause, through a node that nobody touches: at every moment all of it is there, once.

    :param places: where the tree may be.
    """

    def __init__(self, node: Daemon, places: tuple[str, str], names: list[str]) -> None:
        self.looks = 0
        self._client = node.client()
        self._places = places
        self._names = names
        self._watching = Alongside([again_and_again(self._look)])

    def __enter__(self) -> Watcher:
        self._watching.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._watching.__exit__(*error)
        assert self.looks > 3

    def _look(self) -> None:
        parent = self._places[0].rpartition("/")[0]
        entries = self._client.directory(parent, recursive="true").json()["items"]
        files = [entry["path"] for entry in entries if entry["type"] == "file"]
        assert files in [[f"{place}/{name}" for name in self._names] for place in self._places]
        self.looks += 1


class TestRelocationInterrupted:
    """A tree on its way to another node, and one of the nodes that take part in it is killed."""

    names = tuple(f"{number:03}" for number in range(64))

    def fill(self, client: Client, home: str) -> dict[str, bytes]:
        """A tree to be moved."""
        contents = {name: secrets.token_bytes(150_000) for name in self.names}
        for name, content in contents.items():
            client.stored(f"{home}/tree/{name}", content)
        return contents

    @pytest.mark.parametrize("victim", ["asked", "target"])
    def test_killed(self, cluster: Cluster, trio: list[Client], home: str, victim: str) -> None:
        """
        The tree of node-2 goes to node-3 (or, asked by node-1, with node-1 the one that dies); the same request
        again, also at another node, goes on with what is left. At every moment the listing has all of it once.
        """
        contents = self.fill(trio[1], home)
        dying = cluster.nodes[0 if victim == "asked" else 2]
        watching = cluster.nodes[2 if victim == "asked" else 0]
        tags = {name: trio[0].head(f"{home}/tree/{name}")["ETag"] for name in self.names}

        def moved() -> int:
            entries = watching.client().directory(f"{home}/tree").json()["items"]
            return sum(entry["instance_id"] == "node-3" for entry in entries)

        request = partial(trio[0].patch, f"{home}/tree", name="moved", instance="node-3")
        outcome: list[Answer | BaseException] = []

        def ask() -> None:
            try:
                outcome.append(request())
            except BaseException as error:
                outcome.append(error)

        with Watcher(watching, (f"{home}/tree", f"{home}/moved"), list(self.names)):
            asking = threading.Thread(target=ask)
            asking.start()
            eventually(lambda: moved() >= 4, what="a part of the tree at its new place")
            dying.kill()
            asking.join(30)
            if victim == "asked":
                assert isinstance(outcome[0], EOFError | ConnectionResetError), outcome
            else:
                assert isinstance(outcome[0], Answer), outcome
                unavailable(outcome[0])
            already = moved()
            assert 4 <= already < len(self.names)
            if victim == "target":
                dying.start()
            answer = eventually(
                lambda: (
                    (said := trio[1].patch(f"{home}/tree", name="moved", instance="node-3")).status == 200 and said
                ),
                within_seconds=20,
                what="the rest of the move",
            )
            assert answer.json() == {"path": f"{home}/moved"}
        if not dying.running:
            dying.start()
        for name, content in contents.items():
            seen = trio[0].get(f"{home}/moved/{name}")
            assert (seen.body == content, seen["ETag"]) == (True, tags[name])
            assert seen["X-CallFS-Instance-ID"] == "node-3"

    def test_at_each_side_of_the_switch(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """Killed right before and after a file is switched over: it is there once, and a repetition ends it."""
        asked = cluster.nodes[0]
        for step in ("relocate.copied", "relocate.switched"):
            path, content = f"{home}/{step}", secrets.token_bytes(100_000)
            trio[1].stored(path, content)
            if asked.running:
                asked.kill()
            asked.start(launcher=[sys.executable, "-m", "tests.support.failing_daemon", step, "1"])
            with pytest.raises((EOFError, ConnectionResetError)):
                trio[0].patch(path, instance="node-3")
            assert asked.wait_ended() == -9
            holder = trio[2].head(path)["X-CallFS-Instance-ID"]
            assert holder == ("node-3" if step == "relocate.switched" else "node-2")
            assert trio[2].content(path) == content
            if holder == "node-2":
                assert trio[2].patch(path, instance="node-3").status == 200
            assert (trio[1].content(path), trio[1].names(home).count(step)) == (content, 1)
            assert trio[1].head(path)["X-CallFS-Instance-ID"] == "node-3"

    def test_source_killed(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """When the node dies that has the bytes the request is refused; it comes back, and a repetition ends it."""
        contents = self.fill(trio[1], home)
        with Watcher(cluster.nodes[0], (f"{home}/tree", f"{home}/tree"), list(self.names)):
            outcome: list[Answer] = []
            asking = threading.Thread(
                target=lambda: outcome.append(trio[0].patch(f"{home}/tree", instance="node-3"))
            )
            asking.start()
            client = cluster.nodes[2].client()
            eventually(lambda: len(cluster.nodes[2].blobs()) >= 4, what="copies")
            cluster.nodes[1].kill()
            asking.join(30)
            unavailable(outcome[0])
            cluster.nodes[1].start()
            eventually(
                lambda: client.patch(f"{home}/tree", instance="node-3").status == 200,
                within_seconds=20,
                what="the rest of the move",
            )
        for name, content in contents.items():
            assert trio[1].content(f"{home}/tree/{name}") == content
        entries = trio[1].directory(f"{home}/tree").json()["items"]
        assert {entry["instance_id"] for entry in entries} == {"node-3"}


class TestPaused:
    """SIGSTOP: connections are taken, and nobody answers."""

    def test_reads_and_writes(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """
        Whatever needs its bytes is refused within ``file_op_timeout``, and soon at once, because the node is
        spared. The rest goes on. After SIGCONT all is well by itself.
        """
        path, mine = trio[1].stored(f"{home}/f"), trio[0].stored(f"{home}/mine")
        assert trio[0].content(path) == b"content"
        paused = cluster.nodes[1]
        paused.stop()
        here = cluster.nodes[0]
        attempts: list[Callable[[], Answer]] = [
            partial(here.client().get, path),
            partial(here.client().get, path, headers={"Range": "bytes=1-2"}),
            partial(here.client().put, path, b"new"),
            partial(here.client().put, path, [b"new" * 100_000] * 20),
            partial(here.client().get, mine),
        ]
        *outcomes, (undisturbed, seconds) = at_once([partial(timed, attempt) for attempt in attempts])
        assert (undisturbed.body, seconds < FILE_TIMEOUT_SECONDS) == (b"content", True)
        for answer, seconds in outcomes:
            unavailable(answer)
            assert seconds < FILE_TIMEOUT_SECONDS + 1
        assert breaker_state(trio[0], "node-2") == "2.0"
        assert min(timed(partial(trio[0].get, path))[1] for _ in range(3)) < 0.5
        assert trio[0].content(mine) == b"content"
        assert trio[0].patch(path, name="g").status == 200
        paused.cont()
        serves_again(trio[0], f"{home}/g", b"content")
        assert breaker_state(trio[0], "node-2") == "0.0"
        assert trio[0].put(f"{home}/g", b"new").status == 200
        assert trio[1].content(f"{home}/g") == b"new"
        assert events(here, "peer_back")

    def test_in_mid_stream(self, cluster: Cluster, large: tuple[str, bytes]) -> None:
        """A download that gets no further is cut; one whose node goes on in time comes to its end."""
        path, content = large
        client = cluster.nodes[0].client()
        headers = client.authorization()

        def begin(wire: Wire) -> tuple[int, bytes]:
            wire.send_request("GET", f"/v1/files{path}", headers)
            return int(wire.read_head()["Content-Length"]), wire.read_exactly(MIB)

        with client.connect(receive_buffer_bytes=SMALL_BUFFER_BYTES) as wire:
            size, begun = begin(wire)
            cluster.nodes[1].stop()
            came = begun + wire.read_to_end()
            assert MIB <= len(came) < size
            assert content.startswith(came)
        cluster.nodes[1].cont()
        serves_again(client, path, content)
        with client.connect(receive_buffer_bytes=SMALL_BUFFER_BYTES) as wire:
            size, begun = begin(wire)
            cluster.nodes[1].stop()
            resume = threading.Timer(FILE_TIMEOUT_SECONDS / 4, cluster.nodes[1].cont)
            resume.start()
            assert begun + wire.read_exactly(size - MIB) == content
            resume.join()

    def test_slow_reader(self, cluster: Cluster, large: tuple[str, bytes]) -> None:
        """A client that takes its time for longer than ``file_op_timeout`` gets the whole file all the same."""
        path, content = large
        client = cluster.nodes[0].client()
        with client.connect(receive_buffer_bytes=SMALL_BUFFER_BYTES) as wire:
            wire.send_request("GET", f"/v1/files{path}", client.authorization())
            size = int(wire.read_head()["Content-Length"])
            begun = wire.read_exactly(MIB)
            pace(FILE_TIMEOUT_SECONDS * 1.5)
            assert begun + wire.read_exactly(size - MIB) == content


class TestMisconfigured:
    """A node that was told something wrong."""

    def test_new_node(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """A new node is known to all at once, and again at another address; nobody was told of it."""
        node = cluster.add_node().start()
        path = node.client().stored(f"{home}/f", b"content")
        assert [client.content(path) for client in trio] == [b"content"] * 3
        assert node.client().content(trio[0].stored(f"{home}/g")) == b"content"
        node.terminate()
        unavailable(trio[0].get(path))
        node.port = free_port(node.host)
        node.write_config({"server": {"listen_addr": f"{node.host}:{node.port}"}})
        node.start()
        for client in trio:
            serves_again(client, path, b"content")
        assert trio[2].patch(path, instance="node-3").status == 200

    def test_another_nodes_endpoint(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """
        An endpoint that is another node's is never taken for the right one: nothing is read there, written there,
        or deleted there, and the log says what to correct.
        """
        third = cluster.nodes[2].origin
        node = cluster.add_node({"instance_discovery": {"peer_endpoints": {"node-2": third}}}).start()
        misled = node.client()
        path, other = trio[1].stored(f"{home}/f"), trio[2].stored(f"{home}/other")
        before = set(cluster.nodes[2].blobs())
        unavailable(misled.get(path))
        unavailable(misled.put(path, b"new"))
        unavailable(misled.put(path, [b"new" * 100_000] * 3))
        unavailable(misled.patch(other, instance="node-2"))
        assert set(cluster.nodes[2].blobs()) == before
        assert misled.content(other) == b"content"
        assert trio[0].content(path) == b"content"
        (said,) = events(node, "peer_is_another")[:1]
        assert (said["instance_id"], said["found"], said["endpoint"]) == ("node-2", "node-3", third)

    def test_wrong_url_of_its_own(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """A node that registers another node's URL as its own: its files are refused elsewhere, never mistaken."""
        node = cluster.add_node({"server": {"external_url": cluster.nodes[2].origin}}).start()
        path = node.client().stored(f"{home}/f")
        for client in trio:
            unavailable(client.get(path))
            unavailable(client.put(path, b"new"))
        assert node.client().content(path) == b"content"
        assert events(cluster.nodes[0], "peer_is_another")
        node.terminate()
        node.write_config({"server": {"external_url": node.origin}})
        node.start()
        for client in trio:
            serves_again(client, path, b"content")

    def test_full_disk(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """
        A node whose disk is full takes nothing, by whichever node it is asked: 507, and the old content stays; what
        frees room, and what goes elsewhere, is as good as ever.
        """
        node = cluster.add_node().start()
        path, other = node.client().stored(f"{home}/f"), trio[0].stored(f"{home}/other")
        node.write_config({"server": {"min_free_bytes": 1 << 60}})
        node.restart()
        for client in (node.client(), *trio):
            for body in (b"new", [b"new" * 50_000] * 4):
                client.put(path, body).refused(507, "INSUFFICIENT_STORAGE")
            client.patch(other, instance=instance_of(node)).refused(507, "INSUFFICIENT_STORAGE")
            assert (client.content(path), client.content(other)) == (b"content", b"content")
        assert trio[0].head(other)["X-CallFS-Instance-ID"] == "node-1"
        assert [len(list((each.root / "staging").iterdir())) for each in cluster.nodes] == [0] * 4
        assert trio[1].patch(path, instance="node-2").status == 200
        assert node.client().put(path, b"new").status == 200

    def test_wrong_secret(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """A node with another internal secret shares names and no bytes; the logs on both sides say why."""
        secret = secrets.token_hex(20)
        node = cluster.add_node({"auth": {"internal_proxy_secret": secret}}).start()
        path, other = trio[0].stored(f"{home}/f"), node.client().stored(f"{home}/other")
        unavailable(node.client().get(path))
        unavailable(node.client().put(path, b"new"))
        unavailable(trio[0].get(other))
        unavailable(trio[0].put(other, b"new"))
        assert trio[1].names(home) == ["f", "other"]
        assert trio[1].content(path) == b"content"
        for log in (node, cluster.nodes[0]):
            (said,) = events(log, "peer_refuses_secret")[:1]
            assert "internal_proxy_secret" in str(said)
            assert secret not in log.log_text()
            assert node.internal_secret not in log.log_text()

    def test_rotation(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """A new internal secret takes the place of the old one node by node, without a moment of refusal."""
        path = trio[1].stored(f"{home}/f")
        old, new = cluster.nodes[0].internal_secret, secrets.token_hex(20)
        for wanted in ([old, new], [new, old], [new], [new, old], [old, new], [old]):
            for node in cluster.nodes:
                node.write_config({"auth": {"internal_proxy_secret": wanted}})
                seen = len(events(node, "reloaded"))
                node.signal(signal.SIGHUP)
                eventually(lambda node=node, seen=seen: len(events(node, "reloaded")) > seen, what="a reload")
                assert [client.content(path) for client in trio] == [b"content"] * 3


class TestDrain:
    """``callfs node drain``: everything goes elsewhere before the node is taken away."""

    def test_drain(self, cluster: Cluster, trio: list[Client], home: str) -> None:
        """All that a node holds is elsewhere afterwards, also when the command is killed on its way."""
        node = cluster.add_node().start()
        leaving = node.client()
        contents = {f"{home}/{number:02}": secrets.token_bytes(100_000) for number in range(60)}
        for path, content in contents.items():
            leaving.stored(path, content)

        def left() -> int:
            entries = trio[0].directory(home).json()["items"]
            assert len(entries) == len(contents)
            return sum(entry["instance_id"] == instance_of(node) for entry in entries)

        command = ("node", "drain", instance_of(node), "-c", str(cluster.nodes[0].config_path))
        with callfs_begun(*command) as draining:
            eventually(lambda: left() < len(contents), what="a beginning")
            draining.kill()
        assert left() > 0
        done = callfs(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert left() == 0
        node.kill()
        for path, content in contents.items():
            assert trio[0].content(path) == content
        forget = ("node", "forget", instance_of(node), "-c", str(cluster.nodes[0].config_path))
        done = callfs(*forget)
        assert (done.returncode, "gave a sign of life" in done.stderr) == (1, True), done.stdout + done.stderr
        done = callfs(*forget, "--force")
        assert done.returncode == 0, done.stdout + done.stderr
        assert trio[1].content(f"{home}/00") == contents[f"{home}/00"]
