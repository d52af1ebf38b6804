"""Bearer tokens become principals."""

from __future__ import annotations

import pytest

from callfs.errors import AuthenticationFailed
from callfs.model import Principal
from callfs.web.auth import ApiKeys, Authenticator
from callfs.web.routes import Access

SECRET = "internal-secret-of-the-peers"
PEPPER = b"p" * 32


def keys() -> ApiKeys:
    """A few users."""
    return ApiKeys(
        PEPPER,
        {
            "alice": ["alice-key-number-1", "alice-key-number-2"],
            "carol": ["carol-key-number-1"],
            "zoë": ["schlüssel-der-zoë"],
        },
        legacy=["legacy-key-number-0", "legacy-key-number-1"],
        admins=["carol", "api-user-1"],
        internal_secrets=[SECRET, "older-" + SECRET],
    )


def whose(authorization: str | None, access: Access = Access.USER, known: ApiKeys | None = None) -> Principal:
    """Who sends this header."""
    return Authenticator(known or keys()).authenticate(authorization, access)


class TestUsers:
    """API keys."""

    @pytest.mark.parametrize(
        ("key", "principal"),
        [
            ("alice-key-number-1", Principal("alice")),
            ("alice-key-number-2", Principal("alice")),
            ("carol-key-number-1", Principal("carol", is_admin=True)),
            ("legacy-key-number-0", Principal("api-user-0")),
            ("legacy-key-number-1", Principal("api-user-1", is_admin=True)),
            ("schlüssel-der-zoë", Principal("zoë")),
            (SECRET, Principal("internal-proxy", is_admin=True)),
            ("older-" + SECRET, Principal("internal-proxy", is_admin=True)),
        ],
    )
    def test_a_key_names_its_user(self, key: str, principal: Principal) -> None:
        """Any of a user's keys, the legacy list by position, the internal secret as internal-proxy."""
        assert whose(f"Bearer {key}") == principal

    @pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "  Bearer   {}  ", "Bearer\t{}\t"])
    def test_case_of_the_scheme_and_blanks_make_no_difference(self, form: str) -> None:
        """The scheme is compared without case, surrounding blanks are ignored."""
        assert whose(form.format("alice-key-number-1")).user == "alice"

    @pytest.mark.parametrize(
        "authorization",
        [
            None,
            "",
            "Bearer",
            "Bearer ",
            "Bearer    ",
            "alice-key-number-1",
            "Basic alice-key-number-1",
            "Beareralice-key-number-1",
            "Bearer unknown-key-number-1",
            "Bearer alice-key-number-1 x",
            "Bearer ALICE-KEY-NUMBER-1",
            "Bearer alice-key-number-",
            "Bearer alice-key-number-1, Bearer alice-key-number-1",
            "Bearer \udcff",
            "Bearer alice",
        ],
    )
    def test_everything_else_is_nobody(self, authorization: str | None) -> None:
        """Missing, malformed, empty or unknown."""
        with pytest.raises(AuthenticationFailed):
            whose(authorization)

    def test_the_answer_does_not_say_what_was_wrong(self) -> None:
        """An unknown key and a malformed header have the same message, without anything of what was sent."""
        messages = set()
        for authorization in ("Bearer unknown-key-number-1", "Basic x", "Bearer"):
            with pytest.raises(AuthenticationFailed) as caught:
                whose(authorization)
            messages.add(caught.value.message)
        assert len(messages) == 1


class TestAccess:
    """Who may call which route."""

    def test_a_public_route_asks_nobody(self) -> None:
        """Whatever is sent, it is nobody."""
        for authorization in (None, "Bearer nonsense", "Bearer alice-key-number-1"):
            assert whose(authorization, Access.PUBLIC) == Principal("")

    def test_an_internal_route_takes_the_secret_alone(self) -> None:
        """Not even an administrator's key."""
        assert whose(f"Bearer {SECRET}", Access.INTERNAL).user == "internal-proxy"
        for authorization in (None, "Bearer carol-key-number-1", "Bearer nonsense"):
            with pytest.raises(AuthenticationFailed):
                whose(authorization, Access.INTERNAL)


class TestReload:
    """Other keys while the daemon runs."""

    def test_old_keys_end_and_new_ones_begin(self) -> None:
        """From the next request on."""
        known = keys()
        known.replace({"bob": ["bobs-new-key-1234"]}, admins=["bob"], internal_secrets=["a-new-internal-secret"])
        assert whose("Bearer bobs-new-key-1234", known=known) == Principal("bob", is_admin=True)
        assert whose("Bearer a-new-internal-secret", Access.INTERNAL, known).user == "internal-proxy"
        for gone in ("alice-key-number-1", SECRET):
            with pytest.raises(AuthenticationFailed):
                whose(f"Bearer {gone}", known=known)

    def test_keys_are_not_kept(self) -> None:
        """Nothing that the object holds shows a key."""
        held = repr(vars(keys()))
        assert "alice-key-number-1" not in held
        assert SECRET not in held
