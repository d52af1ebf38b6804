"""Any sequence of requests by any users has the outcome that a plain dict says."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.daemon import Daemon
from tests.support.http import Answer, Client, quoted
from tests.support.model import Tree, joined

IN_CI = bool(os.environ.get("CI"))
USERS = ("alice", "bob", "carol")
ADMINS = frozenset({"carol"})
NAMES = ["a", "A", "b", "a.", "a b", "a0", "%", "_", "ä", "😀"]

users = st.sampled_from(USERS)
names = st.sampled_from(NAMES)
contents = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=7), st.integers(1, 20_000)),
)


class Service(Protocol):
    """Whatever serves the API: one daemon, or several."""

    def client(self, user: str | None) -> Client:
        """A client of that user; None is nobody."""


class FilesystemMachine(RuleBasedStateMachine):
    """The API on one side, :class:`Tree` on the other."""

    daemon: ClassVar[Service]
    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.clients: dict[str, Client] = {user: self.daemon.client(user) for user in USERS}
        self.clients["nobody"] = self.daemon.client(None)
        self.top = f"/machine-{next(self.numbers)}-{secrets.token_hex(3)}"
        self.clients["alice"].made(self.top)
        self.tree = Tree(ADMINS, self.top, "alice")
        self.links: list[tuple[str, str]] = []

    def teardown(self) -> None:
        assert self.clients["carol"].delete(self.top, "recursive=true").status in (204, 404)
        for client in self.clients.values():
            client.close()

    # choosing

    def any_path(self, data: st.DataObject) -> str:
        """A path in the tree: one that is there, or a new one up to three levels below one that is there."""
        if len(self.tree.nodes) > 1 and data.draw(st.booleans(), label="existing"):
            return self.inner_path(data)
        directory = data.draw(st.sampled_from(sorted(self.tree.nodes)), label="below")
        for name in data.draw(st.lists(names, min_size=1, max_size=3), label="names"):
            directory = joined(directory, name)
        return directory

    def inner_path(self, data: st.DataObject) -> str:
        """A path that is there, other than the top."""
        return data.draw(st.sampled_from(sorted(set(self.tree.nodes) - {self.top})), label="path")

    def file_path(self, data: st.DataObject) -> str:
        """The path of a file that is there."""
        return data.draw(st.sampled_from(self.tree.files()), label="file")

    @staticmethod
    def answered(answer: Answer, expected: frozenset[int]) -> None:
        assert answer.status in expected, f"{answer!r} {answer.body[:200]!r}, expected one of {set(expected)}"

    # changing

    @rule(data=st.data(), user=users, content=contents)
    def create(self, data: st.DataObject, user: str, content: bytes) -> None:
        path = self.any_path(data)
        self.answered(self.clients[user].post(path, content), self.tree.create(user, path, content))

    @rule(data=st.data(), user=users)
    def create_directory(self, data: st.DataObject, user: str) -> None:
        path = self.any_path(data)
        self.answered(self.clients[user].post(path + "/"), self.tree.create_directory(user, path))

    @rule(data=st.data(), user=users, content=contents, chunked=st.booleans())
    def put(self, data: st.DataObject, user: str, content: bytes, chunked: bool) -> None:
        path = self.any_path(data)
        body = [content[:10], content[10:]] if chunked else content
        self.answered(self.clients[user].put(path, body), self.tree.put(user, path, content))

    @precondition(lambda self: self.tree.files())
    @rule(data=st.data(), user=users, more=st.binary(min_size=1, max_size=20))
    def append(self, data: st.DataObject, user: str, more: bytes) -> None:
        path = self.file_path(data)
        client = self.clients[user]
        seen = client.get(path)
        longer = seen.body + more
        answer = client.put(path, longer, headers={"If-Match": seen["ETag"]})
        self.answered(answer, self.tree.put(user, path, longer))

    @rule(data=st.data(), user=users)
    def copy(self, data: st.DataObject, user: str) -> None:
        source, destination = self.any_path(data), self.any_path(data)
        answer = self.clients[user].post(destination, query=f"copy_from={quoted(source)}")
        self.answered(answer, self.tree.copy(user, source, destination))

    @rule(data=st.data(), user=users, recursive=st.booleans())
    def delete(self, data: st.DataObject, user: str, recursive: bool) -> None:
        path = self.any_path(data)
        answer = self.clients[user].delete(path, "recursive=true" if recursive else "")
        gone = {path, *self.tree.below(path)}
        expected = self.tree.delete(user, path, recursive=recursive)
        self.answered(answer, expected)
        if answer.status == 204:
            self.links = [(token, "" if at in gone else at) for token, at in self.links]

    @rule(data=st.data(), user=users, overwrite=st.booleans(), create_parents=st.booleans())
    def move(self, data: st.DataObject, user: str, overwrite: bool, create_parents: bool) -> None:
        source, destination = self.any_path(data), self.any_path(data)
        self.moved(user, source, destination, overwrite, create_parents)

    @precondition(lambda self: len(self.tree.nodes) > 1)
    @rule(data=st.data(), name=names)
    def move_by_an_administrator(self, data: st.DataObject, name: str) -> None:
        source = self.inner_path(data)
        directory = data.draw(st.sampled_from(self.tree.directories()), label="into")
        self.moved("carol", source, joined(directory, name), True, False)

    def moved(self, user: str, source: str, destination: str, overwrite: bool, create_parents: bool) -> None:
        answer = self.clients[user].patch(
            source, destination=destination, overwrite=overwrite, create_parents=create_parents
        )
        expected = self.tree.move(user, source, destination, overwrite=overwrite, create_parents=create_parents)
        self.answered(answer, expected)
        if answer.status == 200:
            assert answer.json() == {"path": destination}
            self.links = [(token, self.followed(at, source, destination)) for token, at in self.links]

    @staticmethod
    def followed(at: str, source: str, destination: str) -> str:
        """Where the file of a link is after a move; empty when the move has overwritten it."""
        if at == source or at.startswith(source + "/"):
            return destination + at[len(source) :]
        return "" if at == destination else at

    # reading

    @rule(data=st.data(), user=users)
    def read(self, data: st.DataObject, user: str) -> None:
        path = self.any_path(data)
        node = self.tree.get(path)
        answer = self.clients[user].get(path)
        if node is None:
            self.answered(answer, frozenset({404}))
            return
        self.answered(answer, frozenset({200}))
        assert answer["X-CallFS-Owner"] == node.owner
        if node.content is None:
            assert [entry["path"] for entry in answer.json()] == self.tree.children(path)
        else:
            assert answer.body == node.content

    @precondition(lambda self: self.tree.files())
    @rule(data=st.data(), user=users, first=st.integers(0, 200), length=st.integers(1, 70_000))
    def read_range(self, data: st.DataObject, user: str, first: int, length: int) -> None:
        path = self.file_path(data)
        content = self.tree.nodes[path].content or b""
        answer = self.clients[user].get(path, headers={"Range": f"bytes={first}-{first + length - 1}"})
        if first >= len(content):
            self.answered(answer, frozenset({416}))
        else:
            self.answered(answer, frozenset({206}))
            assert answer.body == content[first : first + length]

    @rule(data=st.data(), user=users, limit=st.integers(1, 5))
    def list_in_pages(self, data: st.DataObject, user: str, limit: int) -> None:
        path = data.draw(st.sampled_from(self.tree.directories()), label="directory")
        seen: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            page = self.clients[user].directory(path, limit=limit, **cursor).json()
            seen += [entry["path"] for entry in page["items"]]
            if "next_cursor" not in page:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert seen == self.tree.children(path)

    @precondition(lambda self: self.tree.files())
    @rule(data=st.data(), user=users)
    def make_link(self, data: st.DataObject, user: str) -> None:
        path = self.file_path(data)
        answer = self.clients[user].link(path)
        self.answered(answer, frozenset({201}))
        self.links.append((answer.json()["token"], path))

    @precondition(lambda self: self.links)
    @rule(data=st.data())
    def use_link(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.links) - 1), label="link")
        token, path = self.links.pop(number)
        answer = self.clients["nobody"].request("GET", f"/download/{token}")
        if path:
            self.answered(answer, frozenset({200}))
            assert answer.body == self.tree.nodes[path].content
            self.answered(self.clients["nobody"].request("GET", f"/download/{token}"), frozenset({410}))
        else:
            self.answered(answer, frozenset({404}))

    # always

    @invariant()
    def whole_tree_agrees(self) -> None:
        """A recursive listing has exactly the model's paths, types, sizes and owners."""
        entries = self.clients["bob"].directory(self.top, recursive="true").json()["items"]
        seen = [(entry["path"], entry["type"], entry["size"], entry["owner"]) for entry in entries]
        expected = [
            (path, "directory" if node.content is None else "file", len(node.content or b""), node.owner)
            for path, node in sorted(self.tree.below(self.top).items(), key=lambda item: item[0].encode())
        ]
        assert seen == expected


@pytest.mark.timeout(300)
def test_against_the_model(daemon: Daemon) -> None:
    """Whatever several users do, in any order, the API and a plain dict agree."""
    FilesystemMachine.daemon = daemon
    bounded = settings(
        max_examples=30,
        stateful_step_count=40,
        deadline=None,
        derandomize=IN_CI,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    run_state_machine_as_test(FilesystemMachine, settings=bounded)
