"""The house rules, read from the code itself: who may import whom, what is pure, how long a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import callfs

PACKAGE = Path(callfs.__file__).parent
MODULES = {
    "callfs" + "".join(f".{part}" for part in path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

GROUND = {"callfs", "callfs.model", "callfs.errors", "callfs.paths"}
PURE = {
    "callfs.access",
    "callfs.identifiers",
    "callfs.redaction",
    "callfs.backends.breaker",
    "callfs.backends.identity",
    "callfs.backends.s3_address",
    "callfs.backends.s3_errors",
    "callfs.backends.s3_gathering",
    "callfs.backends.s3_parts",
    "callfs.backends.s3_request",
    "callfs.backends.s3_settings",
    "callfs.backends.s3_xml",
    "callfs.config.addresses",
    "callfs.config.assembly",
    "callfs.config.compounds",
    "callfs.config.display",
    "callfs.config.environment",
    "callfs.config.given",
    "callfs.config.idle",
    "callfs.config.json_text",
    "callfs.config.kinds",
    "callfs.config.numbers",
    "callfs.config.places",
    "callfs.config.problems",
    "callfs.config.quantities",
    "callfs.config.reload",
    "callfs.config.rules",
    "callfs.config.schema",
    "callfs.config.secret",
    "callfs.config.texts",
    "callfs.config.unbuilt",
    "callfs.config.yaml_text",
    "callfs.locks.replicated_commands",
    "callfs.metadata.commands",
    "callfs.metadata.decisions",
    "callfs.metadata.preconditions",
    "callfs.metadata.renaming",
    "callfs.metadata.removal",
    "callfs.metadata.relocation",
    "callfs.metadata.creation",
    "callfs.metadata.places",
    "callfs.metadata.facts",
    "callfs.metadata.importing",
    "callfs.metadata.known",
    "callfs.metadata.replicated_codec",
    "callfs.metadata.transfer",
    "callfs.metadata.transfer_reading",
    "callfs.engine.arrangement",
    "callfs.engine.routing",
    "callfs.raft.admission",
    "callfs.raft.boundary",
    "callfs.raft.changes",
    "callfs.raft.core",
    "callfs.raft.durability",
    "callfs.raft.election",
    "callfs.raft.following",
    "callfs.raft.handover",
    "callfs.raft.law",
    "callfs.raft.log",
    "callfs.raft.membership",
    "callfs.raft.messages",
    "callfs.raft.progress",
    "callfs.raft.quorum",
    "callfs.raft.reads",
    "callfs.raft.refusal",
    "callfs.raft.replica",
    "callfs.raft.replication",
    "callfs.raft.roles",
    "callfs.web.errors",
    "callfs.web.headers",
    "callfs.web.proxies",
    "callfs.web.ratelimit",
    "callfs.web.ranges",
    "callfs.web.preconditions",
    "callfs.web.digests",
    "callfs.web.bodies",
    "callfs.web.representations",
    "callfs.web.cursors",
    "callfs.web.openapi",
    "callfs.web.apioperations",
    "callfs.web.apischemas",
    "callfs.web.apisystem",
    "callfs.web.negotiation",
    "callfs.web.queries",
    "callfs.web.timestamps",
    "callfs.web.websocket_codes",
    "callfs.web.websocket_handshake",
    "callfs.cluster.certified",
    "callfs.cluster.frames",
    "callfs.cluster.handshake",
    "callfs.cluster.identity",
    "callfs.cluster.outbox",
    "callfs.cluster.questions",
    "callfs.cluster.requests",
    "callfs.cluster.settings",
    "callfs.cluster.unusable",
    "callfs.cluster.wire",
}
SHARED = {
    "callfs.deferreds",
    "callfs.metrics",
    "callfs.logs",
    "callfs.logstream",
    "callfs.system",
    "callfs.tracing",
    "callfs.redis_connection",
    "callfs.redis_errors",
    "callfs.redis_pool",
    "callfs.sending",
    "callfs.writeahead",
}
ADAPTERS = ("metadata", "backends", "locks", "cluster")
LEVELS = {"engine": 5, "erasure": 4, "web": 6, "cli": 6, "config": 1, "raft": 1}
TOP = {
    "callfs.node",
    "callfs.node_cluster",
    "callfs.node_metadata",
    "callfs.node_storage",
    "callfs.readiness",
    "callfs.recognition",
    "callfs.service",
    "callfs.stopping",
    "callfs.tap",
    "callfs.__main__",
}

IMPURE_MODULES = {
    "twisted",
    "time",
    "random",
    "secrets",
    "socket",
    "os",
    "io",
    "threading",
    "subprocess",
    "sqlite3",
}
IMPURE_NAMES = {"open", "input", "print"}
MAX_LINES = 400


def level(module: str) -> int:
    """The floor a module stands on; it may import from its own floor and below."""
    if module in GROUND:
        return 0
    if module in PURE:
        return 1
    if module.endswith(".interfaces"):
        return 2
    if module in SHARED:
        return 2
    if module in TOP:
        return 7
    package = module.split(".")[1]
    return 3 if package in ADAPTERS else LEVELS[package]


@cache
def read(path: Path) -> tuple[frozenset[str], tuple[ast.Import | ast.ImportFrom, ...]]:
    """The plain names that a file calls, and its imports, wherever in the file; read once for all rules."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    calls = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return frozenset(calls), tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def imports(path: Path) -> Iterator[str]:
    """The names of all modules that a file imports, wherever in the file."""
    for node in read(path)[1]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    return {name.removesuffix(".__init__") for name in imports(MODULES[module]) if name.split(".")[0] == "callfs"}


def is_face(module: str) -> bool:
    """Whether a module is a package's ``__init__``."""
    return module.endswith("__init__")


@pytest.mark.parametrize("module", [name for name in MODULES if not is_face(name)])
def test_imports_go_downwards(module: str) -> None:
    """A module imports only from its own floor or from below."""
    above = {name for name in own_imports(module) if level(name) > level(module)} if module else set()
    if module in ("callfs.cli.server", "callfs.cli.fsck", "callfs.cli.fsck_places", "callfs.cli.metadata"):
        above -= TOP  # the commands that run a node, or parts of one
    assert not above


@pytest.mark.parametrize("module", [name for name in MODULES if not is_face(name)])
def test_adapters_do_not_know_each_other(module: str) -> None:
    """An adapter of one port knows another port by its interface at most."""
    package = module.split(".")[1]
    if package in ADAPTERS and level(module) == 3:
        strangers = {
            name
            for name in own_imports(module)
            if level(name) == 3 and name.split(".")[1] != package and not name.endswith(".interfaces")
        }
        assert not strangers


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("callfs.engine.")])
def test_the_engine_knows_ports_not_adapters(module: str) -> None:
    """The engine imports no adapter."""
    assert not {name for name in own_imports(module) if level(name) == 3}


@pytest.mark.parametrize("module", sorted((PURE | GROUND) & MODULES.keys()))
def test_pure_modules_do_no_io(module: str) -> None:
    """A pure module imports nothing that does I/O, reads a clock or makes chance, and opens no file."""
    path = MODULES[module]
    assert not {name.split(".")[0] for name in imports(path)} & IMPURE_MODULES
    assert not read(path)[0] & IMPURE_NAMES


@pytest.mark.parametrize("module", sorted(PURE))
def test_the_list_of_pure_modules_is_true(module: str) -> None:
    """Every module that is called pure exists."""
    assert module in MODULES


@pytest.mark.parametrize("module", list(MODULES))
def test_modules_are_short(module: str) -> None:
    """A module has one concept: 400 lines are a reason to split."""
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith("callfs.cli")])
def test_the_global_reactor_enters_at_the_top(module: str) -> None:
    """Only the composition root and the commands import the global reactor."""
    if module not in TOP:
        assert "twisted.internet.reactor" not in {
            f"{node.module}.{alias.name}"
            for node in read(MODULES[module])[1]
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }


def test_the_plugin_folder_is_a_namespace() -> None:
    """twisted.plugins is shared by many projects: an ``__init__.py`` there would hide all others."""
    assert not list((PACKAGE.parent / "twisted").rglob("__init__.py"))
