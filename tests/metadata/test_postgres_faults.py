"""The PostgreSQL store when its server fails: killed, stopped, cut off, full, read-only."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from callfs.errors import InsufficientStorage, MetadataUnavailable, OutcomeUnknown
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.postgres import PostgresStore
from tests.contract.metadata_base import failure
from tests.metadata.postgres_binding import PostgresBinding
from tests.support.commands import Commands
from tests.support.postgres import PASSWORD, PostgresServer, harried_server
from tests.support.postgres_proxy import CommitProxy, Fate

TIMEOUT = 1.0
SLACK = 1.0
# pg_catalog, named last in the search path, comes after this.
CLOCK = """
    CREATE TABLE clock_shift AS SELECT interval '0' AS by;
    CREATE FUNCTION now() RETURNS timestamptz LANGUAGE sql STABLE AS
        'SELECT pg_catalog.now() + by FROM clock_shift';
"""
NO_ROOM = """
    CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END $$;
    CREATE TRIGGER no_room BEFORE INSERT ON blobs EXECUTE FUNCTION no_room();
"""


class Observer:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, component: str, error_type: str) -> None:
        """Something went wrong."""
        assert component == "metadata"
        self.errors.append(error_type)


class Harried(PostgresBinding):
    """Stores on a durable server that suffers."""

    addCleanup: Callable[..., None]

    def server(self) -> PostgresServer:
        """The server that suffers."""
        return harried_server()

    async def setUp(self) -> None:
        """A store, its commands, and what it logs."""
        self.make = Commands()
        self.observer = Observer()
        self.at_step: dict[str, Callable[[], object]] = {}
        self.logged: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        self.dsn = self.server().new_schema()
        self.store = await self.harried_store(self.dsn)

    async def harried_store(self, dsn: str, **options: Any) -> PostgresStore:
        """A store that gives up soon."""
        given: dict[str, Any] = {
            "op_timeout_seconds": TIMEOUT,
            "pool_size": 4,
            "observer": self.observer,
            "reached": self.reached,
        }
        return await self.opened(dsn, **(given | options))

    def reached(self, step: str) -> None:
        """On a thread of the pool: do, once, what the test wants done at this step."""
        self.at_step.pop(step, lambda: None)()

    def said(self, text: str) -> list[str]:
        """What was logged with ``text`` in it."""
        events = [event["log_format"].format(**event) for event in self.logged if event.get("log_format")]
        return [event for event in events if text in event]

    async def eventually(self, work: Callable[[], Deferred[Any]]) -> Any:
        """The result of what fails for a while."""
        for _ in range(20):
            try:
                return await work()
            except MetadataUnavailable:
                await deferLater(reactor, 0.05)
        return await work()


async def timed(deferred: Deferred[Any], error: type[Exception]) -> float:
    """How many seconds it takes until a Deferred fails with this error."""
    started = time.monotonic()
    await failure(deferred, error)
    return time.monotonic() - started


class LostAnswerTests(Harried, TestCase):
    """A connection that breaks at a COMMIT."""

    async def setUp(self) -> None:
        await super().setUp()
        self.proxy = CommitProxy(self.server().port)
        self.addCleanup(self.proxy.close)
        self.far = await self.harried_store(self.dsn.replace(str(self.server().port), str(self.proxy.port)))

    async def test_a_commit_whose_answer_is_lost_is_looked_up(self) -> None:
        """It was applied, and its result is what a second application would not give."""
        command = self.make.create("/a/f")
        self.proxy.fate = Fate.UNANSWERED
        written = await self.far.apply(command)
        assert self.proxy.fate is Fate.PASSED
        assert written.created
        assert await self.store.get("/a/f") == written.inode

    async def test_every_kind_of_result_is_found(self) -> None:
        """Whatever a command returns comes back from the look-up as it would have come at once."""
        inode = (await self.store.apply(self.make.create("/f"))).inode
        link = await self.store.apply(self.make.issue_link(inode))
        self.proxy.fate = Fate.UNANSWERED
        assert (await self.far.apply(self.make.consume_link(link.token_hash))).used_at is not None
        self.proxy.fate = Fate.UNANSWERED
        assert (await self.far.apply(self.make.move("/f", "/g"))).inode.path == "/g"
        self.proxy.fate = Fate.UNANSWERED
        assert (await self.far.apply(self.make.remove("/g"))).count == 1
        assert await self.store.walk("/") == []

    async def test_a_lost_commit_is_tried_again(self) -> None:
        """It wasn't applied, which is certain, so it is applied now, once."""
        self.proxy.fate = Fate.LOST
        written = await self.far.apply(self.make.put("/f"))
        assert self.proxy.fate is Fate.PASSED
        assert written.created
        assert (await self.store.get("/f")) == written.inode

    async def test_whatever_goes_wrong_at_a_commit(self) -> None:
        """Also an error that nobody thought of is no proof that nothing was changed: the server is asked."""

        def break_down() -> None:
            raise RuntimeError("something unheard of")

        self.at_step["metadata.after_commit"] = break_down
        written = await self.store.apply(self.make.create("/f"))
        assert self.at_step == {}
        assert await self.store.get("/f") == written.inode

    async def standing_still(self, *, forgotten: bool) -> PostgresStore:
        """A store whose process will stand still for an hour after its next COMMIT; its own clock with it."""

        def run(statements: str) -> None:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(statements)

        def stand_still() -> None:
            run("UPDATE clock_shift SET by = '1 hour'" + ("; DELETE FROM applied_commands" if forgotten else ""))
            raise psycopg.OperationalError("the connection was lost")

        run(CLOCK)
        store = await self.harried_store(self.dsn.removesuffix("'") + ",pg_catalog'")
        self.at_step["metadata.after_commit"] = stand_still
        return store

    async def test_an_outcome_that_may_be_forgotten(self) -> None:
        """
        A process that stood still for long after its COMMIT (SIGSTOP, a suspended machine) can't learn any more how
        it ended. It doesn't take what the server has forgotten for what never happened: the command's blob would
        be deleted. The server's clock tells, also where the machine's own stood still.
        """
        store = await self.standing_still(forgotten=True)
        await failure(store.apply(self.make.create("/f")), OutcomeUnknown)
        assert self.at_step == {}
        assert await self.store.get("/f") is not None
        assert self.said("whether the metadata command CreateFile was applied: Forgotten")

    async def test_an_outcome_that_is_remembered(self) -> None:
        """What the server still knows after that time is the answer."""
        store = await self.standing_still(forgotten=False)
        written = await store.apply(self.make.create("/f"))
        assert self.at_step == {}
        assert await self.store.get("/f") == written.inode

    async def test_an_outcome_that_can_not_be_learnt(self) -> None:
        """As long as the server has the transaction open nobody knows, and that is what is said, in time."""
        self.proxy.fate = Fate.HELD
        seconds = await timed(self.far.apply(self.make.create("/f")), OutcomeUnknown)
        assert seconds < 2 * TIMEOUT + SLACK
        assert "OUTCOME_UNKNOWN" in self.observer.errors
        assert self.said("it isn't known whether the metadata command CreateFile was applied")
        self.proxy.close()
        assert await self.store.get("/f") is None

    async def test_what_an_attempt_met_is_said(self) -> None:
        """An operation whose connection broke says that, though it was silence in which its time ran out."""
        self.proxy.fall_silent()
        assert await timed(self.far.get("/"), MetadataUnavailable) < TIMEOUT + SLACK
        assert len(self.said("the metadata database can't be reached")) == 1
        assert self.said("doesn't answer in time") == []

    async def test_what_a_command_met_is_said(self) -> None:
        """The same of a command, of which it is certain that nothing was changed."""
        self.proxy.fall_silent()
        assert await timed(self.far.apply(self.make.create("/f")), MetadataUnavailable) < TIMEOUT + SLACK
        assert len(self.said("the metadata database can't be reached")) == 1
        assert await self.store.get("/f") is None


class KilledTests(Harried, TestCase):
    """``kill -9`` and a new start."""

    async def test_killed_before_a_commit(self) -> None:
        """The command finds the new server, and is applied once."""
        self.at_step["metadata.before_commit"] = self.server().restart
        store = await self.harried_store(self.dsn, op_timeout_seconds=20)
        written = await store.apply(self.make.create("/a/f"))
        assert self.at_step == {}
        assert await store.get("/a/f") == written.inode
        assert written.inode.generation == 1

    async def test_killed_in_the_middle_of_many(self) -> None:
        """Everything that was answered is there, and everything is there once."""
        store = await self.harried_store(self.dsn, op_timeout_seconds=20)
        applied = [store.apply(self.make.create(f"/d/{number}")) for number in range(200)]
        assert (await applied.pop(20)).created
        await deferToThread(self.server().restart)
        assert all(written.created for written in await gatherResults(applied))
        assert len(await store.walk("/d")) == 200
        assert await store.verify() == []

    async def test_down_and_up_again(self) -> None:
        """Without a server there is an error in time, said once in the log; with it there is service again."""
        await deferToThread(self.server().kill)
        try:
            assert await timed(self.store.get("/"), MetadataUnavailable) < TIMEOUT + SLACK
            assert await timed(self.store.apply(self.make.create("/f")), MetadataUnavailable) < TIMEOUT + SLACK
            await failure(self.store.check(), MetadataUnavailable)
        finally:
            await deferToThread(self.server().start)
        await self.store.check()
        assert (await self.store.apply(self.make.create("/f"))).created
        assert len(self.said("the metadata database can't be reached")) == 1
        assert len(self.said("the metadata database answers again")) == 1


class PausedTests(Harried, TestCase):
    """A server that has the connection and doesn't answer."""

    async def setUp(self) -> None:
        await super().setUp()
        await gatherResults([self.store.get("/") for _ in range(8)])
        self.addCleanup(self.server().resume)

    async def test_reads_and_commands_fail_in_time(self) -> None:
        """Also those that wait behind others; what was withdrawn isn't applied later; then all is well again."""
        self.server().pause()
        started = time.monotonic()
        waiting = [self.store.apply(self.make.create(f"/{number}")) for number in range(10)]
        waiting += [self.store.get("/") for _ in range(10)]
        results = await DeferredList(waiting, consumeErrors=True)
        assert time.monotonic() - started < TIMEOUT + SLACK
        assert {(success, type(result.value)) for success, result in results} == {(False, MetadataUnavailable)}
        self.server().resume()
        assert (await self.eventually(lambda: self.store.apply(self.make.create("/after")))).created
        assert [inode.path for inode in await self.store.walk("/")] == ["/after"]

    async def test_paused_at_a_commit(self) -> None:
        """Nobody knows the outcome; it is said in time, and the command happened whole or not at all."""
        self.at_step["metadata.before_commit"] = self.server().pause
        seconds = await timed(self.store.apply(self.make.create("/a/f")), OutcomeUnknown)
        assert seconds < 2 * TIMEOUT + SLACK
        self.server().resume()
        await self.eventually(lambda: self.store.apply(self.make.make_directory("/after")))
        assert await self.store.verify() == []
        assert (await self.store.get("/a") is None) == (await self.store.get("/a/f") is None)

    async def test_a_short_pause_costs_nothing(self) -> None:
        """What goes on within the time limit succeeds."""
        store = await self.harried_store(self.dsn, op_timeout_seconds=20)
        self.server().pause()
        waiting = gatherResults([store.apply(self.make.create("/f")), self.store.get("/")])
        reactor.callLater(0.3, self.server().resume)
        written, root = await waiting
        assert written.created
        assert root is not None


class CutTests(Harried, TestCase):
    """``pg_terminate_backend``."""

    async def test_connections_cut_under_load(self) -> None:
        """Every command is applied exactly once and every read answered."""
        store = await self.harried_store(self.dsn, op_timeout_seconds=20)
        work: list[Deferred[Any]] = []
        for number in range(150):
            work += [store.apply(self.make.create(f"/d/{number}")), store.get("/")]
        for _ in range(5):
            await deferToThread(self.server().cut_connections)
        await gatherResults(work)
        assert len(await store.walk("/d")) == 150
        assert (await store.get("/d")).generation == 150  # type: ignore[union-attr]

    async def test_idle_connections_cut(self) -> None:
        """Connections that broke while nobody used them are replaced without anybody noticing."""
        await gatherResults([self.store.get("/") for _ in range(8)])
        self.server().cut_connections()
        assert all(await gatherResults([self.store.get("/") for _ in range(8)]))
        assert self.observer.errors == []


class RefusingTests(Harried, TestCase):
    """A server that answers, and says no."""

    async def test_out_of_connections(self) -> None:
        """Without a free connection there is an error in time, and service as soon as there is one."""
        server = self.server()
        server.cut_connections()
        with ExitStack() as others:
            for _ in range(20):
                others.enter_context(server.connect())
            assert await timed(self.store.get("/"), MetadataUnavailable) < TIMEOUT + SLACK
            assert self.said("too many clients")
        assert await self.eventually(lambda: self.store.get("/")) is not None

    async def test_read_only(self) -> None:
        """A server that takes no changes is read from; changes are refused with the reason in the log."""
        self.server().configure(default_transaction_read_only=True)
        self.addCleanup(self.server().configure, default_transaction_read_only=False)
        await failure(self.store.apply(self.make.create("/f")), MetadataUnavailable)
        await failure(self.store.check(), MetadataUnavailable)
        assert await self.store.get("/") is not None
        assert self.said("the metadata database is READ-ONLY")
        assert "25006" in self.observer.errors

    async def test_a_standby(self) -> None:
        """A standby may be behind, so it isn't even read from."""
        signal_file = self.server().data / "standby.signal"
        signal_file.touch()
        await deferToThread(self.server().restart)
        try:
            await failure(self.store.get("/"), MetadataUnavailable)
            await failure(self.store.apply(self.make.create("/f")), MetadataUnavailable)
            assert self.said("the metadata database is READ-ONLY, a standby perhaps")
        finally:
            signal_file.unlink()
            await deferToThread(self.server().restart)
        assert (await self.eventually(lambda: self.store.apply(self.make.create("/f")))).created

    async def test_a_synchronous_standby_that_is_gone(self) -> None:
        """What no standby has confirmed isn't said to be stored: a failover would lose it."""
        self.server().configure(synchronous_standby_names="nobody")
        self.addCleanup(self.server().configure, synchronous_standby_names="")
        seconds = await timed(self.store.apply(self.make.create("/f")), OutcomeUnknown)
        assert seconds < 2 * TIMEOUT + SLACK
        self.server().configure(synchronous_standby_names="")
        assert (await self.eventually(lambda: self.store.apply(self.make.create("/g")))).created

    async def test_a_full_disk(self) -> None:
        """What the server calls a full disk is one: nothing is changed, reads go on, and with room all is well."""
        await self.store.apply(self.make.create("/before"))
        with self.server().connect(self.dsn) as operator:
            operator.execute(NO_ROOM)
            await failure(self.store.apply(self.make.create("/during")), InsufficientStorage)
            assert "53100" in self.observer.errors
            assert [inode.path for inode in await self.store.walk("/")] == ["/before"]
            operator.execute("DROP TRIGGER no_room ON blobs")
        assert (await self.store.apply(self.make.create("/after"))).created

    async def test_a_lock_that_is_held(self) -> None:
        """What another session locks is waited for within the time limit; reads pass by."""
        with self.server().connect(self.dsn) as other:
            other.execute("BEGIN; LOCK TABLE inodes IN EXCLUSIVE MODE")
            commands = [self.store.apply(self.make.create(f"/{number}")) for number in range(10)]
            assert await self.store.get("/") is not None
            results = await DeferredList(commands, consumeErrors=True)
            assert {type(result.value) for _, result in results} == {MetadataUnavailable}
            other.execute("ROLLBACK")
        assert (await self.store.apply(self.make.create("/f"))).created
        assert len(await self.store.walk("/")) == 1


class SecretTests(Harried, TestCase):
    """The password."""

    def shown(self) -> str:
        """All that was logged."""
        return repr(self.logged)

    async def test_no_secret_is_shown(self) -> None:
        """Neither the store's own text, nor its errors, nor what it logs has the password in it."""
        wrong = "not-the-password-at-all"
        for dsn in (
            self.server().dsn(password=wrong),
            f"postgresql://callfs:{wrong}@127.0.0.1:{self.server().port}/missing",
            f"host=127.0.0.1 password={wrong} 'what",
            f"postgresql://callfs:{wrong}:x@127.0.0.1:notaport/x",
            f"{wrong}",
        ):
            store = self.postgres_store(dsn, op_timeout_seconds=0.2)
            refusal = await failure(store.open(), StoreUnusable)
            assert wrong not in str(refusal) + repr(refusal) + repr(store)
            assert refusal.__cause__ is None
            assert refusal.__suppress_context__
        assert wrong not in self.shown()
        assert PASSWORD not in repr(self.store) + self.shown()


class LimitTests(Harried, TestCase):
    """Giving up."""

    async def test_a_cancelled_command_is_withdrawn(self) -> None:
        """Cancelled while another is in its way, it is never applied."""
        with self.server().connect(self.dsn) as other:
            other.execute("BEGIN; LOCK TABLE inodes IN EXCLUSIVE MODE")
            first = self.store.apply(self.make.create("/f"))
            second: Deferred[Any] = self.store.apply(self.make.put("/f"))
            second.cancel()
            await failure(second, CancelledError)
            other.execute("ROLLBACK")
        assert (await first).created
        assert (await self.store.get("/f")).generation == 1  # type: ignore[union-attr]

    async def test_closing_finishes_what_waits(self) -> None:
        """Commands that were given before are applied; afterwards there is an error."""
        commands = [self.store.apply(self.make.create(f"/d/{number}")) for number in range(30)]
        closed = self.store.close()
        assert all(written.created for written in await gatherResults(commands))
        await closed
        await failure(self.store.get("/"), MetadataUnavailable)
        await failure(self.store.apply(self.make.create("/f")), MetadataUnavailable)

    async def test_closing_cuts_reads_short(self) -> None:
        """A check of everything that would wait for long ends with the store."""
        with self.server().connect(self.dsn) as other:
            other.execute("BEGIN; LOCK TABLE inodes IN ACCESS EXCLUSIVE MODE")
            checked = self.store.verify()
            await deferLater(reactor, 0.1)
            await self.store.close()
            await failure(checked, MetadataUnavailable)
