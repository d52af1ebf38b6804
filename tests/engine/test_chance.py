"""Chance, drawn ahead."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from callfs.engine.chance import BLOCK_BYTES, DrawnAhead


class TestDrawnAhead:
    @given(st.lists(st.integers(0, 3 * BLOCK_BYTES), max_size=30))
    def test_each_byte_once(self, sizes: list[int]) -> None:
        """Every draw has the size asked for, and no piece of the source is given out twice."""
        positions = count()

        def source(size: int) -> bytes:
            return b"".join(next(positions).to_bytes(4) for _ in range(-(-size // 4)))[:size]

        draw = DrawnAhead(source)
        drawn = [draw(size * 4) for size in sizes]
        assert [len(piece) for piece in drawn] == [size * 4 for size in sizes]
        words = [piece[at : at + 4] for piece in drawn for at in range(0, len(piece), 4)]
        assert len(set(words)) == len(words)

    def test_few_draws(self) -> None:
        """Many small draws take few from the source."""
        asked: list[int] = []
        draw = DrawnAhead(lambda size: asked.append(size) or bytes(size))  # type: ignore[func-returns-value]
        for _ in range(1000):
            draw(16)
        assert len(asked) == 4
