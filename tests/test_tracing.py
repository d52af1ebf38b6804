"""On whose behalf something is done."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from callfs import tracing
from callfs.tracing import Origin


def test_what_is_started_inherits_it() -> None:
    """Everything that a request sets going is done for it, also after waiting, and nothing else is."""
    gates: list[Deferred[None]] = []
    seen: list[tuple[str, Origin | None]] = []

    async def part(name: str) -> None:
        gate: Deferred[None] = Deferred()
        gates.append(gate)
        await gate
        seen.append((name, tracing.current()))

    async def request(name: str) -> None:
        tracing.enter(Origin(name * 16, name))
        await Deferred.fromCoroutine(part(name))

    running = [Deferred.fromCoroutine(request(name)) for name in "ab"]
    Deferred.fromCoroutine(part("the node itself"))
    for gate in reversed(gates):
        gate.callback(None)
    assert all(each.called for each in running)
    assert seen == [("the node itself", None), ("b", Origin("b" * 16, "b")), ("a", Origin("a" * 16, "a"))]
    assert tracing.current() is None


def test_headers() -> None:
    """What is told to another node is what that node understands."""

    async def told(origin: Origin | None) -> dict[str, str]:
        if origin is not None:
            tracing.enter(origin)
        return tracing.headers()

    for origin in (Origin("0123456789abcdef", "alice"), Origin("0123456789abcdef", ""), None):
        results: list[dict[str, str]] = []
        Deferred.fromCoroutine(told(origin)).addCallback(results.append)
        given = {name.lower(): value for name, value in results[0].items()}
        assert tracing.from_headers(given) == origin
