#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Does an application notice that its connection is redirected?

Runs each socket behaviour three times and compares what the application sees: over plain TCP,
redirected (proven by the pinned maps before and, where the behaviour leaves a trace, after), and
once more on a connection that was redirected and left, which must be plain TCP in every respect.

    redirect_conformance.py --netctl PATH [--only NAME]... [--list] [--json] [--pause MS]
                            [--busy N] [--stop-joiner] [--seed N]

--pause waits that long before each call that a behaviour makes of its sockets; --busy has so many
processes spin meanwhile; --stop-joiner stops the joiner and continues it at random moments.

Works in namespaces and a cgroup of its own. Exit status 0: no difference but the documented ones.
"""
import argparse
import array
import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

REDIRECTED_PORT = 7001  # has a rule
PLAIN_PORT = 7002  # has none
SLOWNESS = float(os.environ.get("NETCTL_PATIENCE", "1"))  # as in lab.py
PATIENCE = 5.0 * SLOWNESS

libc = ctypes.CDLL(None, use_errno=True)

BEHAVIOURS = {}
# What stays visible while joined, as netctl-redirect(8) says. A connection that left has none.
DOCUMENTED = {
    "splice_out": "splice(2) from the socket",
    "urgent_data": "MSG_OOB",
    "urgent_mark": "MSG_OOB",
    "close_with_unread": "end of file instead of a reset",
    "kill_with_unread": "end of file instead of a reset",
    "tcp_info": "TCP_INFO does not count redirected bytes",
    "discard": "MSG_TRUNC",
}
# What is wrong on kernels where a case of the self-test fails, for which enable refuses them.
REFUSED = {
    "unread_count": "fionread-redirected",
    "unread_count_of_two": "fionread-redirected",
}


def behaviour(function):
    BEHAVIOURS[function.__name__] = function
    return function


# ---- helpers for behaviours: a is the client's socket, b the server's; both non-blocking ----


def outcome(function, *args):
    """What a call returns, or the name of its error."""
    try:
        return function(*args)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def readable(sock, timeout=PATIENCE):
    return bool(select.select([sock], [], [], timeout)[0])


def writable(sock, timeout=PATIENCE):
    return bool(select.select([], [sock], [], timeout)[1])


def receive(sock, size):
    """Exactly size bytes, or what there is before the end of the stream."""
    data = b""
    while len(data) < size:
        if not readable(sock):
            return data + b"<stalled>"
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def receive_all(sock):
    """Up to the end of the stream or an error, which stands at the end."""
    data = b""
    while True:
        if not readable(sock):
            return data + b"<stalled>"
        try:
            piece = sock.recv(65536)
        except OSError as error:
            return data + b"<" + errno.errorcode[error.errno].encode() + b">"
        if not piece:
            return data
        data += piece


def send_all(sock, data):
    view = memoryview(data)
    while view:
        if not writable(sock):
            raise TimeoutError("send stalled")
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            pass


def digest(data):
    return len(data), hashlib.sha256(data).hexdigest()[:16]


def ioctl_number(sock, request):
    buffer = array.array("i", [-1])
    fcntl.ioctl(sock, request, buffer)
    return buffer[0]


def poll_events(sock, timeout=200):
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLOUT | select.POLLRDHUP | select.POLLPRI)
    return [events for _, events in poller.poll(timeout)]


def settled(check, timeout=PATIENCE):
    """The value of check() once it is true, or at the end of patience."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value or time.monotonic() > end:
            return value
        time.sleep(0.002)


# ---- reading ----


@behaviour
def small_message(a, b):
    a.send(b"hello")
    return receive(b, 5)


@behaviour
def many_small_messages(a, b):
    for i in range(5):
        a.send(b"message %d;" % i)
    return receive(b, 50)


@behaviour
def several_messages_in_one_read(a, b):
    for i in range(4):
        a.send(b"%d" % i * 10)
    return settled(lambda: len(b.recv(100, socket.MSG_PEEK)) == 40 or None), b.recv(100)


@behaviour
def read_in_pieces(a, b):
    a.send(b"0123456789")
    readable(b)
    return [b.recv(3) for _ in range(3)], b.recv(3)


@behaviour
def read_when_empty(a, b):
    return outcome(b.recv, 10)


@behaviour
def read_nothing(a, b):
    a.send(b"x")
    readable(b)
    return b.recv(0), b.recv(1)


@behaviour
def unread_count(a, b):
    a.send(b"12345")
    readable(b)
    first = ioctl_number(b, termios.FIONREAD)
    b.recv(2)
    return first, ioctl_number(b, termios.FIONREAD)


@behaviour
def unread_count_of_two(a, b):
    a.send(b"12345")
    a.send(b"678")
    readable(b)
    return settled(lambda: ioctl_number(b, termios.FIONREAD) == 8, 1), b.recv(100)


@behaviour
def unread_count_after_large(a, b):
    a.send(b"x" * 20000)
    readable(b)
    count = settled(lambda: ioctl_number(b, termios.FIONREAD) == 20000, 1)
    return count, digest(receive(b, 20000))


@behaviour
def peek(a, b):
    a.send(b"peekaboo")
    readable(b)
    return b.recv(4, socket.MSG_PEEK), b.recv(100, socket.MSG_PEEK), b.recv(100), outcome(b.recv, 1)


@behaviour
def peek_across_messages(a, b):
    a.send(b"one")
    a.send(b"two")
    settled(lambda: len(b.recv(10, socket.MSG_PEEK)) == 6)
    return b.recv(10, socket.MSG_PEEK), b.recv(10)


@behaviour
def scattered_read(a, b):
    a.send(b"abcdefghij")
    readable(b)
    parts = [bytearray(3), bytearray(3), bytearray(10)]
    size, _, flags, _ = b.recvmsg_into(parts)
    return size, [bytes(p) for p in parts], flags


@behaviour
def gathered_write(a, b):
    sent = a.sendmsg([b"ab", b"", b"cd", b"e" * 100])
    return sent, receive(b, 104)


@behaviour
def empty_write(a, b):
    return a.send(b""), outcome(b.recv, 1)


@behaviour
def discard(a, b):
    a.send(b"0123456789")
    readable(b)
    buffer = ctypes.create_string_buffer(b"........", 8)
    size = libc.recv(b.fileno(), buffer, 4, socket.MSG_TRUNC)
    return size, buffer.raw, b.recv(100)


@behaviour
def error_queue_empty(a, b):
    return outcome(b.recvmsg, 10, 100, socket.MSG_ERRQUEUE)


@behaviour
def ancillary_is_empty(a, b):
    a.send(b"x")
    readable(b)
    return b.recvmsg(10, 100)[:3]


# ---- readiness ----


@behaviour
def poll_states(a, b):
    before = poll_events(b)
    a.send(b"x")
    readable(b)
    during = poll_events(b)
    b.recv(1)
    return before, during, poll_events(b)


@behaviour
def edge_triggered(a, b):
    epoll = select.epoll()
    epoll.register(b, select.EPOLLIN | select.EPOLLET)
    seen = []
    for i in range(5):
        a.send(b"x")
        seen.append([events for _, events in epoll.poll(PATIENCE)])
        b.recv(10)
    seen.append(epoll.poll(0.05))
    return seen


@behaviour
def edge_without_reading(a, b):
    epoll = select.epoll()
    epoll.register(b, select.EPOLLIN | select.EPOLLET)
    seen = []
    for i in range(3):
        a.send(b"x")
        seen.append(len(epoll.poll(PATIENCE)))
    return seen, receive(b, 3)


def read_by_edges(b, total, size=1000):
    """As nginx and tokio read: a short read means empty, and only a new edge brings more."""
    epoll = select.epoll()
    epoll.register(b, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
    time.sleep(0.05)  # all is here by now: one edge for it
    got = b""
    while len(got) < total:
        if not epoll.poll(PATIENCE):
            return f"no edge behind {len(got)} bytes"
        while True:
            try:
                piece = b.recv(size)
            except BlockingIOError:
                break
            got += piece
            if len(piece) < size:
                break
    return digest(got)


@behaviour
def edge_small_then_large(a, b):
    a.send(b"header")
    a.send(b"B" * 20000)
    return read_by_edges(b, 20006)


@behaviour
def edge_run_of_messages(a, b):
    for i in range(40):
        a.send(b"%099d" % i)
    return read_by_edges(b, 40 * 99)


@behaviour
def edge_far_behind(a, b):
    """More unread than is redirected: the rest comes by TCP, behind a queue that ends with a short read."""
    sent = b""
    try:
        while len(sent) < (1 << 20) + 30000:
            piece = b"%07d" % len(sent) * 500
            sent += piece[: a.send(piece)]
    except BlockingIOError:
        pass
    got = read_by_edges(b, len(sent), 1 << 16)
    return got if got != digest(sent) else len(sent) > 1 << 20


def send_much(a, pieces=20, size=60000):
    """More than is redirected to a reader that does not read: the last pieces go by TCP."""
    sent = b"unread"  # with nothing unread, the first large one would go by TCP, and all that follow
    a.send(sent)
    for number in range(pieces):
        piece = b"%06d" % number * (size // 6)
        sent += piece[: a.send(piece)]
    return sent


@behaviour
def small_behind_much(a, b):
    """What would still have had room in the queue stays behind what had none."""
    sent = send_much(a)
    for number in range(20):
        piece = b"<%04d>" % number
        sent += piece[: a.send(piece)]
    got = receive(b, len(sent))
    return got == sent or [got[at : at + 8] for at in range(0, len(got), 60000)]


@behaviour
def edge_small_behind_much(a, b):
    sent = send_much(a) + b"small"
    a.send(b"small")
    got = read_by_edges(b, len(sent), 1 << 16)
    return got if got != digest(sent) else len(sent)


@behaviour
def small_behind_much_while_read(a, b):
    """Nor does anything pass it when the queue is empty, and the pair cannot leave: so many watch the
    reader that nobody sees who is asleep on it."""
    watchers = [select.epoll() for _ in range(10)]
    for watcher in watchers:
        watcher.register(b, select.EPOLLIN)
    sent, got = send_much(a), receive(b, 6)
    for number in range(20):
        got += receive(b, 60000)
        sent += b"<%04d>" % number
        a.send(b"<%04d>" % number)
    got += receive(b, len(sent) - len(got))
    for watcher in watchers:
        watcher.close()
    return got == sent or [got[at : at + 8] for at in range(0, len(got), 60000)]


@behaviour
def edge_behind_an_option(a, b):
    a.send(b"before")
    b.setsockopt(socket.SOL_SOCKET, 29, 1)  # SO_TIMESTAMP
    a.send(b"after")
    return read_by_edges(b, 11)


@behaviour
def edge_sender_turned_blocking(a, b):
    a.send(b"before")
    a.setblocking(True)
    a.send(b"after")
    return read_by_edges(b, 11)


@behaviour
def one_shot(a, b):
    epoll = select.epoll()
    epoll.register(b, select.EPOLLIN | select.EPOLLONESHOT)
    a.send(b"x")
    first = len(epoll.poll(PATIENCE))
    a.send(b"y")
    second = len(epoll.poll(0.05))
    epoll.modify(b, select.EPOLLIN | select.EPOLLONESHOT)
    return first, second, len(epoll.poll(PATIENCE)), receive(b, 2)


@behaviour
def hang_up_is_reported(a, b):
    a.send(b"bye")
    a.shutdown(socket.SHUT_WR)
    settled(lambda: poll_events(b) and poll_events(b)[0] & select.POLLRDHUP)
    return poll_events(b), receive_all(b), poll_events(b)


@behaviour
def edge_at_the_end(a, b):
    epoll = select.epoll()
    epoll.register(b, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
    a.send(b"bye")
    a.shutdown(socket.SHUT_WR)
    events = 0

    def closed():
        nonlocal events
        for _, event in epoll.poll(0.05):
            events |= event
        return events & select.EPOLLRDHUP

    settled(closed)
    return events, receive_all(b)


@behaviour
def writable_again(a, b):
    """A sender that was stopped is told by an edge when there is room."""
    epoll = select.epoll()
    epoll.register(a, select.EPOLLOUT | select.EPOLLET)
    epoll.poll(0.05)
    sent = 0
    try:
        while sent < 256 << 20:
            sent += a.send(b"w" * 65536)
    except BlockingIOError:
        pass
    stopped = sent < 256 << 20
    idle = len(epoll.poll(0.05))
    got = 0
    while got < sent:
        got += len(b.recv(1 << 20))
        readable(b, 1)
    return stopped, idle, [events for _, events in epoll.poll(PATIENCE)], got == sent


@behaviour
def signal_driven(a, b):
    got = []
    before = signal.signal(signal.SIGIO, lambda *_: got.append(1))
    try:
        fcntl.fcntl(b, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(b, fcntl.F_SETFL, fcntl.fcntl(b, fcntl.F_GETFL) | os.O_ASYNC)
        a.send(b"x")
        return bool(settled(lambda: got)), receive(b, 1)
    finally:
        fcntl.fcntl(b, fcntl.F_SETFL, os.O_NONBLOCK)
        signal.signal(signal.SIGIO, before)


# ---- order and completeness ----


@behaviour
def large_behind_small(a, b):
    a.send(b"small")
    data = bytes(range(256)) * 400
    writer = threading.Thread(target=send_all, args=(a, data))
    writer.start()
    got = receive(b, 5 + len(data))
    writer.join()
    return digest(got)


@behaviour
def small_behind_large(a, b):
    data = bytes(range(256)) * 400
    writer = threading.Thread(target=lambda: (send_all(a, data), send_all(a, b"small")))
    writer.start()
    got = receive(b, 5 + len(data))
    writer.join()
    return digest(got)


@behaviour
def alternating_sizes(a, b):
    pieces = [bytes([i % 251]) * size for i, size in enumerate([1, 16384, 16385, 3, 70000, 2] * 3)]
    writer = threading.Thread(target=lambda: [send_all(a, piece) for piece in pieces])
    writer.start()
    got = receive(b, sum(map(len, pieces)))
    writer.join()
    return digest(got) == digest(b"".join(pieces))


@behaviour
def one_way_burst(a, b):
    pieces = [b"%05d" % i for i in range(2000)]
    for piece in pieces:
        send_all(a, piece)
    return digest(receive(b, 10000)) == digest(b"".join(pieces))


@behaviour
def burst_and_answer(a, b):
    for i in range(30):
        a.send(b"%03d" % i)
    got = receive(b, 90)
    b.send(b"answer")
    return got, receive(a, 6)


@behaviour
def pipelined(a, b):
    answers = b""
    for batch in range(20):
        for i in range(8):
            a.send(b"request %02d.%d" % (batch, i))
        got = receive(b, 8 * 12)
        for i in range(8):
            b.send(got[i * 12 : i * 12 + 12].replace(b"request", b"ANSWER!"))
        answers += receive(a, 8 * 12)
    return digest(answers)


@behaviour
def both_ways_at_once(a, b):
    data = os.urandom(300000)
    writers = [threading.Thread(target=send_all, args=(s, data)) for s in (a, b)]
    got = {}
    readers = [
        threading.Thread(target=lambda s=s: got.__setitem__(s, receive(s, len(data))))
        for s in (a, b)
    ]
    for thread in writers + readers:
        thread.start()
    for thread in writers + readers:
        thread.join()
    return [got[s] == data for s in (a, b)]


@behaviour
def crossing_messages(a, b):
    good = True
    for i in range(300):
        a.send(b"a%05d" % i)
        b.send(b"b%05d" % i)
        good = good and receive(a, 6) == b"b%05d" % i and receive(b, 6) == b"a%05d" % i
    return good


@behaviour
def several_writers(a, b):
    """Four threads write records of eight bytes: all arrive, each writer's in order."""

    def write(name):
        for i in range(500):
            send_all(a, struct.pack("!II", name, i))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    data = receive(b, 4 * 500 * 8)
    for thread in threads:
        thread.join()
    records = [struct.unpack_from("!II", data, i) for i in range(0, len(data), 8)]
    return [[i for name, i in records if name == n] == list(range(500)) for n in range(4)]


@behaviour
def turns_of_many_sizes(a, b):
    good = True
    for size in [1, 63, 64, 1000, 4095, 4096, 4097, 16383, 16384]:
        data = os.urandom(size)
        send_all(a, data)
        good = good and receive(b, size) == data
        send_all(b, data)
        good = good and receive(a, size) == data
    return good


@behaviour
def slow_reader(a, b):
    """What a reader leaves unread is bounded, and whole in the end."""
    sent = bytearray()
    try:
        while len(sent) < 256 << 20:
            piece = os.urandom(1000)
            sent += piece[: a.send(piece)]
    except BlockingIOError:
        pass
    bounded = len(sent) < 256 << 20
    return bounded, digest(receive(b, len(sent))) == digest(bytes(sent)), outcome(b.recv, 1)


@behaviour
def small_receive_buffer(a, b):
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    sent = bytearray()
    try:
        while len(sent) < 256 << 20:
            sent += b"s" * a.send(b"s" * 100)
    except BlockingIOError:
        pass
    return len(sent) < 8 << 20, receive(b, len(sent)) == bytes(sent)


@behaviour
def send_buffer_set(a, b):
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    a.send(b"x" * 100)
    return receive(b, 100)


# ---- leaving: each reason, way to read, unread before or not, removed by the connection's own callback
# ---- or by the timer behind a pause


def by_edges(b, total):
    return read_by_edges(b, total)


def by_edges_counted(b, total):
    """As nginx reads: an edge, and then as much as FIONREAD says."""
    epoll = select.epoll()
    epoll.register(b, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)
    time.sleep(0.05)
    got = b""
    while len(got) < total:
        if not epoll.poll(PATIENCE):
            return f"no edge behind {len(got)} bytes"
        while count := ioctl_number(b, termios.FIONREAD):
            got += b.recv(count)
    return digest(got)


def by_level(b, total):
    return digest(receive(b, total))


def by_one_shots(b, total):
    epoll = select.epoll()
    epoll.register(b, select.EPOLLIN | select.EPOLLONESHOT)
    got = b""
    while len(got) < total:
        if not epoll.poll(PATIENCE):
            return f"nothing behind {len(got)} bytes"
        got += b.recv(1000)
        epoll.modify(b, select.EPOLLIN | select.EPOLLONESHOT)
    return digest(got)


def by_blocking(b, total):
    b.setblocking(True)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(PATIENCE), 0))
    got = b""
    while len(got) < total:
        piece = outcome(b.recv, 1000)
        if not isinstance(piece, bytes) or not piece:
            return f"{piece} behind {len(got)} bytes"
        got += piece
    return digest(got)


def leaves_by_rules(_a, _b):
    Lab.here.run("rule", "insert", "dport", "1", "deny")  # all go back to TCP
    Lab.here.run("rule", "delete", str(Lab.here.run("rule", "list")[0]["rule_id"]))


TIME_STAMP = (socket.SOL_SOCKET, 29, 1)
REASONS = {
    "readers_option": lambda a, b: b.setsockopt(*TIME_STAMP),
    "senders_option": lambda a, b: a.setsockopt(*TIME_STAMP),
    "large_answer": lambda a, b: b.send(b"A" * 20000),
    "large_request": lambda a, b: a.send(b"B" * 20000),
    "many_requests": lambda a, b: [a.send(b"%099d" % i) for i in range(12)],
    "turned_blocking": lambda a, b: a.setblocking(True),
    "reader_shut_down": lambda a, b: b.shutdown(socket.SHUT_WR),
    "rules": leaves_by_rules,
}
STYLES = (by_edges, by_edges_counted, by_level, by_one_shots, by_blocking)


def leaving(a, b, reason, style, unread, pause):
    """A message, perhaps; the reason to leave; a pause, in which the timer comes; another message."""
    if unread:
        a.send(b"before")
    REASONS[reason](a, b)
    time.sleep(pause)
    a.send(b"behind")
    own = {"large_request": 20000, "many_requests": 12 * 99}.get(reason, 0)
    got = style(b, (6 if unread else 0) + own + 6)
    return (got, style(a, 20000)) if reason == "large_answer" else got


def add_leaving():
    for reason in REASONS:
        for style in STYLES:
            for unread in (False, True):
                for pause in (0, 0.02):
                    words = ("leaves", reason, style.__name__, "unread" if unread else "read",
                             "late" if pause else "soon")  # fmt: skip

                    def run(a, b, reason=reason, style=style, unread=unread, pause=pause):
                        return leaving(a, b, reason, style, unread, pause)

                    run.__name__ = "_".join(words)
                    BEHAVIOURS[run.__name__] = run


add_leaving()


# ---- the end of a connection ----


@behaviour
def half_close(a, b):
    a.send(b"request")
    a.shutdown(socket.SHUT_WR)
    got = receive_all(b)
    b.send(b"answer")
    b.close()
    return got, receive_all(a)


@behaviour
def half_close_with_unread(a, b):
    """The closing side has redirected data unread when the other closes too."""
    b.send(b"unread answer")
    readable(a)
    a.send(b"request")
    a.shutdown(socket.SHUT_WR)
    got = receive_all(b)
    b.send(b" more")
    b.close()
    time.sleep(0.05)
    return got, receive_all(a)


@behaviour
def close_after_send(a, b):
    a.send(b"goodbye")
    a.close()
    time.sleep(0.02)
    return receive_all(b)


@behaviour
def close_after_send_read_late(a, b):
    for i in range(3):
        a.send(b"goodbye%d" % i)
    a.close()
    time.sleep(0.1)
    return receive_all(b)


@behaviour
def close_both_with_last_words(a, b):
    a.send(b"last of a")
    readable(b)
    got = b.recv(100)
    b.send(b"last of b")
    b.close()
    return got, receive_all(a)


@behaviour
def close_with_unread(a, b):
    a.send(b"unread")
    readable(b)
    b.close()
    return receive_all(a)


@behaviour
def reset(a, b):
    a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    a.close()
    readable(b)
    return outcome(b.recv, 10), outcome(b.recv, 10), outcome(b.send, b"x")


@behaviour
def reset_behind_data(a, b):
    a.send(b"data")
    readable(b)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    a.close()
    time.sleep(0.02)
    return outcome(b.recv, 10), outcome(b.recv, 10)


@behaviour
def write_after_peer_closed(a, b):
    b.close()
    readable(a)
    first = outcome(a.send, b"x")
    second = settled(lambda: outcome(a.send, b"y") if not time.sleep(0.01) else None)
    third = outcome(a.send, b"z")
    return first, second, third, outcome(a.recv, 1)


@behaviour
def write_after_shutdown(a, b):
    a.shutdown(socket.SHUT_WR)
    return outcome(a.send, b"x"), receive_all(b)


@behaviour
def shutdown_reading(a, b):
    b.shutdown(socket.SHUT_RD)
    first = outcome(b.recv, 10)
    a.send(b"x")
    return first, readable(b, 1), outcome(b.recv, 10)


@behaviour
def shutdown_both(a, b):
    a.send(b"x")
    a.shutdown(socket.SHUT_RDWR)
    return receive_all(b), outcome(a.recv, 1), outcome(a.send, b"y")


@behaviour
def end_of_file_stays(a, b):
    a.shutdown(socket.SHUT_WR)
    readable(b)
    return [b.recv(1) for _ in range(3)]


@behaviour
def killed_process(a, b):
    """The other end's process is killed behind a message."""
    child = os.fork()
    if child == 0:
        b.close()
        a.send(b"last words")
        os.kill(os.getpid(), signal.SIGKILL)
    a.close()
    os.waitpid(child, 0)
    return receive_all(b)


@behaviour
def kill_with_unread(a, b):
    child = os.fork()
    if child == 0:
        a.close()
        time.sleep(60)
        os._exit(0)
    b.close()
    a.send(b"never read")
    time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return receive_all(a)


@behaviour
def reconnect(a, b):
    """connect() to nothing dissolves a TCP connection."""
    a.send(b"before")
    readable(b)
    status = libc.connect(a.fileno(), struct.pack("HHI8s", socket.AF_UNSPEC, 0, 0, b""), 16)
    return status, receive(b, 6), outcome(b.recv, 1) if readable(b) else "stalled", outcome(
        a.send, b"x"
    )


@behaviour
def connect_again(a, b):
    return outcome(a.connect, b.getsockname())


@behaviour
def socket_error(a, b):
    return a.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


# ---- options set while the connection lives ----


@behaviour
def low_water_mark(a, b):
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 8)
    time.sleep(0.02)
    a.send(b"1234")
    early = readable(b, 0.1)
    a.send(b"5678")
    return early, readable(b), receive(b, 8)


@behaviour
def low_water_mark_with_unread(a, b):
    a.send(b"1234")
    readable(b)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 8)
    a.send(b"5678")
    return readable(b), receive(b, 8)


@behaviour
def zero_copy(a, b):
    a.setsockopt(socket.SOL_SOCKET, 60, 1)
    time.sleep(0.02)
    a.send(b"z" * 1000, 0x4000000)
    got = receive(b, 1000)
    done = settled(lambda: poll_events(a, 10) and poll_events(a, 10)[0] & select.POLLERR, 1)
    return len(got), bool(done)


@behaviour
def inline_urgent(a, b):
    b.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    time.sleep(0.02)
    a.send(b"ab")
    a.send(b"!", socket.MSG_OOB)
    return receive(b, 3)


@behaviour
def time_stamps(a, b):
    b.setsockopt(socket.SOL_SOCKET, 29, 1)  # SO_TIMESTAMP
    time.sleep(0.02)
    a.send(b"x")
    readable(b)
    data, control, _, _ = b.recvmsg(10, 200)
    return data, [(level, kind) for level, kind, _ in control]


@behaviour
def bytes_left_message(a, b):
    b.setsockopt(socket.IPPROTO_TCP, 36, 1)  # TCP_INQ
    time.sleep(0.02)
    a.send(b"12345")
    readable(b)
    data, control, _, _ = b.recvmsg(2, 200)
    return data, [(level, kind, value) for level, kind, value in control]


@behaviour
def peek_offset(a, b):
    status = outcome(b.setsockopt, socket.SOL_SOCKET, 42, 0)  # SO_PEEK_OFF
    time.sleep(0.02)
    a.send(b"abcdef")
    readable(b)
    return status, b.recv(2, socket.MSG_PEEK), b.recv(2, socket.MSG_PEEK), b.recv(10)


@behaviour
def packet_filter(a, b):
    program = struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)  # accept all
    code = ctypes.create_string_buffer(program)
    fprog = struct.pack("HxxxxxxP", 1, ctypes.addressof(code))
    b.setsockopt(socket.SOL_SOCKET, 26, fprog)
    a.send(b"filtered")
    return receive(b, 8)


@behaviour
def large_option(a, b):
    """An option longer than a page passes the hook that watches options."""
    return outcome(b.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, b"\1\0\0\0" + b"\0" * 9000)


@behaviour
def harmless_options(a, b):
    for sock in (a, b):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30000)
    a.send(b"x")
    return receive(b, 1), a.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)


@behaviour
def cork(a, b):
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    a.send(b"head")
    a.send(b"body")
    a.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    return receive(b, 8)


@behaviour
def more_to_come(a, b):
    a.send(b"head", socket.MSG_MORE)
    a.send(b"body")
    return receive(b, 8)


@behaviour
def upper_layer_protocol(a, b):
    """kTLS that comes late is refused or works, but never takes bytes for deciphered ones."""
    outcome(b.setsockopt, socket.IPPROTO_TCP, 31, b"tls")
    a.send(b"plain")
    return receive(b, 5)


# ---- becoming a blocking socket ----


def blocking(sock):
    sock.setblocking(True)


@behaviour
def blocking_read(a, b):
    blocking(b)
    threading.Timer(0.05, a.send, (b"late",)).start()
    return b.recv(10)


@behaviour
def blocking_wait_for_all(a, b):
    blocking(b)
    threading.Timer(0.02, a.send, (b"1234",)).start()
    threading.Timer(0.1, a.send, (b"5678",)).start()
    return b.recv(8, socket.MSG_WAITALL)


@behaviour
def blocking_read_with_signal(a, b):
    """SA_RESTART: the kernel restarts the read."""
    blocking(b)
    a.send(b"1")
    receive(b, 1)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR1, False)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    threading.Timer(0.15, a.send, (b"late",)).start()
    buffer = ctypes.create_string_buffer(10)
    size = libc.recv(b.fileno(), buffer, 10, 0)
    code = ctypes.get_errno() if size < 0 else 0
    signal.signal(signal.SIGUSR1, before)
    return size, errno.errorcode.get(code)


@behaviour
def blocking_read_with_timeout(a, b):
    blocking(b)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    return outcome(b.recv, 10), a.send(b"x"), b.recv(1)


@behaviour
def blocking_after_shutdown(a, b):
    """A reader that sleeps behind its own shutdown wakes for data only."""
    blocking(a)
    a.shutdown(socket.SHUT_WR)
    receive_all(b)
    threading.Timer(0.05, b.send, (b"answer",)).start()
    return a.recv(10)


@behaviour
def blocking_write(a, b):
    blocking(a)
    data = os.urandom(8 << 20)
    writer = threading.Thread(target=a.sendall, args=(data,))
    writer.start()
    got = receive(b, len(data))
    writer.join()
    return got == data


# ---- files, pipes, processes ----


@behaviour
def send_file(a, b):
    with tempfile.TemporaryFile() as file:
        data = os.urandom(5000)
        file.write(data)
        file.flush()
        return os.sendfile(a.fileno(), file.fileno(), 0, 5000), receive(b, 5000) == data


@behaviour
def send_large_file(a, b):
    with tempfile.TemporaryFile() as file:
        data = os.urandom(3 << 20)
        file.write(data)
        file.flush()
        a.send(b"header:")

        def write():
            offset = 0
            while offset < len(data):
                writable(a)
                try:
                    offset += os.sendfile(a.fileno(), file.fileno(), offset, len(data) - offset)
                except BlockingIOError:
                    pass

        writer = threading.Thread(target=write)
        writer.start()
        got = receive(b, 7 + len(data))
        writer.join()
        return got == b"header:" + data


@behaviour
def splice_in(a, b):
    read_end, write_end = os.pipe()
    os.write(write_end, b"through a pipe")
    moved = os_splice(read_end, a.fileno(), 14)
    os.close(read_end)
    os.close(write_end)
    return moved, receive(b, 14)


def os_splice(source, target, size):
    moved = libc.splice(source, None, target, None, ctypes.c_size_t(size), 2)
    return moved if moved >= 0 else errno.errorcode.get(ctypes.get_errno())


@behaviour
def splice_out(a, b):
    a.send(b"spliced")
    readable(b)
    read_end, write_end = os.pipe()
    moved = os_splice(b.fileno(), write_end, 7)
    os.close(read_end)
    os.close(write_end)
    return moved


@behaviour
def inherited(a, b):
    """Another process goes on with the socket."""
    child = os.fork()
    if child == 0:
        data = receive(b, 4)
        b.send(data.upper())
        os._exit(0)
    a.send(b"ping")
    got = receive(a, 4)
    os.waitpid(child, 0)
    a.send(b"more")
    return got, receive(b, 4)


@behaviour
def handed_over(a, b):
    """The socket goes to another process over a Unix socket."""
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        here.close()
        _, fds, _, _ = socket.recv_fds(there, 10, 1)
        other = socket.socket(fileno=fds[0])
        b.close()
        other.send(receive(other, 4).upper())
        os._exit(0)
    socket.send_fds(here, [b"x"], [b.fileno()])
    b.close()
    a.send(b"ping")
    got = receive(a, 4)
    os.waitpid(child, 0)
    return got, receive_all(a)


@behaviour
def duplicated(a, b):
    copy = b.dup()
    b.close()
    a.send(b"ping")
    got = receive(copy, 4)
    copy.send(b"pong")
    copy.close()
    return got, receive_all(a)


@behaviour
def two_readers(a, b):
    """Two threads read records of one byte: none is lost or doubled."""
    got = []
    lock = threading.Lock()

    def read():
        while True:
            if not readable(b, 1):
                return
            try:
                piece = b.recv(1)
            except BlockingIOError:
                continue
            if not piece:
                return
            with lock:
                got.append(piece)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(200):
        a.send(bytes([i]))
        if i % 3 == 0:
            b.send(b"k")
            receive(a, 1)
    a.shutdown(socket.SHUT_WR)
    for thread in threads:
        thread.join()
    return sorted(got) == sorted(bytes([i]) for i in range(200))


# ---- what can be asked about a connection ----


@behaviour
def names(a, b):
    return a.getsockname() == b.getpeername(), a.getpeername() == b.getsockname()


@behaviour
def unsent(a, b):
    a.send(b"x" * 100)
    readable(b)
    receive(b, 100)
    return settled(lambda: ioctl_number(a, termios.TIOCOUTQ) == 0)


@behaviour
def urgent_data(a, b):
    a.send(b"ab")
    a.send(b"!", socket.MSG_OOB)
    settled(lambda: select.select([], [], [b], 0.01)[2], 0.2)
    return outcome(b.recv, 1, socket.MSG_OOB), outcome(b.recv, 10)


@behaviour
def urgent_mark(a, b):
    a.send(b"!", socket.MSG_OOB)
    time.sleep(0.02)
    return poll_events(b)


@behaviour
def tcp_info(a, b):
    offset = 128  # tcpi_bytes_received
    read = lambda: struct.unpack_from("Q", b.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 200), offset)[0]
    before = read()
    a.send(b"x" * 100)
    receive(b, 100)
    return read() - before


# ---- the harness ----


class Lab:
    """netctl in namespaces and a cgroup of our own."""

    here = None  # the only one

    def __init__(self, netctl, ports=str(REDIRECTED_PORT)):
        self.netctl = netctl
        self.ports = ports
        self.totals = {"joined": 0, "redirected_messages": 0, "redirected_bytes": 0}
        self.joiner = None
        self.failed = None  # cases of the self-test for which enable refuses this kernel
        self.cgroup = None
        Lab.here = self

    def __enter__(self):
        mount = next(
            line.split()[4]
            for line in open("/proc/self/mountinfo")
            if line.split(" - ")[1].startswith("cgroup2 ")
        )
        os.makedirs("/sys/fs/bpf", exist_ok=True)
        subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.cgroup = f"{mount}/netctl-conformance-{os.getpid()}"
        os.mkdir(self.cgroup)
        self.home = next(
            line.split(":", 2)[2].strip() for line in open("/proc/self/cgroup") if line[0] == "0"
        )
        self.mount = mount
        with open(f"{self.cgroup}/cgroup.procs", "w") as procs:
            procs.write(str(os.getpid()))
        self.enable()
        return self

    def enable(self, tested=True):
        if self.failed is None and tested:
            refusal = self.try_to("enable", "--cgroup", self.cgroup)
            self.failed = set(re.findall(r"--force ([\w,-]+)", refusal))
            assert self.failed or not refusal, refusal
            tested = not self.failed
            if tested:
                self.start()
                return
        # Where the self-test has failed just now, `all` spares running it again.
        force = ["--force", "all"] if self.failed or not tested else []
        self.run("enable", "--cgroup", self.cgroup, *force)
        self.start()

    def start(self):
        self.run("rule", "add", "dport", self.ports)
        self.start_joiner()

    def start_joiner(self):
        self.joiner = subprocess.Popen(
            [self.netctl, "redirect", "run"],
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # PR_SET_PDEATHSIG
        )
        if not settled(lambda: self.status()["joiner"]):
            raise RuntimeError("the joiner does not run")

    def note(self):
        """Adds the counters to the totals: they go with a disable."""
        status = self.status()
        for name in self.totals:
            self.totals[name] += status[name]

    def __exit__(self, *_):
        if self.joiner:
            self.joiner.terminate()
            self.joiner.wait()
        try:
            self.run("disable")
        finally:
            with open(f"{self.mount}{self.home}/cgroup.procs", "w") as procs:
                procs.write(str(os.getpid()))
            settled(lambda: not self.remove_cgroup())

    def remove_cgroup(self):
        try:
            os.rmdir(self.cgroup)
        except OSError:
            pass
        return os.path.exists(self.cgroup)

    def run(self, *words, statuses=(0,)):
        done = subprocess.run(
            [self.netctl, "--json", "redirect", *words], capture_output=True, text=True
        )
        if done.returncode not in statuses:
            raise RuntimeError(f"netctl redirect {' '.join(words)}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def try_to(self, *words):
        """What it says if it fails."""
        done = subprocess.run([self.netctl, "redirect", *words], capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    def status(self):
        return self.run("status")

    def connection(self, a):
        ports = {a.getsockname()[1], a.getpeername()[1]}
        for one in self.run("list"):
            if {one["local_port"], one["remote_port"]} == ports:
                return one
        return None


def connect(port, host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        a = socket.create_connection((host, port))
        b, _ = listener.accept()
    for sock in (a, b):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return a, b


class Paused(socket.socket):
    """Waits before each call, so that what others do behind our back can happen in between."""

    seconds = 0.0


def paused(name):
    plain = getattr(socket.socket, name)

    def call(self, *args, **kwargs):
        time.sleep(Paused.seconds)
        return plain(self, *args, **kwargs)

    return call


for _name in (
    "send", "sendall", "sendmsg", "recv", "recvmsg", "recvmsg_into", "setsockopt", "getsockopt",
    "shutdown", "setblocking", "close", "connect",
):  # fmt: skip
    setattr(Paused, _name, paused(_name))


def turn(a, b, count=1):
    for _ in range(count):
        a.send(b"q" * 64)
        if receive(b, 64) != b"q" * 64:
            raise RuntimeError("a request was lost")
        b.send(b"r" * 64)
        if receive(a, 64) != b"r" * 64:
            raise RuntimeError("a response was lost")


def redirect(lab, a, b):
    """Turns until both directions are redirected; proven by messages that do not pass any more."""
    end = time.monotonic() + 60 * SLOWNESS
    last = None
    while time.monotonic() < end:
        turn(a, b, 64)
        one = lab.connection(a)
        if one and one["state"] == "tcp":
            raise Stayed(one["reason"])
        if one and all(e["redirected_messages"] >= 2 for e in one["ends"]):
            before = one
            turn(a, b, 2)
            one = lab.connection(a)
            moved = [
                now["redirected_messages"] - then["redirected_messages"]
                for now, then in zip(one["ends"], before["ends"])
            ]
            if moved == [2, 2]:
                return
        last = one
        time.sleep(0.002)
    raise RuntimeError(f"not redirected: {last} {lab.status()}")


def leave(lab, a, b):
    send_all(a, b"b" * 20000)
    receive(b, 20000)
    left = settled(lambda: (lab.connection(a) or {"state": "tcp"})["state"] == "tcp")
    if not left:
        raise RuntimeError("did not leave")
    turn(a, b, 4)


class Stayed(RuntimeError):
    """A connection that did not join, or left at once, as some may: nothing to compare."""


STAYED = []  # why


def run_one(function, lab, mode):
    for _ in range(3):
        try:
            return run_once(function, lab, mode)
        except Stayed as reason:
            STAYED.append(str(reason))
    return "it stays on TCP"


def run_once(function, lab, mode):
    a, b = connect(PLAIN_PORT if mode == "plain" else REDIRECTED_PORT)
    try:
        if mode == "plain":
            turn(a, b, 64)
        else:
            redirect(lab, a, b)
            if mode == "left":
                leave(lab, a, b)
        if Paused.seconds:
            a, b = (Paused(fileno=sock.detach()) for sock in (a, b))
        return repr(function(a, b))
    except Stayed:
        raise
    except Exception as error:  # pylint: disable=broad-except
        return f"{type(error).__name__}: {error}"
    finally:
        a.close()
        b.close()


@contextlib.contextmanager
def busy_loops(count):
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            while True:
                pass
        children.append(child)
    try:
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class Stopper:
    """Stops the joiner for up to 50 ms, and lets it go on for up to 100, at random."""

    def __init__(self, lab, seed):
        self.lab, self.random = lab, random.Random(seed)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while not self.ended.wait(self.random.random() / 10):
            self.lab.joiner.send_signal(signal.SIGSTOP)
            self.ended.wait(self.random.random() / 20)
            self.lab.joiner.send_signal(signal.SIGCONT)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--netctl", required=True)
    parser.add_argument("--only", action="append")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pause", type=float, default=0, metavar="MS")
    parser.add_argument("--busy", type=int, default=0, metavar="N")
    parser.add_argument("--stop-joiner", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        print("\n".join(BEHAVIOURS))
        return 0
    if not options.inside:
        os.execvp(
            "unshare", ["unshare", "-n", "-m", sys.executable, *sys.argv, "--inside"]
        )
    names = options.only or list(BEHAVIOURS)
    rows = []
    Paused.seconds = options.pause / 1000
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    if options.stop_joiner and not options.json:
        print(f"seed {seed}", flush=True)
    with Lab(os.path.abspath(options.netctl)) as lab, busy_loops(options.busy), contextlib.ExitStack() as stack:
        if options.stop_joiner:
            stack.enter_context(Stopper(lab, seed))
        failed = lab.failed
        for name in names:
            function = BEHAVIOURS[name]
            began = time.monotonic()
            modes = ("plain", "redirected") + (() if name.startswith("leaves_") else ("left",))
            seen = {mode: run_one(function, lab, mode) for mode in modes}
            plain, redirected, left = seen["plain"], seen["redirected"], seen.get("left", seen["plain"])
            took = time.monotonic() - began
            row = {"seconds": round(took, 2), "behaviour": name, "plain": plain, "redirected": redirected, "left": left}
            row["same"] = redirected == plain
            row["left_same"] = left == plain
            row["documented"] = name in DOCUMENTED or REFUSED.get(name) in failed
            rows.append(row)
            if not options.json:
                verdict = (
                    "ok"
                    if row["same"] and row["left_same"]
                    else "documented"
                    if row["left_same"] and row["documented"]
                    else "DIFFERS"
                )
                print(f"{verdict:10} {name}", flush=True)
                if verdict != "ok":
                    print(f"           plain:      {plain[:300]}")
                    print(f"           redirected: {redirected[:300]}")
                    if not row["left_same"]:
                        print(f"           left:       {left[:300]}")
        status = lab.status()
    bad = [r for r in rows if not r["left_same"] or not (r["same"] or r["documented"])]
    if options.json:
        print(json.dumps({"behaviours": rows, "differ": bad, "status": status, "seed": seed, "stayed": STAYED}))
    else:
        print(f"{len(rows)} behaviours, {len(bad)} differ; "
              f"{status['redirected_messages']} messages redirected, {status['joined']} joined; "
              f"stayed on TCP at first: {', '.join(STAYED) or 'none'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
