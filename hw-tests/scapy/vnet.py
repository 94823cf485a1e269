#!/usr/bin/python3
"""Frames behind virtio_net_hdrs of every kind, from a pod's side of its port, and what arrives at another pod.

    vnet.py send    INTERFACE SOURCE_MAC ROUTER_MAC SOURCE4 SOURCE6 TARGET4 TARGET6
    vnet.py receive INTERFACE SECONDS

`send` tries every combination of flags, kind and size of segments, and every combination of places for the checksum and
lengths of the header, on frames of each protocol. The kernel refuses some by itself; printed is how many it took.
`receive` looks at all that comes to port 7777, until no more has come for SECONDS: the bytes must be those that were sent,
and the checksum right or, if the header says so, partial. Prints how many packets were right; the first that is not ends
it. Port 7778 gets what its sender says something wrong of, the place of the checksum or the kind of packet: anything may
come of that, as the kernel in between cuts and completes by what it is told.
"""

import itertools
import logging
import socket
import struct
import sys
import time
from socket import AF_INET, AF_INET6, inet_pton

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

SOL_PACKET, PACKET_VNET_HDR, RCVBUFFORCE = 263, 15, 33
NEEDS_CSUM, DATA_VALID = 1, 2
RIGHT, ASTRAY = 7777, 7778
LENGTHS = 600, 2000


def payload(length):
    return bytes((n * 7 + n // 251) & 0xFF for n in range(length))


PATTERN = payload(max(LENGTHS))


def pseudo(ends, protocol, length):
    return fold(total_of(ends) + protocol + (length >> 16) + (length & 0xFFFF))


def fold(total):
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def total_of(data):
    data += bytes(len(data) % 2)
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def frames(source_mac, router_mac, source4, source6, target4, target6, port):
    """A frame with its checksum and with a partial one; where its transport header lies, where the checksum lies in
    that, the length of all headers, and the kinds of segments it may be cut into."""
    eth = Ether(src=source_mac, dst=router_mac)
    v4, v6 = IP(src=source4, dst=target4), IPv6(src=source6, dst=target6)
    tcp, udp = TCP(sport=1000, dport=port, flags="PA"), UDP(sport=1000, dport=port)
    ends = {4: inet_pton(AF_INET, source4) + inet_pton(AF_INET, target4),
            6: inet_pton(AF_INET6, source6) + inet_pton(AF_INET6, target6)}

    def both(packet, start, field, head, protocol=0, version=0):
        whole = bytes(packet)
        partial = bytearray(whole)
        begin = pseudo(ends[version], protocol, len(whole) - start) if version else 0
        struct.pack_into("!H", partial, start + field, begin)
        own = {(6, 4): (1, 0x81), (6, 6): (4, 0x84)}.get((protocol, version), (5,) if protocol == 17 else ())
        return whole, bytes(partial), start, field, head, own

    for length in LENGTHS:
        data = Raw(payload(length))
        for tag in (eth, eth / Dot1Q(vlan=7)):
            at = len(tag)
            yield both(tag / v4 / tcp / data, at + 20, 16, at + 40, 6, 4)
            yield both(tag / v4 / udp / data, at + 20, 6, at + 28, 17, 4)
            yield both(tag / v6 / tcp / data, at + 40, 16, at + 60, 6, 6)
            yield both(tag / v6 / udp / data, at + 40, 6, at + 48, 17, 6)
        yield both(eth / v6 / IPv6ExtHdrDestOpt() / udp / data, 14 + 48, 6, 14 + 56, 17, 6)
        yield both(eth / v4 / ICMP() / data, 14 + 20, 2, 14 + 28)
        yield both(eth / IP(src=source4, dst=target4, flags="MF") / udp / data, 14 + 20, 6, 14 + 28, 17, 4)
        yield both(eth / ARP(op=1, hwsrc=source_mac, psrc=source4, pdst=target4) / data, 14, 6, 42)


def headers(start, field, head, length, own):
    """All headers: flags, kind, length of headers, size, start and place of the checksum; and whether that is so. `own`:
    the kinds of segments that the packet may be cut into."""
    kinds = (0, 1, 2, 3, 4, 5, 6, 0x80, 0x81, 0x84, 0x85)
    for flags, kind, size in itertools.product((0, 1, 2, 3, 4, 9, 0xFF), kinds, (0, 1, 7, 536, 1400, 0xFFFF)):
        yield (flags, kind, head, size, start, field), kind == 0 or flags & NEEDS_CSUM and kind in own
    starts = start, start + 1, 0, 14, length - 2, length, 0xFFFF
    for start_, field_, head_, kind in itertools.product(starts, (field, 0, 1, 65534), (head, 0, 14, 0xFFFF), kinds):
        right = (start_, field_) == (start, field) and (kind == 0 or kind in own)
        yield (NEEDS_CSUM, kind, head_, 536, start_, field_), right


def send(interface, *addresses):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.bind((interface, 0))
    taken = 0
    for (whole, partial, *places), (_, astray, *_) in zip(frames(*addresses, RIGHT), frames(*addresses, ASTRAY)):
        start, field, head, own = places
        for header, is_so in headers(start, field, head, len(whole), own):
            frame = astray if not is_so else partial if header[0] & NEEDS_CSUM else whole
            try:
                link.send(struct.pack("<BBHHHH", *header) + frame)
            except OSError:
                continue
            taken += 1
            if taken % 32 == 0:
                time.sleep(0.002)   # no faster than the port is polled
    return taken


def wrong(header, frame):
    """What is wrong with a frame that has arrived; None if nothing is."""
    flags, kind, _, size, start, field = struct.unpack_from("<BBHHHH", header)
    v6 = frame[14] >> 4 == 6
    addresses = frame[22:54] if v6 else frame[26:34]
    length = 40 + struct.unpack_from("!H", frame, 18)[0] if v6 else struct.unpack_from("!H", frame, 16)[0]
    packet = (IPv6 if v6 else IP)(frame[14:14 + length])
    transport = packet.getlayer(TCP) or packet.getlayer(UDP)
    message = bytes(transport)
    data = bytes(transport.payload)
    # Datagrams that came one after the other may have been merged.
    pieces = [data[at:at + size] for at in range(0, len(data), size)] if kind and size else [data]
    if not all(piece and piece in PATTERN for piece in pieces):
        return f"{len(data)} bytes of payload are not those that were sent"
    protocol = 17 if isinstance(transport, UDP) else 6
    begin = pseudo(addresses, protocol, len(message))
    place = 6 if protocol == 17 else 16
    if flags & NEEDS_CSUM:
        if (start, field) != (14 + length - len(message), place):
            return f"the checksum is said to be at {start} + {field}"
        if struct.unpack_from("!H", message, place)[0] != begin:
            return "the partial checksum is not that of the pseudo header"
    elif fold(begin + total_of(message)) != 0xFFFF:
        return "the checksum is wrong"
    if kind and not 0 < size < len(data):
        return f"{len(data)} bytes in segments of {size}"
    return None


def receive(interface, seconds):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.setsockopt(socket.SOL_SOCKET, RCVBUFFORCE, 64 << 20)
    link.bind((interface, 3))
    print("receiving", flush=True)
    right, came = 0, False
    link.settimeout(30)
    while True:
        try:
            header, address = link.recvfrom(1 << 17)
        except TimeoutError:
            break
        frame = header[10:]
        port = frame[36:38] if frame[14] >> 4 == 4 else frame[56:58]
        port8 = frame[64:66] if frame[14] >> 4 == 6 and frame[20] == 60 else port
        if address[2] == socket.PACKET_OUTGOING or struct.pack("!H", RIGHT) not in (port, port8):
            continue
        link.settimeout(float(seconds))
        what = wrong(header, frame)
        if what:
            sys.exit(f"{what}: header {header[:10].hex()}, {frame[:80].hex()}...")
        right += 1
    return right


def main():
    mode, *rest = sys.argv[1:]
    print({"send": send, "receive": receive}[mode](*rest), flush=True)


main()
