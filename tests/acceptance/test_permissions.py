"""Who may do what (HTTP API, section 3)."""

from __future__ import annotations

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Client


class TestOthers:
    def test_read(self, alice: Client, bob: Client, home: str) -> None:
        """Another's file may be read, its links made, and its directory listed."""
        path = alice.stored(f"{home}/f", b"x")
        assert bob.content(path) == b"x"
        assert bob.head(path).status == 200
        assert bob.names(home) == ["f"]
        assert bob.get(home).status == 200
        assert bob.link(path).status == 201

    def test_write(self, alice: Client, bob: Client, home: str) -> None:
        """Another's file may not be written, moved, changed or deleted."""
        path = alice.stored(f"{home}/f", b"x")
        bob.put(path, b"y").refused(403, "PERMISSION_DENIED")
        bob.delete(path).refused(403, "PERMISSION_DENIED")
        bob.patch(path, name="g").refused(403, "PERMISSION_DENIED")
        bob.patch(path, mode="0777").refused(403, "PERMISSION_DENIED")
        bob.patch(path, owner="bob").refused(403, "PERMISSION_DENIED")
        assert alice.content(path) == b"x"
        assert alice.head(path)["X-CallFS-Mode"] == "0644"

    def test_create_inside(self, alice: Client, bob: Client, home: str) -> None:
        """Another's directory may be given new children, which belong to who made them."""
        bob.stored(f"{home}/f")
        bob.made(f"{home}/d")
        for path in (f"{home}/f", f"{home}/d"):
            assert alice.head(path)["X-CallFS-Owner"] == "bob"

    def test_delete_directory(self, alice: Client, bob: Client, home: str) -> None:
        """Another's directory may not be deleted, moved or changed, be it empty."""
        bob.delete(home).refused(403, "PERMISSION_DENIED")
        bob.delete(home, "recursive=true").refused(403, "PERMISSION_DENIED")
        bob.patch(home, name="taken").refused(403, "PERMISSION_DENIED")
        bob.patch(home, mode="0777").refused(403, "PERMISSION_DENIED")
        assert alice.exists(home)

    def test_own_file_in_anothers_directory(self, alice: Client, bob: Client, home: str) -> None:
        """One's own file is one's own, whose directory it is in; the directory's owner has no right to it."""
        path = bob.stored(f"{home}/f", b"x")
        alice.put(path, b"y").refused(403, "PERMISSION_DENIED")
        alice.delete(path).refused(403, "PERMISSION_DENIED")
        assert bob.put(path, b"z").status == 200
        assert bob.patch(path, name="g").status == 200
        assert bob.delete(f"{home}/g").status == 204

    def test_recursive_delete(self, alice: Client, bob: Client, carol: Client, home: str) -> None:
        """A recursive delete needs the right to everything inside, else nothing happens."""
        alice.stored(f"{home}/d/a")
        bob.stored(f"{home}/d/deep/b")
        alice.stored(f"{home}/d/z")
        alice.delete(f"{home}/d", "recursive=true").refused(403, "PERMISSION_DENIED")
        assert alice.names(f"{home}/d") == ["a", "deep", "z"]
        assert carol.delete(f"{home}/d", "recursive=true").status == 204

    def test_missing_before_forbidden(self, bob: Client, home: str) -> None:
        """What doesn't exist is 404, not 403."""
        for answer in (
            bob.get(f"{home}/missing"),
            bob.delete(f"{home}/missing"),
            bob.patch(f"{home}/missing", name="x"),
            bob.link(f"{home}/missing"),
        ):
            answer.refused(404, "FILE_NOT_FOUND")

    def test_move_into_anothers_directory(self, alice: Client, bob: Client, home: str) -> None:
        """A move is a create at the destination: another's directory takes it."""
        bob.stored(f"{home}/bobs/f")
        alice.made(f"{home}/alices")
        assert bob.patch(f"{home}/bobs/f", destination=f"{home}/alices/f").status == 200

    def test_overwriting_move(self, alice: Client, bob: Client, home: str) -> None:
        """To overwrite by a move needs the right to delete what is there."""
        alice.stored(f"{home}/f", b"x")
        path = bob.stored(f"{home}/g", b"y")
        bob.patch(path, name="f", overwrite=True).refused(403, "PERMISSION_DENIED")
        assert (alice.content(f"{home}/f"), alice.content(path)) == (b"x", b"y")

    def test_copy_belongs_to_its_maker(self, alice: Client, bob: Client, home: str) -> None:
        """A copy of another's file belongs to who made it."""
        path = alice.stored(f"{home}/f", b"x")
        assert bob.post(f"{home}/g", query=f"copy_from={path}").status == 201
        assert bob.put(f"{home}/g", b"y").status == 200


class TestAdministrators:
    def test_everything(self, alice: Client, carol: Client, home: str) -> None:
        """An administrator may write, move, change and delete what is another's."""
        path = alice.stored(f"{home}/d/f", b"x")
        assert carol.put(path, b"y").status == 200
        assert carol.patch(path, name="g").status == 200
        assert carol.patch(f"{home}/d/g", mode="0600").status == 200
        assert carol.delete(f"{home}/d/g").status == 204
        assert carol.delete(f"{home}/d").status == 204

    def test_internal_proxy(self, daemon: Daemon, alice: Client, home: str) -> None:
        """The internal secret is accepted on the public API as internal-proxy, who may do everything."""
        proxy = Client(daemon.address, daemon.internal_secret)
        path = alice.stored(f"{home}/f", b"x")
        assert proxy.put(path, b"y").status == 200
        assert alice.head(path)["X-CallFS-Owner"] == "alice"
        proxy.stored(f"{home}/g")
        assert alice.head(f"{home}/g")["X-CallFS-Owner"] == "internal-proxy"
        proxy.close()


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_root_takes_everyones_children(daemon: Daemon, user: str, home: str) -> None:
    """Every user may create in the root, which belongs to root, and delete only what is theirs."""
    client = daemon.client(user)
    path = client.stored(f"{home}-{user}")
    assert client.delete(path).status == 204
    client.close()
