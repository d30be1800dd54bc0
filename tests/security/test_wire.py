"""Bytes on the wire, to the server as `plumbline annotate` runs it: what an HTTP client would not send."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator

import pytest
import uvicorn

from annotate_ui.server import open_listener, server_config
from plumbline.recipe_annotate import AnnotateSection
from tests.security.conftest import World, filled_world


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, int]]:
    folder = tmp_path_factory.mktemp("wire")
    made = filled_world(str(folder / "preferences.db"), folder)
    with open_listener("127.0.0.1", 0) as listener:
        running = uvicorn.Server(server_config(made.app, AnnotateSection(accounts=True)))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield made, listener.getsockname()[1]
        running.should_exit = True
        thread.join(10)
    made.close()


def sent(port: int, request: bytes, *, silence: float = 0.3) -> bytes:
    """What comes back for these bytes until the server closes, or has begun to answer and falls silent."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(request.replace(b"PORT", str(port).encode()))
            while piece := connection.recv(65536):
                answer += piece
                connection.settimeout(silence)
        except OSError:  # it is silent, or closed before all was sent
            return answer or b"HTTP/1.1 closed"
    return answer


def status(answer: bytes) -> bytes:
    """The status of the first answer."""
    return answer.partition(b" ")[2][:3]


HOST = b"Host: 127.0.0.1:PORT\r\n"
REFUSED = (b"400", b"403", b"404", b"405", b"411", b"413", b"414", b"431", b"501", b"505", b"clo", b"")

HEADS = {
    "a header of a megabyte": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "100,000 headers": b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 100_000 + b"\r\n",
    "an address of 200 kB": b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no host, as old clients": b"GET / HTTP/1.0\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + b"Host: attacker.example\r\n\r\n",
    "another host in the address": b"GET http://attacker.example/ HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
    "a proxy asked for": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a NUL": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes beyond ASCII": b"GET /\xff?\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "a line that goes on": b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n Origin: z\r\nHost : a\r\n\r\n",
    "length and chunks": b"POST /sign-in HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\nOrigin: http://evil.example\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /sign-in HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "a length that is none": b"POST /sign-in HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00" * 50,
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS)
def test_no_head_breaks_the_server(server: tuple[World, int], head: str) -> None:
    _, port = server
    answer = sent(port, HEADS[head])
    assert status(answer) in REFUSED, answer[:300]
    assert b"Traceback" not in answer
    assert b"root:" not in answer
    assert status(sent(port, b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")) == b"200"


def test_a_body_in_endless_pieces_is_cut_off(server: tuple[World, int]) -> None:
    _, port = server
    head = b"POST /sign-in HTTP/1.1\r\n" + HOST + b"Content-Type: application/x-www-form-urlencoded\r\n"
    many = (b"400\r\n" + b"x" * 1024 + b"\r\n") * 2000
    assert status(sent(port, head + b"Transfer-Encoding: chunked\r\n\r\n" + many)) in (b"413", b"clo")


def test_a_compressed_body_is_never_unpacked(server: tuple[World, int]) -> None:
    world, port = server
    bomb = zlib.compress(b"[" * 20_000_000)
    cookie = f"Cookie: plumbline_session_{port}={world.tokens['Bob']}\r\n".encode()
    head = b"POST /annotate-work/next HTTP/1.1\r\n" + HOST + cookie + b"Content-Type: application/json\r\n"
    head += b"Content-Encoding: deflate\r\nConnection: close\r\n" + f"Content-Length: {len(bomb)}\r\n\r\n".encode()
    assert status(sent(port, head + bomb)) == b"422"


def test_the_answer_names_neither_server_nor_version(server: tuple[World, int]) -> None:
    _, port = server
    answer = sent(port, b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n").lower()
    assert b"\r\nserver:" not in answer and b"uvicorn" not in answer and b"x-powered-by" not in answer


def test_who_is_asked_for_by_another_address_is_not_believed(server: tuple[World, int]) -> None:
    """`X-Forwarded-For` and `X-Forwarded-Proto` from this machine, while the recipe names no proxy."""
    _, port = server
    body = b"name=Bob&password=wrong"
    found = []
    for number in range(30):
        head = b"POST /sign-in HTTP/1.1\r\n" + HOST + b"Connection: close\r\nX-Forwarded-Proto: https\r\n"
        head += f"X-Forwarded-For: 10.0.0.{number}\r\nContent-Length: {len(body) + 2}\r\n".encode()
        name = body.replace(b"Bob", b"Bob%02d" % number)
        answer = sent(port, head + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + name)
        found.append(status(answer))
        assert b"strict-transport-security" not in answer.lower()
    assert found == [b"401"] * 20 + [b"429"] * 10


def test_websockets_are_refused(server: tuple[World, int]) -> None:
    _, port = server
    head = b"GET /annotate/ HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    head += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert status(sent(port, head)) != b"101"


def test_files_are_out_of_reach(server: tuple[World, int]) -> None:
    """As bytes, which no client has tidied up (Gradio CVE-2023-51449, CVE-2024-1728; Label Studio's `/static../`)."""
    world, port = server
    cookie = f"Cookie: plumbline_session_{port}={world.tokens['Lea']}\r\n".encode()
    ways = (b"../", b"..%2f", b"%2e%2e/", b"%252e%252e%252f", b"..\\", b"..%5c", b"....//", b"%c0%ae%c0%ae/", b"..;/")
    for start in (
        b"/assets/",
        b"/assets",
        b"/assets/board/",
        b"/annotate/assets/",
        b"/annotate/static/",
        b"/favicon.ico/",
    ):
        for way in ways:
            for target in (b"etc/passwd", b"app.py", b"preferences.db", b"etc/passwd%00.js"):
                request = (
                    b"GET " + start + way * 8 + target + b" HTTP/1.1\r\n" + HOST + cookie + b"Connection: close\r\n\r\n"
                )
                answer = sent(port, request)
                assert status(answer) in (b"400", b"404"), request
                assert b"root:" not in answer and b"SQLite format" not in answer
