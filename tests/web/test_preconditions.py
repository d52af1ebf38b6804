"""Conditional requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.errors import BadRequest, PreconditionFailed
from callfs.model import Preconditions
from callfs.web.preconditions import Reading, entity_tags, for_reading, for_writing, range_applies
from callfs.web.timestamps import http_date

NOW = 1_700_000_000_500_000
BEFORE, AT, AFTER = http_date(NOW - 5_000_000), http_date(NOW), http_date(NOW + 5_000_000)
TAG, OTHER = '"a"', '"b"'

opaque = st.text(st.characters(codec="latin-1", categories=(), include_characters="!#ab,*/W~\xff"), max_size=4)
tags = st.builds(lambda weak, text: ("W/" if weak else "") + f'"{text}"', st.booleans(), opaque)
tag_lists = st.lists(tags, min_size=1, max_size=4)
some_headers = st.fixed_dictionaries(
    {},
    optional={
        "if-match": st.one_of(st.just("*"), st.just(TAG), tag_lists.map(", ".join)),
        "if-none-match": st.one_of(st.just("*"), st.just(TAG), st.just("W/" + TAG), tag_lists.map(", ".join)),
        "if-modified-since": st.sampled_from([BEFORE, AT, AFTER, "yesterday"]),
        "if-unmodified-since": st.sampled_from([BEFORE, AT, AFTER, "yesterday"]),
    },
)


def rfc_outcome(headers: dict[str, str]) -> int:
    """RFC 9110, section 13.2.2, step by step, for a GET of a resource with TAG that was modified AT."""
    if "if-match" in headers:
        if headers["if-match"] != "*" and TAG not in headers["if-match"].split(", "):
            return 412
    elif headers.get("if-unmodified-since") == BEFORE:
        return 412
    if "if-none-match" in headers:
        listed = [tag.removeprefix("W/") for tag in headers["if-none-match"].split(", ")]
        if headers["if-none-match"] == "*" or TAG in listed:
            return 304
    elif headers.get("if-modified-since") in (AT, AFTER):
        return 304
    return 200


class TestTags:
    """Lists of entity tags."""

    @given(tag_lists, st.sampled_from([",", ", ", " ,\t", ",,", " , , "]))
    def test_a_list_is_read_back(self, listed: list[str], separator: str) -> None:
        """Commas and blanks inside the quotes belong to the tag, empty elements are skipped."""
        assert entity_tags(separator.join(listed)) == tuple(listed)

    @pytest.mark.parametrize(
        "text", ["", " ", ",", "a", '"a', 'a"', '"a" "b"', '"a", b', "*, *", '*, "a"', "w/'a'"]
    )
    def test_anything_else_is_none(self, text: str) -> None:
        """What is no list of tags isn't taken for one."""
        assert entity_tags(text) is None

    @given(st.text(max_size=40))
    def test_no_text_makes_it_fail(self, text: str) -> None:
        """Tags or none, never an exception."""
        entity_tags(text)


class TestReading:
    """GET and HEAD."""

    @given(some_headers)
    def test_it_follows_the_rfc_step_by_step(self, headers: dict[str, str]) -> None:
        """The order and precedence of RFC 9110, section 13.2.2."""
        expected = rfc_outcome(headers)
        try:
            reading = for_reading(headers, TAG, NOW)
        except PreconditionFailed:
            assert expected == 412
        else:
            assert expected == (304 if reading is Reading.NOT_MODIFIED else 200)

    def test_if_match_compares_strongly(self) -> None:
        """A weak tag never matches."""
        with pytest.raises(PreconditionFailed):
            for_reading({"if-match": "W/" + TAG}, TAG, NOW)

    def test_if_match_hides_if_unmodified_since(self) -> None:
        """With If-Match the date doesn't count."""
        assert for_reading({"if-match": TAG, "if-unmodified-since": BEFORE}, TAG, NOW) is Reading.SEND

    def test_if_none_match_hides_if_modified_since(self) -> None:
        """With If-None-Match the date doesn't count."""
        assert for_reading({"if-none-match": OTHER, "if-modified-since": AFTER}, TAG, NOW) is Reading.SEND

    def test_a_directory_has_no_validators(self) -> None:
        """Without tag and date only the star says anything."""
        assert for_reading({"if-none-match": TAG, "if-modified-since": AFTER}, None, None) is Reading.SEND
        assert for_reading({"if-unmodified-since": BEFORE}, None, None) is Reading.SEND
        assert for_reading({"if-none-match": "*"}, None, None) is Reading.NOT_MODIFIED
        with pytest.raises(PreconditionFailed):
            for_reading({"if-match": TAG}, None, None)


class TestIfRange:
    """Whether Range counts."""

    @pytest.mark.parametrize(
        ("header", "applies"),
        [
            (None, True),
            (TAG, True),
            (OTHER, False),
            ("W/" + TAG, False),
            (AT, True),
            (BEFORE, False),
            (AFTER, False),
            ("nonsense", False),
            ("", False),
        ],
    )
    def test_a_strong_tag_or_the_exact_date(self, header: str | None, applies: bool) -> None:
        """RFC 9110, section 13.1.5."""
        assert range_applies({} if header is None else {"if-range": header}, TAG, NOW) is applies


class TestWriting:
    """What a change insists on."""

    def test_no_headers_no_conditions(self) -> None:
        """An unconditional request stays one."""
        assert for_writing({}) == Preconditions()

    def test_tags_and_dates_are_parsed(self) -> None:
        """Each header into its field, weak tags of If-None-Match without their mark."""
        assert for_writing({"if-match": '"a", W/"b"'}).if_match == ('"a"', 'W/"b"')
        assert for_writing({"if-match": "*"}).if_match == ("*",)
        assert for_writing({"if-none-match": 'W/"b"'}).if_none_match == ('"b"',)
        assert for_writing({"if-none-match": " * "}).if_none_match == ("*",)
        assert for_writing({"if-unmodified-since": AT}).if_unmodified_since == NOW - NOW % 1_000_000

    @pytest.mark.parametrize("text", ["abc", "", '"a', '"a" "b"', '*, "a"'])
    def test_a_malformed_if_match_holds_for_nothing(self, text: str) -> None:
        """It stays a condition, one that no entity tag meets."""
        condition = for_writing({"if-match": text}).if_match
        assert condition is not None
        assert condition != ("*",)
        assert not any(tag.startswith('"') and tag.endswith('"') and tag.count('"') == 2 for tag in condition)

    def test_a_malformed_if_none_match_is_refused(self) -> None:
        """Ignoring it would overwrite what the client wants to keep."""
        with pytest.raises(BadRequest, match="If-None-Match"):
            for_writing({"if-none-match": "abc"})

    def test_dates_that_do_not_count_are_ignored(self) -> None:
        """Beside If-Match, or when they are no dates (RFC 9110, section 13.1.4)."""
        assert for_writing({"if-match": "*", "if-unmodified-since": AT}).if_unmodified_since is None
        assert for_writing({"if-unmodified-since": "yesterday"}).if_unmodified_since is None
