"""Load from one thread: connections that are kept, requests that are bytes already, and a look at every answer.

It costs a fraction of what any server here spends on a request, so that the server is what is measured.
"""

import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

CONNECTIONS = 32
PATIENCE = 60  # seconds without a single answer, after which there will be none
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class WrongAnswer(Exception):
    """An answer was not the expected one: what took how long to give it is of no interest."""


class Burst(NamedTuple):
    seconds: float
    latencies: list[float]  # of each request, in seconds


class Request(NamedTuple):
    """A GET, with one key after the other, and what must be answered: the status, and what the body must hold."""

    path: str
    keys: Sequence[str]
    status: int
    text: str
    header: str = "Authorization: Bearer"

    def with_key(self, key: str) -> bytes:
        return f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self.header} {key}\r\n\r\n".encode()


def connect(port: int, count: int = CONNECTIONS) -> list[socket.socket]:
    connections = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(count)]
    for connection in connections:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connections


class Load:
    """Bursts of requests, each on all connections at once; a connection sends its next one when it is answered."""

    def __init__(self, connections: Sequence[socket.socket], request: Request) -> None:
        self._connections = {connection.fileno(): connection for connection in connections}
        self._requests: Iterator[bytes] = cycle([request.with_key(key) for key in request.keys])
        self._status = f"HTTP/1.1 {request.status} ".encode()
        self._text = request.text.encode()
        self._length = 0  # of the first answer; all others must be as long

    def burst(self, seconds: float, most: int = 10**9) -> Burst:
        """As many requests as there is time for; those that are on their way in the end are waited for."""
        latencies: list[float] = []
        unfinished: dict[int, bytes] = {}
        sent: dict[int, float] = {}
        started = time.perf_counter()
        deadline = started + seconds
        with select.epoll() as poll:
            for number, connection in self._connections.items():
                poll.register(number, select.EPOLLIN)
                sent[number] = time.perf_counter()
                connection.sendall(next(self._requests))
            while sent:
                for number in self._readable(poll):
                    answer = unfinished.pop(number, b"") + self._receive(number)
                    if not self._is_whole(answer):
                        unfinished[number] = answer
                        continue
                    now = time.perf_counter()
                    latencies.append(now - sent.pop(number))
                    if now < deadline and len(latencies) < most:
                        sent[number] = now
                        self._connections[number].sendall(next(self._requests))
        return Burst(time.perf_counter() - started, latencies)

    @staticmethod
    def _readable(poll: select.epoll) -> list[int]:
        events = poll.poll(PATIENCE)
        if not events:
            raise WrongAnswer(f"there was no answer for {PATIENCE} seconds")
        return [number for number, _ in events]

    def _receive(self, number: int) -> bytes:
        try:
            received = self._connections[number].recv(65_536)
        except ConnectionError:
            received = b""
        if not received:
            raise WrongAnswer("the server closed the connection")
        return received

    def _is_whole(self, answer: bytes) -> bool:
        """False while some of it is on its way. Raises WrongAnswer if it is not what must be answered."""
        as_expected = answer.startswith(self._status) and self._text in answer
        if as_expected and len(answer) == self._length:
            return True
        head, separator, body = answer.partition(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head + b"\r\n")
        if not separator or (length and len(body) < int(length[1])):
            return False
        if as_expected and not self._length:
            self._length = len(answer)
            return True
        expected = f"{self._status.decode()}with {self._text.decode()}"
        raise WrongAnswer(f"expected {expected}, and got:\n{answer.decode(errors='replace')}")
