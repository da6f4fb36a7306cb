"""Messages arrive whole, in order and with their descriptors, however the bytes are cut; a dead peer is an end."""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from keras_mpseq.channel import Channel
from keras_mpseq.slots import anonymous_file, write_file
from tests.conftest import REPOSITORY, alarm

EOF_OF_PEER = ([], True)


class Ends(NamedTuple):
    """A channel, and the raw socket that its peer would write to."""

    ours: Channel
    theirs: socket.socket


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = Channel.pair()
    with theirs, contextlib.closing(ours):
        yield Ends(ours, theirs)


class Frame(NamedTuple):
    """What `Channel.send` writes for one message: bytes, and the descriptors that go with the first."""

    data: bytes
    fds: list[int]


def frame_of(message: object, fds: list[int]) -> Frame:
    """Return what is written for *message*; the descriptors are copies."""
    sender, receiver = socket.socketpair()
    with contextlib.closing(Channel(sender)) as channel, receiver:
        channel.send(message, fds)
        data, rights, _, _ = receiver.recvmsg(1 << 16, socket.CMSG_LEN(200 * 4))
    copies = array.array("i")
    for _, _, part in rights:
        copies.frombytes(part)
    return Frame(data, list(copies))


def write(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    assert sock.sendmsg([data], rights) == len(data)


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def heard(channel: Channel) -> tuple[list[object], bool]:
    """Return the messages that have arrived, without their descriptors, and whether that was all."""
    messages = [message for message, _ in channel.receive_ready()]
    return messages, channel.ended


def file_with(text: bytes) -> int:
    fd = anonymous_file(len(text))
    write_file(fd, text)
    return fd


def test_there_and_back_in_order() -> None:
    ours, end = Channel.pair()
    theirs = Channel(end)
    messages = [None, 1, "two", (3, [4.0]), b"\0" * 100_000, {"six": 7}]
    with contextlib.closing(ours), contextlib.closing(theirs), alarm("A message does not fit."):
        thread = threading.Thread(target=lambda: [ours.send(message) for message in messages])
        thread.start()
        assert [theirs.receive() for _ in messages] == [(message, []) for message in messages]
        thread.join()
        theirs.send("answer")
        assert ours.receive() == ("answer", [])


def test_a_message_larger_than_the_socket_buffer() -> None:
    ours, end = Channel.pair()
    theirs = Channel(end)
    blob = os.urandom(1 << 16) * 200
    with contextlib.closing(ours), contextlib.closing(theirs), alarm("12 MB do not get through."):
        thread = threading.Thread(target=ours.send, args=(blob,))
        thread.start()
        assert theirs.receive() == (blob, [])
        thread.join()


def test_split_at_every_byte(ends: Ends) -> None:
    fd = file_with(b"x")
    frame = frame_of(("message", 1), [fd])
    for cut in range(1, len(frame.data)):
        write(ends.theirs, frame.data[:cut], frame.fds)
        assert heard(ends.ours) == ([], False), cut
        write(ends.theirs, frame.data[cut:], [])
        [(message, fds)] = ends.ours.receive_ready()
        assert message == ("message", 1)
        assert len(fds) == 1
        assert os.pread(fds[0], 9, 0) == b"x"
        close_all(fds)
    close_all([fd, *frame.fds])


def test_byte_by_byte_with_several_frames_under_way(ends: Ends) -> None:
    texts = [b"a", b"b", b"c"]
    files = [file_with(text) for text in texts]
    frames = [frame_of("none", []), frame_of("one", files[:1]), frame_of("two", files[1:]), frame_of(None, [])]
    found: list[tuple[object, list[int]]] = []
    for frame in frames:
        for at in range(len(frame.data)):
            write(ends.theirs, frame.data[at : at + 1], [] if at else frame.fds)
            found += ends.ours.receive_ready()
    assert [message for message, _ in found] == ["none", "one", "two", None]
    assert [[os.pread(fd, 9, 0) for fd in fds] for _, fds in found] == [[], [b"a"], [b"b", b"c"], []]
    close_all([fd for _, fds in found for fd in fds])
    close_all([*files, *(fd for frame in frames for fd in frame.fds)])


def test_several_messages_in_one_read_each_with_its_own_descriptors(ends: Ends) -> None:
    files = [file_with(text) for text in (b"a", b"b", b"c")]
    with contextlib.closing(Channel(ends.theirs.dup())) as sender:
        sender.send(1, files[:2])
        sender.send(2)
        sender.send(3, files[2:])
    found = ends.ours.receive_ready()
    assert [message for message, _ in found] == [1, 2, 3]
    assert [[os.pread(fd, 9, 0) for fd in fds] for _, fds in found] == [[b"a", b"b"], [], [b"c"]]
    close_all([*files, *(fd for _, fds in found for fd in fds)])


@pytest.mark.parametrize("count", [1, 199, 200, 201, 253, 254, 400, 513])
def test_any_number_of_descriptors(ends: Ends, count: int) -> None:
    files = [file_with(b"%d" % number) for number in range(count)]
    with contextlib.closing(Channel(ends.theirs.dup())) as sender:
        sender.send("first", files)
        sender.send("second", files[:1])
    (first, fds), (second, more) = ends.ours.receive(), ends.ours.receive()
    assert (first, second) == ("first", "second")
    assert [os.pread(fd, 9, 0) for fd in fds] == [b"%d" % number for number in range(count)]
    assert [os.pread(fd, 9, 0) for fd in more] == [b"0"]
    close_all([*files, *fds, *more])


def test_descriptors_do_not_leak_into_programs_that_are_started(ends: Ends) -> None:
    fd = file_with(b"x")
    with contextlib.closing(Channel(ends.theirs.dup())) as sender:
        sender.send("file", [fd])
    _, fds = ends.ours.receive()
    assert not os.get_inheritable(fds[0])
    close_all([fd, *fds])


def test_closing_closes_what_was_not_taken(ends: Ends) -> None:
    """In a message that is whole, in one that is not, and in a frame that carries for a later one: see the fixture."""
    fd = file_with(b"x")
    ours, theirs = Channel.pair()
    with contextlib.closing(Channel(theirs)) as sender:
        sender.send("whole", [fd] * 2)
        sender._send_frame(b"", [fd] * 3)
        half = frame_of("half", [fd])
        write(theirs, half.data[:-1], half.fds)
        ours._read(socket.MSG_DONTWAIT)
        assert (len(ours._messages), len(ours._carried), len(ours._fds)) == (1, 3, 1)
        ours.close()
    close_all([fd, *half.fds])


# --- ends -------------------------------------------------------------------------------------------


def test_a_closed_peer_is_an_end_after_what_it_said(ends: Ends) -> None:
    with contextlib.closing(Channel(ends.theirs.dup())) as sender:
        sender.send("last words")
    ends.theirs.close()
    assert heard(ends.ours)[0] == ["last words"]
    assert heard(ends.ours) == EOF_OF_PEER
    with pytest.raises(EOFError, match="closed the channel"):
        ends.ours.receive()


def test_waiting_ends_with_the_peer(ends: Ends) -> None:
    thread = threading.Thread(target=ends.theirs.close)
    thread.start()
    with alarm("receive() does not notice."), pytest.raises(EOFError):
        ends.ours.receive()
    thread.join()


HALF_A_FRAME = """
import array, os, signal, socket, sys
from keras_mpseq.channel import Channel
sock = socket.socket(fileno=int(sys.argv[1]))
Channel(sock).send("whole")
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [2]))]
sock.sendmsg([bytes.fromhex(sys.argv[2])], rights)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_peer_that_dies_in_the_middle_of_a_frame() -> None:
    """What it said before arrives; of the half frame nothing does, and its descriptor is closed: see the fixture."""
    ours, theirs = Channel.pair()
    frame = frame_of("half", [2])
    close_all(frame.fds)
    arguments = [sys.executable, "-c", HALF_A_FRAME, str(theirs.fileno()), frame.data[:-1].hex()]
    peer = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    theirs.close()
    with contextlib.closing(ours), alarm("The end of the dead process does not come."):
        assert ours.receive() == ("whole", [])
        with pytest.raises(EOFError):
            ours.receive()
    assert peer.wait() == -signal.SIGKILL


def test_a_peer_that_dies_with_bytes_of_ours_unread_is_an_end_like_any_other(ends: Ends) -> None:
    ends.ours.send("never read")
    ends.theirs.close()  # Unix sockets answer this with ECONNRESET.
    assert heard(ends.ours) == EOF_OF_PEER


def test_sending_to_a_dead_peer_raises(ends: Ends) -> None:
    ends.theirs.close()
    with pytest.raises(BrokenPipeError):
        ends.ours.send("anybody?")


def test_receive_ready_never_waits(ends: Ends) -> None:
    with alarm("It waits.", 5.0):
        assert heard(ends.ours) == ([], False)
        write(ends.theirs, frame_of("x", []).data[:3], [])  # Not even the head.
        assert heard(ends.ours) == ([], False)


def test_patience_ends(ends: Ends) -> None:
    with alarm("It waits for ever.", 5.0), pytest.raises(TimeoutError):
        ends.ours.receive(0.01)
    with contextlib.closing(Channel(ends.theirs.dup())) as sender:
        sender.send("late")
    assert ends.ours.receive(5.0) == ("late", [])


def test_the_rest_of_a_peer_whose_end_a_third_process_holds(ends: Ends) -> None:
    with contextlib.closing(Channel(ends.theirs.dup())) as sender:
        sender.send(1)
        sender.send(2)
    with alarm("It waits for the end, which does not come.", 5.0):
        assert ends.ours.receive_rest(0.01) == [(1, []), (2, [])]
    assert not ends.ours.ended
    ends.theirs.close()
    assert ends.ours.receive_rest(5.0) == []
    assert ends.ours.ended


def test_hanging_up_is_an_end_for_the_peer_though_a_third_process_holds_our_end() -> None:
    ours, end = Channel.pair()
    third = os.dup(ours.fileno())
    theirs = Channel(end)
    with contextlib.closing(theirs), alarm("The end does not come.", 5.0):
        ours.hang_up()
        with pytest.raises(EOFError):
            theirs.receive()
    os.close(third)


@pytest.mark.parametrize(
    "garbage",
    [
        b"a line of some library\n",
        bytes(64),
        b"\xff" * 64,
        frame_of("x" * 100, []).data[:60] + frame_of("whole", []).data * 3,
        frame_of("whole", []).data[:-2] + bytes(2),
    ],
    ids=["text", "zeros", "ones", "a frame within a frame", "a body that is no pickle"],
)
def test_what_is_no_message_ends_the_stream_after_what_was_said(ends: Ends, garbage: bytes) -> None:
    """A length that is none would be waited for without end: the user's code may write anything to the socket."""
    data = frame_of("before", []).data + garbage + frame_of("after", []).data
    ends.theirs.sendall(data)
    assert heard(ends.ours) == (["before"], True)
    with pytest.raises(EOFError):
        ends.ours.receive()


def test_descriptors_that_are_missing_end_the_stream(ends: Ends) -> None:
    frame = frame_of("with a descriptor", [2])
    close_all(frame.fds)
    ends.theirs.sendall(frame.data)
    assert heard(ends.ours) == EOF_OF_PEER
