"""Cursors of listings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.errors import BadRequest
from callfs.web.cursors import decode, encode

positions = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


class TestCursors:
    """Where the next page begins."""

    @given(positions, st.booleans())
    def test_it_is_opaque_and_comes_back(self, after: str, recursive: bool) -> None:
        """[A-Za-z0-9_-]+, and what went in comes out."""
        cursor = encode("/dir", recursive, after)
        assert re.fullmatch("[A-Za-z0-9_-]+", cursor)
        assert decode(cursor, "/dir", recursive) == after

    def test_the_longest_path_fits(self) -> None:
        """A position may be as long as a path."""
        after = "/" + "x" * 2047
        assert decode(encode("/", True, after), "/", True) == after

    @given(positions, st.data())
    def test_a_changed_cursor_is_refused(self, after: str, data: st.DataObject) -> None:
        """No character can be exchanged, no end cut off or added."""
        cursor = encode("/dir", False, after)
        place = data.draw(st.integers(0, len(cursor) - 1))
        character = data.draw(st.sampled_from("ABab01_-").filter(lambda c: c != cursor[place]))
        for changed in (
            cursor[:place] + character + cursor[place + 1 :],
            cursor[:-1],
            cursor + "A",
            cursor[:place],
        ):
            with pytest.raises(BadRequest):
                decode(changed, "/dir", False)

    def test_a_cursor_of_another_listing_is_refused(self) -> None:
        """It names its directory and whether it is recursive."""
        cursor = encode("/dir", False, "name")
        for directory, recursive in (("/other", False), ("/dir", True)):
            with pytest.raises(BadRequest):
                decode(cursor, directory, recursive)

    @given(st.text(max_size=60))
    def test_no_text_makes_it_fail_otherwise(self, text: str) -> None:
        """Whatever is sent is refused as a bad cursor."""
        with pytest.raises(BadRequest):
            decode(text, "/dir", False)
