"""The contract of metadata stores: reading, listing in pages, and names of every kind."""

from __future__ import annotations

from callfs import paths
from tests.contract.metadata_base import StoreTests
from tests.support.commands import TO_S3

ODD_NAMES = sorted(
    [
        "*",
        "%",
        "%25",
        "_",
        "[a]",
        "?",
        "'",
        '"',
        "'; DROP TABLE inodes; --",
        "a b",
        " a",
        "a ",
        "+",
        "@",
        "007",
        "7",
        "1e3",
        "true",
        "null",
        "{}",
        "a",
        "A",
        "é",
        "e\u0301",
        "Å",
        "\u212b",
        "ß",
        "ss",
        "SS",
        "\uff0f",
        "😀",
        "\uffff",
        "\U0010ffff",
        "-rf",
        "...",
        "~",
        "#",
        "&",
        "$HOME",
        "a" * 255,
        "é" * 127 + "x",
        "😀" * 63 + "xyz",
    ],
    key=str.encode,
)


class ReadingContract(StoreTests):
    """``get``, ``get_by_id``, ``get_chain``."""

    async def test_what_is_not_there(self) -> None:
        """Nothing at a path or an id is ``None``, also below a file."""
        await self.apply(self.make.create("/f"))
        assert await self.store.get("/x") is None
        assert await self.store.get("/f/x") is None
        assert await self.store.get_by_id("f" * 32) is None

    async def test_a_chain_ends_at_what_exists(self) -> None:
        """A chain has all that exists of a path, and ends at the file in its way."""
        await self.apply(self.make.create("/a/b/f"))
        assert [inode.path for inode in await self.store.get_chain("/")] == ["/"]
        assert [inode.path for inode in await self.store.get_chain("/x/y")] == ["/"]
        assert [inode.path for inode in await self.store.get_chain("/a/b/c/d")] == ["/", "/a", "/a/b"]
        assert [inode.path for inode in await self.store.get_chain("/a/b/f/x")] == ["/", "/a", "/a/b", "/a/b/f"]

    async def test_a_read_after_an_answer_sees_the_change(self) -> None:
        """Whoever asks after a change was answered sees it, on another connection too."""
        other = await self.open_other()
        for number in range(50):
            await self.apply(self.make.create(f"/{number}"))
            assert await self.store.get(f"/{number}") is not None
            assert await other.get(f"/{number}") is not None

    async def test_instants_keep_their_microseconds(self) -> None:
        """An instant comes back as it was given, the far past and future too."""
        await self.apply(self.make.create("/f"))
        for instant in (0, 1, -1, 1_234_567_890_123_457, 253_402_300_799_999_999):
            await self.apply(self.make.change("/f", mtime=instant))
            assert (await self.existing("/f")).mtime == instant

    async def test_a_store_that_answers_is_ready(self) -> None:
        """``check`` fires when the store answers."""
        assert await self.store.check() is None

    async def test_names_are_exactly_what_they_are(self) -> None:
        """Names that look like patterns or numbers, differ in case or normal form alone, or are 255 bytes long:
        each is a file of its own, found by itself alone, and in bytewise order."""
        for name in ODD_NAMES:
            await self.apply(self.make.create(paths.join("/dir", name)))
        directory = await self.existing("/dir")
        listed = await self.store.list_children(directory.id)
        assert [paths.name(inode.path) for inode in listed] == ODD_NAMES
        for inode in listed:
            assert await self.store.get(inode.path) == inode
        assert await self.listed_paths("/dir") == [paths.join("/dir", name) for name in ODD_NAMES]

    async def test_odd_names_of_directories_hold_their_own(self) -> None:
        """Removing one directory with an odd name takes what is in it and nothing else."""
        for name in ODD_NAMES:
            await self.apply(self.make.create(paths.join(paths.join("/", name), "f")))
        for gone in range(len(ODD_NAMES)):
            await self.apply(self.make.remove(paths.join("/", ODD_NAMES[gone]), recursive=True))
            left = [paths.join("/", name) for name in ODD_NAMES[gone + 1 :]]
            assert [path for path in await self.listed_paths() if not path.endswith("/f")] == left
            assert len(await self.listed_paths()) == 2 * len(left)

    async def test_two_hundred_deep(self) -> None:
        """A tree 200 deep is made, read, walked, moved and removed."""
        deep = "".join(f"/{number}" for number in range(200))
        await self.apply(self.make.create(deep))
        assert len(await self.store.get_chain(deep)) == 201
        assert len(await self.store.walk("/0")) == 199
        assert len(await self.store.walk("/", max_depth=100)) == 101
        await self.apply(self.make.move("/0", "/zero"))
        assert await self.store.get("/zero" + deep.removeprefix("/0")) is not None
        assert (await self.apply(self.make.remove("/zero", recursive=True))).count == 200

    async def test_the_deepest_possible_path(self) -> None:
        """As many one-letter names as a path can hold."""
        deepest = "/a" * (paths.MAX_PATH_BYTES // 2)
        await self.apply(self.make.create(deepest))
        assert len(await self.store.get_chain(deepest)) == 1025


class ListingContract(StoreTests):
    """``list_children`` and ``walk``."""

    async def children_in_pages(self, directory: str, limit: int) -> list[str]:
        """The names in a directory, page by page."""
        inode = await self.existing(directory)
        names: list[str] = []
        while page := await self.store.list_children(inode.id, names[-1] if names else "", limit):
            assert len(page) <= limit
            names += [paths.name(child.path) for child in page]
        return names

    async def walked_in_pages(self, directory: str, max_depth: int | None, limit: int) -> list[str]:
        """The paths below a directory, page by page."""
        found: list[str] = []
        while page := await self.store.walk(directory, found[-1] if found else "", max_depth, limit):
            assert len(page) <= limit
            found += [inode.path for inode in page]
        return found

    async def test_children_come_in_pages(self) -> None:
        """Pages of any size show each own entry once, by name, bytewise, and nothing deeper."""
        names = sorted([f"n{number}" for number in range(150)] + ["N", "é", "z"], key=str.encode)
        await self.apply_all(*(self.make.create(f"/d/{name}") for name in names))
        await self.apply(self.make.create("/d/n7-tree/deep"))
        names = sorted([*names, "n7-tree"], key=str.encode)
        for limit in (1, 7, 64, 65, 1000):
            assert await self.children_in_pages("/d", limit) == names

    async def test_the_root_is_not_its_own_child(self) -> None:
        """The root's entries are those below it."""
        await self.apply(self.make.create("/f"))
        assert await self.children_in_pages("/", 10) == ["f"]
        assert await self.walked_in_pages("/", None, 10) == ["/f"]

    async def test_an_empty_directory(self) -> None:
        """Nothing is nothing."""
        await self.apply(self.make.make_directory("/d"))
        assert await self.children_in_pages("/d", 10) == []
        assert await self.walked_in_pages("/d", 0, 10) == []

    async def test_a_walk_is_by_path_bytewise(self) -> None:
        """Names with characters below the slash sort between a directory and what is in it, as bytes do."""
        for path in ("/d/a/1", "/d/a!", "/d/a-b/2", "/d/a.txt", "/d/a0", "/d/ab"):
            await self.apply(self.make.create(path))
        expected = sorted(
            ["/d/a", "/d/a/1", "/d/a!", "/d/a-b", "/d/a-b/2", "/d/a.txt", "/d/a0", "/d/ab"], key=str.encode
        )
        for limit in (1, 2, 3, 100):
            assert await self.walked_in_pages("/d", None, limit) == expected

    async def test_a_walk_stops_at_its_depth(self) -> None:
        """Depth 0 is the children alone; each further one shows one more level, in pages of any size."""
        for first in ("a", "a!", "a-", "a.", "a0", "b"):
            for second in ("x", "x!", "y0"):
                for third in range(9):
                    await self.apply(self.make.create(f"/top/{first}/{second}/{third}"))
        everything = await self.walked_in_pages("/top", None, 1000)
        for depth in (0, 1, 2, 3, 1000):
            expected = [path for path in everything if paths.depth(path) <= depth + 2]
            for limit in (1, 5, 64, 1000):
                assert await self.walked_in_pages("/top", depth, limit) == expected
        assert await self.walked_in_pages("/", 1, 3) == [
            path for path in await self.listed_paths() if paths.depth(path) <= 2
        ]

    async def test_pages_are_stable_while_others_write(self) -> None:
        """What is there from the first page to the last is shown exactly once, whatever comes and goes."""
        stays = [f"/d/{number:04}" for number in range(0, 400, 2)]
        await self.apply_all(*(self.make.create(path) for path in stays))
        seen: list[str] = []
        for number in range(1, 400, 2):
            page = await self.store.walk("/d", seen[-1] if seen else "", 0, 7)
            seen += [inode.path for inode in page]
            await self.apply(self.make.create(f"/d/{number:04}"))
            if number > 1:
                await self.apply(self.make.remove(f"/d/{number - 2:04}"))
        assert [path for path in seen if path in set(stays)] == stays
        assert len(seen) == len(set(seen))

    async def test_counts(self) -> None:
        """Statistics count files, directories with the root, bytes of first copies, links and what is queued."""
        await self.apply(self.make.create("/a/f", blob=self.make.blob(10)))
        await self.apply(self.make.create("/a/g", blob=self.make.blob(5)))
        await self.apply(self.make.put("/a/g", blob=self.make.blob(6), replicate=TO_S3))
        await self.apply(self.make.issue_link(await self.existing("/a/f")))
        counts = await self.store.statistics()
        assert (counts.files, counts.directories, counts.bytes) == (2, 2, 16)
        assert (counts.links, counts.garbage, counts.replications) == (1, 1, 1)
