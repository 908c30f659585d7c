"""The server behind a socket of the loopback interface: slow, rude and leaving clients, and how it ends."""

import http.client
import inspect
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra `serve`")
pytest.importorskip("httpx2", reason="test_serve needs it")

import uvicorn

from fevertools.cli import _serve, main
from fevertools.detector import PRESETS
from fevertools.serve import Settings, create_app, is_loopback, server
from tests._tiny import reference
from tests.test_serve import CROPS, PNGS

HEAD = b"POST /v1/embed?cropped=true HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.fixture
def address_of(triplet_weights):
    """Settings -> the address of a server that runs in a thread."""
    running = []

    def make(**settings):
        chosen = Settings(weights=triplet_weights, threads=1, device="cpu", **settings)
        app = create_app(chosen)
        listener = socket.create_server(("127.0.0.1", 0))
        made = uvicorn.Server(server.configure(app, chosen))
        thread = threading.Thread(target=made.run, args=([listener],))
        thread.start()
        running.append((made, thread, app))
        return listener.getsockname()

    yield make
    for made, thread, app in running:
        made.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        app.state.service.close()


def ends(connection, seconds=5):
    """What comes until the server closes the connection, or breaks it off."""
    connection.settimeout(seconds)
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def embeds(address):
    client = http.client.HTTPConnection(*address, timeout=10)
    client.request("POST", "/v1/embed?cropped=true", PNGS[0], {"Content-Type": "image/png"})
    answer = client.getresponse()
    return answer.status == 200 and b"embedding" in answer.read()


def test_one_connection_many_requests(address_of):
    client = http.client.HTTPConnection(*address_of(), timeout=10)
    for number in range(3):
        client.request("POST", "/v1/embed?cropped=true", iter([PNGS[number]]), {"Content-Type": "image/png"})
        answer = client.getresponse()
        assert answer.status == 200
        assert "server" not in {name.lower() for name, _ in answer.getheaders()}
        (face,) = json.loads(answer.read())["faces"]
        np.testing.assert_allclose(face["embedding"], reference(CROPS[number : number + 1, ..., None])[0][0], atol=1e-5)


def test_what_says_that_it_is_too_large_is_answered_before_it_is_sent(address_of):
    with socket.create_connection(address_of(max_bytes=1000)) as client:
        client.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
        client.settimeout(5)
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_chunks_without_end_are_answered_and_cut_off(address_of, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    with socket.create_connection(address_of(max_bytes=100_000)) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        part = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
        client.sendall(part * 2)
        client.settimeout(5)
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
        start = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - start < 5:
                client.sendall(part)
        assert time.monotonic() - start < 4


@pytest.mark.parametrize("sent", [b"", b"POST /v1/em", HEAD])
def test_a_head_that_does_not_end(address_of, monkeypatch, sent):
    monkeypatch.setattr(server, "PATIENCE", 0.4)
    address = address_of()
    start = time.monotonic()
    with socket.create_connection(address) as client:
        client.sendall(sent)
        while time.monotonic() - start < 0.3 and sent:  # a byte now and then does not help
            time.sleep(0.1)
            client.sendall(b"a")
        assert ends(client) == b""
    assert 0.3 < time.monotonic() - start < 3
    assert embeds(address)


def test_a_connection_that_is_used_stays(address_of, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    client = http.client.HTTPConnection(*address_of(), timeout=10)
    client.connect()
    connection = client.sock
    for _ in range(4):
        client.request("GET", "/health/live")
        assert client.getresponse().read() == b'{"status":"live"}'
        time.sleep(0.2)
    assert client.sock is connection
    client.request("POST", "/v1/embed?cropped=true", slowly(PNGS[0]), {"Content-Type": "image/png"})
    assert client.getresponse().read().startswith(b'{"faces"')
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n")
    start = time.monotonic()
    assert ends(connection) == b""
    assert time.monotonic() - start < 2


def slowly(content):
    """A body that takes longer than its head may."""
    yield content[:100]
    time.sleep(0.8)
    yield content[100:]


def test_a_body_that_does_not_end(address_of):
    address = address_of(body_timeout=0.4, queue=1)
    with socket.create_connection(address) as client:
        client.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        start = time.monotonic()
        while time.monotonic() - start < 0.3:
            time.sleep(0.05)
            client.sendall(b"x")
        answer = ends(client)  # and the connection with it
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - start < 3
    assert embeds(address)  # the place is free again


def test_too_many_connections(address_of, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 4)
    address = address_of()
    idle = [socket.create_connection(address) for _ in range(4)]
    for client in idle:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
    time.sleep(0.2)
    with socket.create_connection(address) as client:
        assert ends(client) == b""
    for client in idle:
        client.sendall(b"\r\n")
        client.settimeout(5)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.close()


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n", b"x" * 99_999]
)
def test_what_is_no_http(address_of, sent):
    address = address_of()
    with socket.create_connection(address) as client:
        client.sendall(sent + b"\r\n\r\n")
        assert ends(client)[:13] in (b"HTTP/1.1 400 ", b"")
    assert embeds(address)


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def process(triplet_weights):
    command = [sys.executable, "-m", "fevertools", "serve", "--weights", str(triplet_weights), "--port", "0"]
    running = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE, text=True)
    url = re.match(r"fevertools: listening on http://(127\.0\.0\.1):(\d+);", running.stderr.readline())
    yield running, (url[1], int(url[2]))
    running.kill()
    running.communicate()


def test_answers_are_not_held_back(process):
    client = http.client.HTTPConnection(*process[1], timeout=10)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        client.request("GET", "/health/live")
        client.getresponse().read()
        times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.03  # 40 ms where the system waits for an acknowledgement between head and body


@pytest.mark.skipif(os.name == "nt", reason="signals are others on Windows")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_what_has_begun_is_finished(process, sent, code):
    running, address = process
    assert embeds(address)
    with socket.create_connection(address) as client, socket.create_connection(address):  # the second one only idles
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(PNGS[0]) + PNGS[0][:100])
        time.sleep(0.5)
        running.send_signal(sent)
        time.sleep(0.5)
        with pytest.raises(OSError):  # noqa: PT011 - refused
            socket.create_connection(address).close()
        client.sendall(PNGS[0][100:])
        answer = ends(client, 10)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"embedding" in answer
    assert running.wait(20) == code
    assert "Traceback" not in running.stderr.read()


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "warned"), [([], False), (["--host", "::1"], False), (["--host", "0.0.0.0"], True)]
)
def test_a_warning_where_others_are_let_in(monkeypatch, capsys, arguments, warned):
    asked = []
    monkeypatch.setattr(_serve, "run", lambda settings, **address: asked.append((settings, address)))
    assert main(["serve", "--queue", "7", *arguments]) == 0
    assert asked[0][0] == Settings(queue=7)
    assert ("no password" in capsys.readouterr().err) == warned


def test_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "")] == [False] * 5


def test_help_gives_the_defaults(capsys):
    assert main(["serve", "--help"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    given = dict(re.findall(r" --([a-z-]+) [A-Z]+ [^(]*\(default: ([\d.]+)[,)]", text))
    settings = Settings()
    numbers = ("min_face_size", "max_bytes", "max_pixels", "max_faces", "timeout", "body_timeout", "queue", "batch")
    for name in numbers:
        value = PRESETS[settings.preset].min_face_size if name == "min_face_size" else getattr(settings, name)
        assert float(given[name.replace("_", "-")]) == value
    usual = inspect.signature(server.run).parameters
    assert (given["host"], int(given["port"])) == (usual["host"].default, usual["port"].default)


def test_without_its_extra_it_says_what_to_install():
    code = "import sys; sys.modules['starlette'] = None\nfrom fevertools.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 2
    assert "fevertools[serve]" in done.stderr
    assert "Traceback" not in done.stderr
