"""What a command asks of the daemon, over real sockets."""

from __future__ import annotations

import socket
import threading

import pytest

from callfs.cli.daemonclient import DaemonClient, DaemonFailure, failing_with_status
from callfs.config.schema import AuthConfig, Config, ServerConfig
from callfs.config.secret import Secret
from tests.cli.servers import Asked, Behaviour, Reply, played, refusal
from tests.support.ports import free_port

SECRET = "internal-secret-0123456789"
PATH = "/v1/internal/thing"


def configuration(listen_addr: str = ":8443", secret: str = SECRET) -> Config:
    """A configuration with this secret."""
    server = ServerConfig(listen_addr=listen_addr, protocol="http")
    return Config(server=server, auth=AuthConfig(internal_proxy_secret=(Secret(secret), Secret("another"))))


def failure(behaviour: Behaviour, timeout_seconds: float = 10.0) -> DaemonFailure:
    """What a request comes to."""
    with played(behaviour) as daemon, pytest.raises(DaemonFailure) as caught:
        DaemonClient(configuration(), daemon.url, timeout_seconds).get(PATH)
    return caught.value


class TestAsking:
    def test_get(self) -> None:
        """The JSON that is answered; the first of the internal secrets goes along."""
        with played(lambda asked: {"target": asked.target}) as daemon:
            assert DaemonClient(configuration(), daemon.url).get(PATH) == {"target": PATH}
        assert daemon.asked == [Asked("GET", PATH, f"Bearer {SECRET}", None)]

    def test_post(self) -> None:
        """A value goes as JSON, and comes back so."""
        with played(lambda asked: asked.body) as daemon:
            assert DaemonClient(configuration(), daemon.url + "/").post(PATH, {"é": [1]}) == {"é": [1]}
        assert [asked.method for asked in daemon.asked] == ["POST"]

    def test_the_daemon_of_the_configuration(self) -> None:
        """Without a URL it is the one that listens where the configuration says."""
        with played(lambda _: 1) as daemon:
            listen_addr = daemon.url.removeprefix("http://")
            client = DaemonClient(configuration(listen_addr))
            assert (client.url, client.get(PATH)) == (daemon.url, 1)
        assert DaemonClient(configuration(":8443")).url == "http://localhost:8443"

    def test_another_secret(self) -> None:
        """One that is given takes the configuration's place."""
        with played(lambda _: 1) as daemon:
            DaemonClient(configuration(), daemon.url, secret="other-secret").get(PATH)
        assert daemon.asked[0].authorization == "Bearer other-secret"

    def test_no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Proxies that the environment names never see the request, nor the secret in it."""
        with played(lambda _: "proxy") as proxy, played(lambda _: "daemon") as daemon:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.delenv("no_proxy", raising=False)
            assert DaemonClient(configuration(), daemon.url).get(PATH) == "daemon"
        assert proxy.asked == []


class TestFailures:
    def test_refused_connection(self) -> None:
        """Nobody listens: the URL is named, and what to look at."""
        url = f"http://127.0.0.1:{free_port()}"
        with pytest.raises(
            DaemonFailure, match=r"Connection refused.*Is it running, and is that its URL\?"
        ) as caught:
            DaemonClient(configuration(), url).get(PATH)
        assert url in str(caught.value)
        assert caught.value.code == ""

    def test_silence(self) -> None:
        """Somebody who takes the connection and says nothing is given up."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            client = DaemonClient(configuration(), f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2)
            with pytest.raises(DaemonFailure, match="timed out"):
                client.get(PATH)

    def test_no_http(self) -> None:
        """What isn't HTTP is no daemon."""
        with socket.create_server(("127.0.0.1", 0)) as odd:
            odd.settimeout(10)

            def talk() -> None:
                connection, _ = odd.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"220 mail.example ESMTP\r\n")

            talking = threading.Thread(target=talk)
            talking.start()
            with pytest.raises(DaemonFailure, match="can't be asked"):
                DaemonClient(configuration(), f"http://127.0.0.1:{odd.getsockname()[1]}").get(PATH)
            talking.join()

    def test_a_tls_url_of_a_plain_daemon(self) -> None:
        """The wrong scheme is a failure like any other."""
        with played(lambda _: 1) as daemon, pytest.raises(DaemonFailure, match="can't be asked"):
            DaemonClient(configuration(), daemon.url.replace("http:", "https:")).get(PATH)
        assert daemon.asked == []

    @pytest.mark.parametrize("body", [b"<html>hello</html>", b"", b"\xff\xfe"])
    def test_another_server(self, body: bytes) -> None:
        """A good answer that isn't JSON comes from somebody else."""

        def behaviour(_: Asked) -> object:
            raise Reply(200, body)

        assert "isn't a CallFS daemon" in str(failure(behaviour))

    @pytest.mark.parametrize("body", [b"<html>no</html>", b"[]", b'{"error": "no"}', b"7"])
    def test_another_servers_refusal(self, body: bytes) -> None:
        """So does a refusal without a code."""

        def behaviour(_: Asked) -> object:
            raise Reply(404, body)

        assert "answers 404 Not Found: is that a CallFS daemon?" in str(failure(behaviour))

    def test_wrong_secret(self) -> None:
        """Said in the operator's words, without showing the secret."""

        def behaviour(_: Asked) -> object:
            raise refusal(401, "AUTHENTICATION_FAILED", "the credentials aren't valid")

        error = failure(behaviour)
        assert error.code == "AUTHENTICATION_FAILED"
        assert "auth.internal_proxy_secret" in str(error)
        assert SECRET not in str(error)

    def test_refusal(self) -> None:
        """The daemon's own message and code."""

        def behaviour(_: Asked) -> object:
            raise refusal(409, "CONFLICT", "the node is still catching up", reason="not_a_voter")

        error = failure(behaviour)
        assert (str(error), error.code) == ("the node is still catching up", "CONFLICT")

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirects(self, status: int) -> None:
        """No redirect is followed: the secret goes to the daemon alone."""
        with played(lambda _: "elsewhere") as elsewhere:

            def behaviour(_: Asked) -> object:
                raise Reply(status, Location=elsewhere.url)

            assert f"answers {status}" in str(failure(behaviour))
        assert elsewhere.asked == []

    @pytest.mark.parametrize(
        "url", ["ftp://node", "http://", "http://user@node", "file:///etc/passwd", "http://a b"]
    )
    def test_no_url(self, url: str) -> None:
        """Only a base URL is one."""
        with pytest.raises(DaemonFailure, match="isn't a base URL"):
            DaemonClient(configuration(), url)

    @pytest.mark.parametrize("secret", ["", "two words", "line\r\nbreak", "schlüssel"])
    def test_a_secret_that_cannot_be_sent(self, secret: str) -> None:
        """It is refused before anything is sent, and isn't shown."""
        with pytest.raises(DaemonFailure, match="visible ASCII") as caught:
            DaemonClient(configuration(), secret=secret)
        assert not secret or secret not in str(caught.value)


class TestStatus:
    def test_failure(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A job that fails ends the command with status 1 and its message."""

        def job() -> None:
            raise DaemonFailure("no")

        with pytest.raises(SystemExit) as caught:
            failing_with_status("node drain", job)
        assert caught.value.code == 1
        assert capsys.readouterr().err == "callfs node drain: no\n"

    def test_success(self) -> None:
        """One that doesn't fail is simply done."""
        done: list[int] = []
        failing_with_status("node drain", lambda: done.append(1))
        assert done == [1]
