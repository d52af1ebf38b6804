"""Paths: one decoding, one canonical form, and what is refused (HTTP API, section 2)."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.support.http import Client

LEGAL_NAMES = [
    "a b", "a+b", "100%", "%41", "%2F", "%2e%2e", "a@b", "a&b=c", "a;b=c", "a:b", "a?b", "a#b", "a,b", "~tilde",
    "'\"<>|", "a*[b]_%", "$(x)`y`", "-rf", ".hidden", "...", "..a", "a..", "a.", " ", " lead", "trail ", "CON",
    "grüße", "日本語", "emoji 😀", "👩‍👩‍👧‍👦", "\uff0f", "\u2024\u2024", "\u2028", "\u00a0", "\u200b", "\ufeff",
    "\U0010ffff", "Straße", "STRASSE", "İ",
]  # fmt: skip

FORBIDDEN = {
    "NUL": "%00", "control": "%01", "newline": "%0A", "escape": "%1B", "unit separator": "%1F", "delete": "%7F",
    "C1 control": "%C2%80", "C1 end": "%C2%9F", "backslash": "%5C", "bidi 202A": "%E2%80%AA",
    "bidi 202E": "%E2%80%AE", "bidi 2066": "%E2%81%A6", "bidi 2069": "%E2%81%A9", "no UTF-8": "%FF",
    "cut UTF-8": "%C3", "overlong slash": "%C0%AF", "surrogate": "%ED%A0%80", "beyond Unicode": "%F4%90%80%80",
}  # fmt: skip

CLIMBING = ["..", "../", "../etc/passwd", "a/../..", "a/../../b", "%2e%2e/x", ".%2E/x", "..%2fx", "a%2f..%2f..%2fb",
            "./../x", "//../x", "x/../../v1/files/x", "a/b/../../../a"]  # fmt: skip


class TestEncoding:
    @pytest.mark.parametrize("name", LEGAL_NAMES, ids=ascii)
    def test_legal_name(self, alice: Client, home: str, name: str) -> None:
        """A legal name is stored, read back, and listed exactly as given."""
        path = f"{home}/{name}"
        target = f"/v1/files{home}/{quote(name, safe='')}"
        assert alice.request("PUT", target, b"x").status == 201
        assert alice.request("GET", target).body == b"x"
        (entry,) = alice.directory(home).json()["items"]
        assert (entry["name"], entry["path"]) == (name, path)

    def test_decoded_once(self, alice: Client, home: str) -> None:
        """The path is decoded exactly once: %2541 is the name %41, not A."""
        assert alice.request("PUT", f"/v1/files{home}/%2541", b"x").status == 201
        assert alice.names(home) == ["%41"]

    def test_plus_is_plus(self, alice: Client, home: str) -> None:
        """A plus sign in a path is a plus sign, not a space."""
        assert alice.request("PUT", f"/v1/files{home}/a+b", b"x").status == 201
        assert alice.request("GET", f"/v1/files{home}/a%2Bb").body == b"x"
        assert alice.request("GET", f"/v1/files{home}/a%20b").status == 404

    def test_encoded_slash_separates(self, alice: Client, home: str) -> None:
        """%2F is a slash like any other once decoded."""
        assert alice.request("PUT", f"/v1/files{home}/d%2Ff", b"x").status == 201
        assert alice.content(f"{home}/d/f") == b"x"

    def test_case_matters(self, alice: Client, home: str) -> None:
        """Names that differ in case are different."""
        for name in ("docs", "Docs", "DOCS"):
            alice.stored(f"{home}/{name}", name.encode())
        assert alice.names(home) == ["DOCS", "Docs", "docs"]
        assert alice.content(f"{home}/Docs") == b"Docs"

    def test_normal_forms_are_kept_apart(self, alice: Client, home: str) -> None:
        """The composed and the decomposed form of a name are two names, each kept byte by byte."""
        for name in ("caf\u00e9", "cafe\u0301"):
            alice.stored(f"{home}/{name}", name.encode())
        assert sorted(alice.names(home)) == ["cafe\u0301", "caf\u00e9"]
        assert alice.content(f"{home}/caf\u00e9") == "caf\u00e9".encode()

    @pytest.mark.parametrize("name", ["a%", "a_", "a*", "a[bc]", "a?", "a\u0338"])
    def test_names_are_no_patterns(self, alice: Client, home: str, name: str) -> None:
        """A name that looks like a pattern matches itself alone, also when its tree is moved or deleted."""
        others = [f"{home}/{other}/f" for other in ("ab", "abc", "a", "a.b", "a0", "A%")]
        for path in (*others, f"{home}/{name}/f"):
            alice.stored(path)
        assert [entry["name"] for entry in alice.get(f"{home}/{name}").json()] == ["f"]
        assert alice.patch(f"{home}/{name}", name=name + "x").status == 200
        assert alice.delete(f"{home}/{name}x", "recursive=true").status == 204
        assert all(alice.exists(path) for path in others)


class TestCanonicalForm:
    @pytest.mark.parametrize(
        "spelling",
        ["d/f", "d//f", "//d/f", "./d/./f", "d/x/../f", "x/../d/f", "d/%2e/f", "d/x/%2E%2e/f", "d/f/../f"],
    )
    def test_spellings_of_one_path(self, alice: Client, home: str, spelling: str) -> None:
        """Empty and dot segments vanish, and .. takes the segment before it away."""
        alice.stored(f"{home}/d/f", b"x")
        assert alice.request("GET", f"/v1/files{home}/{spelling}").body == b"x"

    @pytest.mark.parametrize("path", CLIMBING)
    @pytest.mark.parametrize("route", ["/v1/files/", "/v1/directories/"])
    def test_climbing_is_refused(self, alice: Client, route: str, path: str) -> None:
        """A path that would climb above the root is refused, never clamped."""
        alice.request("GET", route + path).refused(400, "INVALID_PATH")

    @pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
    def test_climbing_is_refused_for_changes(self, alice: Client, method: str) -> None:
        """Nothing can be changed by a path that climbs."""
        alice.request(method, "/v1/files/../x", b"").refused(400, "INVALID_PATH")

    @pytest.mark.parametrize(
        "path", ["/../x", "/..", "/a/../../x", "/a\\b", "/a\u0000b", "/a\u202eb", "/" + "a" * 256]
    )
    def test_same_rule_in_json(self, alice: Client, home: str, path: str) -> None:
        """A path in a JSON body or a query obeys the same rule."""
        source = alice.stored(f"{home}/f")
        alice.patch(source, destination=path).refused(400, "INVALID_PATH")
        alice.link(path).refused(400, "INVALID_PATH")
        alice.post(f"{home}/copy", query=f"copy_from={quote(path)}").refused(400, "INVALID_PATH")

    def test_json_path_is_not_percent_decoded(self, alice: Client, home: str) -> None:
        """A path in a JSON body is plain text: %41 there is a name of three characters."""
        source = alice.stored(f"{home}/f")
        assert alice.patch(source, destination=f"{home}/%41").json() == {"path": f"{home}/%41"}
        assert alice.names(home) == ["%41"]

    def test_lone_surrogate_in_json(self, alice: Client, home: str) -> None:
        """A JSON text that isn't Unicode (a lone surrogate) is no path."""
        alice.stored(f"{home}/f")
        body = json.dumps({"destination": f"{home}/\ud800"}).encode()
        assert alice.request("PATCH", f"/v1/files{home}/f", body).status == 400

    def test_permission_sees_the_canonical_form(self, alice: Client, bob: Client, home: str) -> None:
        """Another spelling of a path gives nobody another right."""
        alice.stored(f"{home}/f")
        bob.made(f"{home}/bobs")
        for spelling in ("bobs/../f", "bobs/..%2ff", ".//f", "bobs/%2e%2e/f"):
            bob.request("DELETE", f"/v1/files{home}/{spelling}").refused(403, "PERMISSION_DENIED")


class TestRefusedCharacters:
    @pytest.mark.parametrize("encoded", FORBIDDEN.values(), ids=FORBIDDEN.keys())
    @pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
    def test_refused(self, alice: Client, home: str, method: str, encoded: str) -> None:
        """What isn't allowed in a name is 400 INVALID_PATH, whatever the method."""
        answer = alice.request(method, f"/v1/files{home}/a{encoded}b")
        assert answer.status == 400
        if method != "HEAD":
            assert answer.code == "INVALID_PATH"
        assert alice.names(home) == []

    @pytest.mark.parametrize("encoded", FORBIDDEN.values(), ids=FORBIDDEN.keys())
    def test_refused_in_listings(self, alice: Client, encoded: str) -> None:
        """A listing refuses the same paths."""
        alice.request("GET", f"/v1/directories/a{encoded}b").refused(400, "INVALID_PATH")


class TestLengths:
    @pytest.mark.parametrize("name", ["a" * 255, "é" * 127 + "a", "😀" * 63 + "abc"], ids=["ascii", "two", "four"])
    def test_longest_segment(self, alice: Client, home: str, name: str) -> None:
        """A segment of 255 bytes is legal."""
        assert len(name.encode()) == 255
        alice.stored(f"{home}/{name}")
        assert alice.names(home) == [name]

    @pytest.mark.parametrize("name", ["a" * 256, "é" * 128, "😀" * 64], ids=["ascii", "two", "four"])
    def test_too_long_segment(self, alice: Client, home: str, name: str) -> None:
        """A segment over 255 bytes is refused."""
        alice.put(f"{home}/{name}").refused(400, "INVALID_PATH")
        alice.get(f"{home}/{name}").refused(400, "INVALID_PATH")

    @staticmethod
    def path_of(home: str, length: int) -> str:
        path = home
        while length - len(path) > 251:
            path += "/" + "d" * 250
        return path + "/" + "f" * (length - len(path) - 1)

    def test_longest_path(self, alice: Client, home: str) -> None:
        """A path of 2,048 bytes is legal, and one more is refused."""
        path = self.path_of(home, 2048)
        alice.stored(path, b"deep")
        assert alice.content(path) == b"deep"
        alice.put(path + "f").refused(400, "INVALID_PATH")

    def test_longest_path_fully_encoded(self, alice: Client, home: str) -> None:
        """The longest path works with every byte percent-encoded: three times as long on the wire."""
        path = self.path_of(home, 2048)
        alice.stored(path, b"deep")
        encoded = "".join(f"%{byte:02x}" for byte in path[1:].encode())
        assert alice.request("GET", f"/v1/files/{encoded}").body == b"deep"


class TestTrailingSlash:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PATCH"])
    def test_on_a_file(self, alice: Client, home: str, method: str) -> None:
        """A trailing slash says directory: on a file it is 400 NOT_A_DIRECTORY."""
        path = alice.stored(f"{home}/f")
        body = b'{"name": "g"}' if method == "PATCH" else None
        answer = alice.request(method, f"/v1/files{path}/", body)
        assert answer.status == 400
        if method != "HEAD":
            assert answer.code == "NOT_A_DIRECTORY"
        assert alice.names(home) == ["f"]

    @pytest.mark.parametrize(
        "target", ["/v1/files/", "/v1/files//", "/v1/files/.", "/v1/files/a/..", "/v1/files/?x=y"]
    )
    def test_root(self, alice: Client, target: str) -> None:
        """The root always exists, is a directory, and belongs to root."""
        answer = alice.request("GET", target)
        assert answer.status == 200
        assert (answer["X-CallFS-Type"], answer["X-CallFS-Owner"]) == ("directory", "root")
