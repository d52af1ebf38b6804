"""Tables and sizes as commands print them."""

from __future__ import annotations

import pytest

from callfs.cli.tables import size_text, table


class TestTable:
    def test_columns(self) -> None:
        """Every column is as wide as its widest cell; numbers are flush right; no blanks at the ends."""
        assert table(("NAME", "SIZE", "X"), [("a", "5", ""), ("longer", "12345", "y")], right=(1,)) == [
            "NAME     SIZE  X",
            "a           5",
            "longer  12345  y",
        ]

    def test_empty(self) -> None:
        """Without rows there are the heads."""
        assert table(("A", "B"), []) == ["A  B"]

    def test_control_characters(self) -> None:
        """What comes from elsewhere stays in its cell."""
        assert table(("A",), [("x\n\x1b[1m\u202ey",)])[1] == "x??[1m?y"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 * 2**20, "10.0 MiB"),
        (3 * 2**30, "3.0 GiB"),
        (5 * 2**40, "5.0 TiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """The largest unit that leaves at least one."""
    assert size_text(size) == text
