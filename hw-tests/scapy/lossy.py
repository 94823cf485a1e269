#!/usr/bin/python3
"""A wire that loses packets and has others overtaken.

    lossy.py INTERFACE INTERFACE LOST OVERTAKEN SEED

Carries frames between two interfaces. Of a thousand, LOST are dropped, and OVERTAKEN are held back until 1 to 8 others
of their direction have passed, or 3 ms. Each direction has a generator of random numbers of its own, seeded with SEED.
Twice a second it prints how many frames were lost and overtaken so far. Stands for sch_netem, which not every kernel has.
"""

import random
import selectors
import socket
import sys
import time

HOLD = 0.003
RCVBUFFORCE, BUFFER = 33, 16 << 20


class Way:
    """One direction."""

    def __init__(self, source, target, lost, overtaken, seed):
        self.source, self.target = source, target
        self.lost, self.overtaken = lost / 1000, (lost + overtaken) / 1000
        self.random = random.Random(seed).random
        self.held = []
        self.harm = [0, 0]

    def carry(self):
        """Takes over what has come, up to a burst."""
        for _ in range(64):
            try:
                frame, address = self.source.recvfrom(65535)
            except BlockingIOError:
                break
            if address[2] == socket.PACKET_OUTGOING:
                continue
            chance = self.random()
            if chance < self.lost:
                self.harm[0] += 1
            elif chance < self.overtaken:
                self.harm[1] += 1
                self.held.append([1 + int(chance * 1e6) % 8, time.monotonic() + HOLD, frame])
            else:
                self.send(frame)
                if self.held:
                    for held in self.held:
                        held[0] -= 1
                    self.release()

    def release(self):
        """Sends what has been held back for long enough."""
        now = time.monotonic()
        for held in [held for held in self.held if held[0] <= 0 or held[1] <= now]:
            self.held.remove(held)
            self.send(held[2])

    def send(self, frame):
        try:
            self.target.send(frame)
        except OSError:
            self.harm[0] += 1   # no room, or the other end is down: lost as well


def end(interface):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    link.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, BUFFER)
    link.bind((interface, 3))
    link.setblocking(False)
    return link


def main():
    near, far = end(sys.argv[1]), end(sys.argv[2])
    lost, overtaken, seed = map(int, sys.argv[3:])
    ways = Way(near, far, lost, overtaken, seed), Way(far, near, lost, overtaken, seed + 1)
    selector = selectors.DefaultSelector()
    for way in ways:
        selector.register(way.source, selectors.EVENT_READ, way)
    said = time.monotonic()
    while True:
        for key, _ in selector.select(HOLD if ways[0].held or ways[1].held else 0.5):
            key.data.carry()
        for way in ways:
            if way.held:
                way.release()
        if time.monotonic() - said > 0.5:
            said = time.monotonic()
            print(ways[0].harm[0] + ways[1].harm[0], ways[0].harm[1] + ways[1].harm[1], flush=True)


main()
