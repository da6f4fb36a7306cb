"""A two-way pipe of messages between two processes, over a Unix socket.

A frame is a length, a number of descriptors and a pickled message. Receiving without waiting never blocks on half
a frame: what has arrived is kept until the rest is there, so a peer that is stopped in the middle of a frame
holds nobody up. There is no lock: each end has one reader and one writer at a time.

The user's code runs in the same process and may write where it should not. What is no frame is the end of the stream.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from keras_mpseq.errors import scarce

_HEAD = struct.Struct("<HIB")
_MARK = 0xF5A6
"""Begins each frame: a length that was none could be waited for without end. No text has these bytes."""
_FDS_PER_FRAME = 200  # Linux refuses more than 253 (SCM_MAX_FD) in one sendmsg.
_READ = 1 << 16
_INT = array.array("i").itemsize
_RIGHTS_SPACE = socket.CMSG_LEN(_FDS_PER_FRAME * _INT)
# Descriptors that arrive must not leak into programs that the user's code starts.
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """One end. The channel owns the socket; descriptors that arrive belong to who receives them."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = bytearray()
        self._fds: deque[int] = deque()
        self._carried: list[int] = []
        self._messages: deque[tuple[Any, list[int]]] = deque()
        self.ended: bool = False
        """The peer has closed its end, died, or sent what is no message; all that it said before has been read."""

    @staticmethod
    def pair() -> tuple[Channel, socket.socket]:
        """Return this process's end as a channel, and the other end as a socket to give away."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return Channel(ours), theirs

    def fileno(self) -> int:
        """Return the descriptor, to wait on."""
        return self._sock.fileno()

    def hang_up(self) -> None:
        """Let the peer see the end, whoever else holds this end too (a process that the user's code forked); close."""
        with contextlib.suppress(OSError):  # The peer is gone.
            self._sock.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        """Close this end, and every descriptor that arrived and was not taken."""
        self._sock.close()
        for fd in (*self._fds, *self._carried, *(fd for _, fds in self._messages for fd in fds)):
            os.close(fd)
        self._fds.clear()
        self._carried.clear()
        self._messages.clear()

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send *message* with *fds*; raises OSError when the peer is gone."""
        while len(fds) > _FDS_PER_FRAME:  # Frames without a body carry descriptors for the next message.
            self._send_frame(b"", fds[:_FDS_PER_FRAME])
            fds = fds[_FDS_PER_FRAME:]
        self._send_frame(pickle.dumps(message, 5), fds)

    def _send_frame(self, body: bytes, fds: Sequence[int]) -> None:
        frame = _HEAD.pack(_MARK, len(body), len(fds)) + body
        if fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            frame = frame[self._sock.sendmsg([frame], rights) :]
        self._sock.sendall(frame)

    def receive(self, patience_s: float | None = None) -> tuple[Any, list[int]]:
        """Wait for one message and return it with its descriptors.

        Raises:
            EOFError: The peer is gone.
            TimeoutError: Nothing came for *patience_s* seconds.
            MpseqError: Descriptors came for which this process has no room.
        """
        if patience_s is not None:
            self._sock.settimeout(patience_s)
        while not self._messages:
            if self.ended:
                raise EOFError("The other process closed the channel.")
            self._read(0)
        if patience_s is not None:
            self._sock.settimeout(None)
        return self._messages.popleft()

    def receive_ready(self) -> list[tuple[Any, list[int]]]:
        """Return the messages that have arrived, without waiting; sets `ended` at the end of the stream."""
        self._read(socket.MSG_DONTWAIT)
        messages = list(self._messages)
        self._messages.clear()
        return messages

    def receive_rest(self, patience_s: float) -> list[tuple[Any, list[int]]]:
        """Return all messages up to the end of the stream, of a peer that is dead or dying.

        The end comes at once, unless the user's code forked a process that holds the peer's end too: hence the
        patience.
        """
        self._sock.settimeout(patience_s)
        try:
            while not self.ended:
                self._read(0)
        except TimeoutError:
            self._sock.settimeout(None)
        messages = list(self._messages)
        self._messages.clear()
        return messages

    def _read(self, flags: int) -> None:
        """Read until nothing more is there (with MSG_DONTWAIT) or once, and take whole frames apart."""
        while not self.ended:
            try:
                # Not socket.recv_fds: before Python 3.12 it drops the flags.
                data, rights, told, _ = self._sock.recvmsg(_READ, _RIGHTS_SPACE, flags | _CLOEXEC)
            except BlockingIOError:
                break
            except ConnectionResetError:  # The peer died with bytes of ours unread: the end, like any other.
                data, rights, told = b"", [], 0
            for _, _, fds in rights:
                self._fds.extend(array.array("i", fds[: len(fds) - len(fds) % _INT]))
            if told & socket.MSG_CTRUNC:
                # What did not fit is lost, and with it the message: there is no way to go on.
                self.ended = True
                with scarce("Shared memory that was sent to this process cannot be had"):
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if not _CLOEXEC:
                for fd in self._fds:
                    os.set_inheritable(fd, False)
            self._bytes += data
            self.ended = not data
            # The kernel ends a read behind descriptors, so that there may be more.
            if not flags or (len(data) < _READ and not rights):
                break
        self._take_frames()

    def _take_frames(self) -> None:
        while len(self._bytes) >= _HEAD.size:
            mark, length, count = _HEAD.unpack_from(self._bytes)
            end = _HEAD.size + length
            if mark != _MARK or len(self._fds) < count:
                self._give_up()
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_HEAD.size : end])
            del self._bytes[:end]
            self._carried += [self._fds.popleft() for _ in range(count)]
            if body:
                try:
                    self._messages.append((pickle.loads(body), self._carried))
                except Exception:  # Bytes of somebody else's within a frame: they may mean anything to pickle.
                    self._give_up()
                else:
                    self._carried = []

    def _give_up(self) -> None:
        self.ended = True
        self._bytes.clear()
