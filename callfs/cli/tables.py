"""Tables and sizes as commands print them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """
    Lines with columns of one width each; what comes from elsewhere can't break out of its line.

    :param right: the columns, from 0, that are flush right.
    """
    cells = [[_plain(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def size_text(size: int) -> str:
    """A number of bytes for people, like ``3.2 GiB``."""
    for power, unit in reversed(tuple(enumerate(_UNITS, start=1))):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f} {unit}"
    return f"{size} B"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
