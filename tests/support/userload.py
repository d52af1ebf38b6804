"""Users who are busy with a cluster while something happens to it, and what has to be there afterwards."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.support.alongside import Alongside
from tests.support.cluster import Cluster, at_once, instance_of
from tests.support.daemon import Daemon
from tests.support.http import Answer, Client
from tests.support.waiting import eventually, pace

Said = tuple[int, str]

UNAVAILABLE: Said = (503, "METADATA_UNAVAILABLE")
ENDING: Said = (503, "SERVICE_UNAVAILABLE")
UNKNOWN: Said = (504, "OUTCOME_UNKNOWN")
LOST: Said = (0, "the connection was lost")
REFUSED = (UNAVAILABLE, ENDING)
UNSURE = (UNKNOWN, LOST)

GOING_ON_SECONDS = 30.0
_RETRY_SECONDS = 0.05


def said(answer: Answer) -> Said:
    """The status, and the code of an error."""
    return answer.status, answer.code if answer.body and answer.status >= 400 else ""


def asked(request: Callable[[], Answer]) -> Said:
    """What was said to a request, if the connection lasted."""
    try:
        return said(request())
    except (OSError, EOFError):
        return LOST


@dataclass(frozen=True)
class Step:
    """
    A file that was created and then renamed, and what the node said to that.

    :param node: its name.
    :param begun: by the monotonic clock.
    :param seconds: the longer one of the two answers.
    """

    node: str
    name: str
    created: Said
    renamed: Said | None
    begun: float
    seconds: float

    @property
    def new_name(self) -> str:
        """After the renaming."""
        return f"renamed-{self.name}"

    @property
    def done(self) -> bool:
        """Whether all of it was acknowledged."""
        return self.created == (201, "") and self.renamed == (200, "")

    @property
    def ended(self) -> float:
        """By the monotonic clock."""
        return self.begun + self.seconds

    def answers(self) -> set[Said]:
        """All that was said."""
        return {self.created} | ({self.renamed} if self.renamed else set())

    def possible(self) -> list[set[str]]:
        """What may be there after these answers."""
        old, new, nothing = {self.name}, {self.new_name}, set[str]()
        if self.created in REFUSED:
            return [nothing]
        if self.created in UNSURE:
            return [nothing, old]
        assert self.created == (201, ""), self
        assert self.renamed is not None
        if self.renamed in REFUSED:
            return [old]
        if self.renamed in UNSURE:
            return [old, new]
        assert self.renamed == (200, ""), self
        return [new]


class Stream:
    """
    Users who create and rename files without a pause, through all nodes. Whose node is gone tries again.

    :param home: the directory that they fill; nobody else touches it.
    """

    def __init__(self, cluster: Cluster, home: str, writers_at_each: int = 2) -> None:
        self.steps: list[Step] = []
        self._home = home
        self._writing = Alongside(
            partial(self._write, node, f"{number}-{writer}")
            for number, node in enumerate(cluster.nodes, 1)
            for writer in range(writers_at_each)
        )

    def __enter__(self) -> Stream:
        self._writing.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._writing.__exit__(*error)

    def _write(self, node: Daemon, name: str, ending: threading.Event) -> None:
        with contextlib.closing(node.client()) as client:
            for number in itertools.takewhile(lambda _: not ending.is_set(), itertools.count()):
                step = self._step(client, instance_of(node), f"{name}-{number}")
                self.steps.append(step)
                if LOST in step.answers():
                    pace(_RETRY_SECONDS)

    def _step(self, client: Client, node: str, name: str) -> Step:
        path = f"{self._home}/{name}"
        begun = time.monotonic()
        created = asked(partial(client.post, path, name.encode()))
        first = time.monotonic() - begun
        if created != (201, ""):
            return Step(node, name, created, None, begun, first)
        again = time.monotonic()
        renamed = asked(partial(client.patch, path, name=f"renamed-{name}"))
        return Step(node, name, created, renamed, begun, max(first, time.monotonic() - again))

    def goes_on(self, nodes: Sequence[Daemon], count: int = 10) -> None:
        """Wait until each of these nodes has acknowledged that many more steps."""
        before = len(self.steps)
        names = {instance_of(node) for node in nodes}

        def enough() -> bool:
            done = [step.node for step in self.steps[before:] if step.done]
            return all(done.count(name) >= count for name in names)

        eventually(enough, within_seconds=GOING_ON_SECONDS, what=f"further acknowledged steps at {names}")

    def at(self, nodes: Sequence[Daemon], since: float = 0.0) -> list[Step]:
        """The steps at these nodes that ended after an instant."""
        names = {instance_of(node) for node in nodes}
        return [step for step in self.steps if step.node in names and step.ended > since]

    def check(self, names: Sequence[str]) -> None:
        """Compare all answers with what is in the directory in the end: nothing lost, nothing done twice."""
        assert len(names) == len(set(names))
        rest = set(names)
        for step in self.steps:
            there = {step.name, step.new_name} & rest
            assert there in step.possible(), f"{step} left {there}"
            rest -= there
        assert not rest


def refusals(steps: Sequence[Step]) -> set[Said]:
    """Everything but success that was said."""
    return {answer for step in steps for answer in step.answers()} - {(201, ""), (200, "")}


def check_tree(cluster: Cluster, home: str, stream: Stream) -> None:
    """All nodes show what the answers said, and the bytes of what they acknowledged."""
    listings = at_once([partial(listed, node, home) for node in cluster.nodes])
    assert all(listing == listings[0] for listing in listings)
    stream.check([str(entry["name"]) for entry in listings[0]])
    for number, entry in enumerate(listings[0][:: max(1, len(listings[0]) // 30)]):
        content = cluster.nodes[number % len(cluster.nodes)].client().content(str(entry["path"]))
        assert content.decode() == str(entry["name"]).removeprefix("renamed-")


def listed(node: Daemon, home: str) -> list[dict[str, object]]:
    """All entries of a directory, whatever their number."""
    client, entries, cursor = node.client(), list[dict[str, object]](), dict[str, Any]()
    while True:
        answer = client.directory(home, **cursor)
        assert answer.status == 200, f"{answer!r} {answer.body[:300]!r}"
        page = answer.json()
        entries += page["items"]
        if not page.get("next_cursor"):
            client.close()
            return entries
        cursor = {"cursor": page["next_cursor"]}
