"""Canonical paths."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs import paths
from callfs.errors import InvalidPath
from callfs.paths import canonical, from_url, is_within, join, moved, name, parent, says_directory, valid_name

OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
legal = st.characters(codec="utf-8", categories=(), include_characters="aZ0 +@%.~_-!'\u00e9\U0001f600\uff0f:*[?")
segments = st.text(legal, min_size=1, max_size=8).filter(lambda text: text not in (".", ".."))
canonical_paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))


def walked(raw: str) -> str | None:
    """What a shell does with the path, in the plainest way; ``None`` above the root."""
    stack: list[str] = []
    for part in raw.split("/"):
        if part == ".." and not stack:
            return None
        if part == "..":
            del stack[-1]
        elif part != "." and part != "":
            stack.append(part)
    return "/" + "/".join(stack)


class TestFromUrl:
    """Request targets."""

    @given(canonical_paths, st.sampled_from(["", "/"]), st.sampled_from(["", "/", "/-._~!$&'()*+,;=:@"]))
    def test_any_encoding_of_a_path_is_that_path(self, path: str, slash: str, left: str) -> None:
        """Whatever of it is percent-encoded, once; the slash at the end says "directory"."""
        encoded = quote(path, safe=left).encode()
        assert from_url(encoded + slash.encode()) == (path, slash == "/" or path == "/")

    @given(st.lists(st.sampled_from(["a", "..", ".", "", "b c", "..."]), max_size=10).map("/".join))
    def test_dots_and_empty_segments_go(self, raw: str) -> None:
        """Empty and dot segments vanish, two dots take one back, above the root is refused and never clamped."""
        expected = walked(raw)
        if expected is None:
            with pytest.raises(InvalidPath):
                from_url(quote(raw).encode())
        else:
            path, says = from_url(quote(raw).encode())
            assert path == expected
            assert says is (expected == "/" or raw.rpartition("/")[2] in ("", ".", ".."))

    @given(canonical_paths)
    def test_decoding_happens_once(self, path: str) -> None:
        """What is encoded twice is a name with percent signs in it."""
        once = quote(path, safe="/")
        assert from_url(quote(once, safe="/").encode())[0] == once

    @given(st.binary(max_size=40))
    def test_every_target_is_a_canonical_path_or_refused(self, raw: bytes) -> None:
        """Nothing else comes out, and what comes out is its own canonical form."""
        try:
            path, _ = from_url(raw)
        except InvalidPath:
            return
        assert canonical(path) == path
        assert path == "/" or all(part not in ("", ".", "..") for part in path[1:].split("/"))
        assert not set(path) & set("\\\0" + OVERRIDES)

    @pytest.mark.parametrize("raw", [b"%ff", b"%c3", b"%ed%a0%80", b"%c0%af", b"\xff", b"a%80b"])
    def test_bytes_that_are_no_utf8_are_refused(self, raw: bytes) -> None:
        """Overlong forms and surrogates included."""
        with pytest.raises(InvalidPath, match="UTF-8"):
            from_url(raw)

    @pytest.mark.parametrize(
        "character", ["\0", "\n", "\r", "\t", "\x1f", "\x7f", "\x85", "\x9f", "\\", *OVERRIDES]
    )
    def test_forbidden_characters_are_refused(self, character: str) -> None:
        """Control characters, backslash, bidirectional overrides; also in a segment that would vanish."""
        for raw in (f"a{character}b", f"a/{character}/../b"):
            with pytest.raises(InvalidPath):
                from_url(quote(raw).encode())

    def test_sequences_that_mean_nothing_stay(self) -> None:
        """A percent sign without two digits is a percent sign; a plus is a plus."""
        assert from_url(b"100%/a+b/%zz") == ("/100%/a+b/%zz", False)


class TestLimits:
    """How long."""

    def test_a_segment_of_255_bytes(self) -> None:
        """Bytes, not characters."""
        assert canonical("é" * 127 + "x") == "/" + "é" * 127 + "x"
        with pytest.raises(InvalidPath, match="255"):
            canonical("é" * 128)

    def test_a_path_of_2048_bytes(self) -> None:
        """Slashes included; what vanishes doesn't count."""
        path = ("/" + "x" * 255) * 8
        assert canonical(path) == path
        assert canonical("/y/.." + path) == path
        with pytest.raises(InvalidPath, match="2048"):
            canonical(path + "/y")

    def test_a_lone_surrogate_is_refused(self) -> None:
        """JSON can bring one; UTF-8 can't."""
        with pytest.raises(InvalidPath, match="UTF-8"):
            canonical("a\ud800")


class TestParts:
    """Parents, names, subtrees."""

    @given(canonical_paths.filter(lambda path: path != "/"))
    def test_parent_and_name_make_the_path(self, path: str) -> None:
        """And the name is a valid one."""
        assert join(parent(path), valid_name(name(path))) == path
        assert list(paths.ancestors(path))[-1] == parent(path)
        assert len(list(paths.ancestors(path))) == paths.depth(path)

    @given(canonical_paths, canonical_paths)
    def test_a_subtree_is_a_range_of_bytes(self, path: str, directory: str) -> None:
        """Between its bounds lies exactly what is below the directory, the directory itself not."""
        low, high = paths.subtree_start(directory).encode(), paths.subtree_end(directory).encode()
        below = path != directory and is_within(path, directory)
        assert (low < path.encode() < high) is below

    @given(canonical_paths.filter(lambda path: path != "/"), segments)
    def test_a_move_changes_the_beginning_alone(self, source: str, child: str) -> None:
        """What is below comes along."""
        assert moved(join(source, child), source, "/new") == join("/new", child)
        assert moved(source, source, "/new") == "/new"

    def test_a_move_that_makes_a_path_too_long_is_refused(self) -> None:
        """Over 2,048 bytes."""
        with pytest.raises(InvalidPath, match="2048"):
            moved("/a/" + "x" * 200, "/a", ("/" + "x" * 255) * 8)

    @pytest.mark.parametrize("segment", ["", ".", "..", "a/b", "/", "a/", "/a", "a\\b", "\0", "x" * 256])
    def test_what_is_no_name(self, segment: str) -> None:
        """A name is one segment."""
        with pytest.raises(InvalidPath):
            valid_name(segment)

    @pytest.mark.parametrize(
        ("raw", "says"), [("a/", True), ("a/.", True), ("a/..", True), ("", True), ("a", False)]
    )
    def test_what_says_directory(self, raw: str, says: bool) -> None:
        """A last segment that is empty or dots."""
        assert says_directory(raw) is says
