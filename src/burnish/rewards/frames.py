"""Messages over a stream socket: a length of eight bytes, then so many bytes."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

LENGTH = struct.Struct("!Q")
LONGEST = 256 * 2**20
"""Bytes of a message. One that claims more was not written by this library."""


def send(channel: socket.socket, message: bytes) -> None:
    """Waits until all of it is on its way. Raises OSError."""
    channel.sendall(LENGTH.pack(len(message)) + message)


def receive(channel: socket.socket) -> bytes:
    """Waits for a whole message. Raises EOFError where there will be none, and OSError."""
    (length,) = LENGTH.unpack(_exactly(channel, LENGTH.size))
    return _exactly(channel, length)


def _exactly(channel: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        part = channel.recv(min(count - len(got), 2**20))
        if not part:
            raise EOFError
        got += part
    return bytes(got)


class Frames:
    """An end that never waits: it keeps what is half read and what is not yet written."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self.channel = channel
        self.unsent = bytearray()
        self.ended = False
        self._unread = bytearray()

    def send(self, message: bytes) -> None:
        """Writes what the socket takes, and the rest with later calls of `flush`. That the other end is gone is noticed by `receive`."""
        self.unsent += LENGTH.pack(len(message)) + message
        self.flush()

    def flush(self) -> None:
        with suppress(BlockingIOError):
            while self.unsent:
                try:
                    del self.unsent[: self.channel.send(self.unsent[: 2**20])]
                except ConnectionError:
                    self.unsent.clear()

    def receive(self) -> list[bytes]:
        """The messages that have become whole. Sets `ended` where the other end is gone, or writes what is no message."""
        with suppress(BlockingIOError):
            for _ in range(64):  # and then it is another's turn
                try:
                    part = self.channel.recv(2**20)
                except ConnectionError:
                    part = b""
                if not part:
                    self.ended = True
                    break
                self._unread += part
        found = []
        while len(self._unread) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._unread)
            if length > LONGEST:
                self.ended = True
            if length > len(self._unread) - LENGTH.size:
                break
            found.append(bytes(self._unread[LENGTH.size : LENGTH.size + length]))
            del self._unread[: LENGTH.size + length]
        return found
