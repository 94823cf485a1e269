#!/usr/bin/python3
"""Super-packets of a pod, and what becomes of them on the wire.

    segments.py send  MTU SOURCE4 SOURCE6 TARGETS INTERFACE SOURCE_MAC ROUTER_MAC
    segments.py check MTU SOURCE4 SOURCE6 TARGETS CAPTURE VTEP WIRE_MTU VNI

TARGETS: "ADDRESS,PORT,ARRIVES_AT,PORT_THERE" for each address to send to, with blanks between them. `send` hands
super-packets to the interface of a pod as its kernel does, with a virtio_net_hdr in front and a partial checksum, and
prints how many. `check` reads a capture of the wire behind the tunnel endpoint VTEP and compares: every super-packet must
have become the segments that scapy makes of it, in their order; and any packet of VTEP must be right: no longer than the
wire's MTU, lengths and all checksums, outside and inside. Prints how many packets were looked at.
"""

import ipaddress
import logging
import socket
import struct
import sys
import time

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw
from scapy.utils import rdpcap

SOL_PACKET, PACKET_VNET_HDR = 263, 15
NEEDS_CSUM = 1
GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_ECN = 1, 4, 5, 0x80
FIRST_PORT = 20000
TUNNELS = (4789, 6081)

# Bytes in a segment, or None for as many as the MTU allows; how many such segments; bytes in the last one; flags of TCP.
TCPS = [(None, 2, 1, "A"), (None, 1, 1, "PA"), (1300, 20, 0, "FPA"), (None, 44, 5, "PAC"), (1000, 9, 0, "FPAEC"),
        (7, 9, 1, "PA")]
UDPS = [(None, 1, 1, ""), (1000, 2, 0, ""), (None, 21, 800, ""), (20, 25, 3, "")]


def payload(length, seed):
    return bytes((seed * 31 + n * 7 + n // 251) & 0xFF for n in range(length))


class Super:
    """One super-packet: the packet in whole, and how it is to be cut."""

    def __init__(self, index, mtu, source, target, kind, size, count, rest, flags):
        address, port, self.there, self.there_port = target
        self.port, self.kind, self.flags = FIRST_PORT + index, kind, flags
        self.v6 = ":" in address
        self.size = size or mtu - (40 if self.v6 else 20) - (8 if kind is UDP else 32)
        self.data = payload(self.size * count + rest, index)
        # Identifications that run over, of packets that may be fragmented and of those that may not.
        self.id, self.df = (0xFFFD + index) & 0xFFFF, index % 2
        self.seq = 0xFFFFF000 + index
        self.packet = self.ip(source, address) / self.transport(port)

    def ip(self, source, target, ttl=64, nth=0):
        if self.v6:
            return IPv6(src=source, dst=target, hlim=ttl, fl=0x12345, tc=0xB8)
        flags = "DF" if self.df else 0
        return IP(src=source, dst=target, ttl=ttl, flags=flags, id=(self.id + nth) & 0xFFFF, tos=0xB8)

    def transport(self, port, offset=0, flags=None):
        if self.kind is UDP:
            return UDP(sport=self.port, dport=port)
        return TCP(sport=self.port, dport=port, seq=(self.seq + offset) & 0xFFFFFFFF, ack=77, window=4321,
                   flags=self.flags if flags is None else flags,
                   options=[("NOP", None), ("NOP", None), ("Timestamp", (11, 22))])

    def frame(self, eth):
        """With a partial checksum, behind its vnet header."""
        whole = eth / self.packet / Raw(self.data)
        raw = bytearray(bytes(whole))
        start = 14 + (40 if self.v6 else 20)
        field = 6 if self.kind is UDP else 16
        struct.pack_into("!H", raw, start + field, pseudo(self.packet, len(raw) - start))
        if self.kind is UDP:
            gso = GSO_UDP
        else:
            gso = (GSO_TCPV6 if self.v6 else GSO_TCPV4) | (GSO_ECN if "C" in self.flags else 0)
        head = len(raw) - len(self.data)
        return struct.pack("<BBHHHH", NEEDS_CSUM, gso, head, self.size, start, field) + bytes(raw)

    def opening(self, eth):
        """What opens the connection."""
        syn = self.packet.copy()
        syn[TCP].flags, syn[TCP].seq = "S", (self.seq - 1) & 0xFFFFFFFF
        return struct.pack("<BBHHHH", 0, 0, 0, 0, 0, 0) + bytes(eth / syn)

    def segments(self, source):
        """The packets that it must become, made by scapy."""
        count = -(-len(self.data) // self.size)
        for nth in range(count):
            offset, last = nth * self.size, nth == count - 1
            flags = "".join(f for f in self.flags if (f != "C" or nth == 0) and (f not in "FP" or last))
            yield bytes(self.ip(source, self.there, 63, nth) / self.transport(self.there_port, offset, flags)
                        / Raw(self.data[offset:offset + self.size]))


def pseudo(packet, length):
    """The sum of the pseudo header, not complemented (RFC 9293, section 3.1; RFC 8200, section 8.1)."""
    protocol = 17 if UDP in packet else 6
    words = ipaddress.ip_address(packet.src).packed + ipaddress.ip_address(packet.dst).packed
    total = sum(struct.unpack(f"!{len(words) // 2}H", words)) + protocol + (length & 0xFFFF) + (length >> 16)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def supers(mtu, sources, targets):
    index = 0
    for target in targets.split():
        address, port, there, there_port = target.split(",")
        target = address, int(port), there, int(there_port)
        source = sources[":" in address]
        for kind, cases in ((TCP, TCPS), (UDP, UDPS)):
            for case in cases:
                yield Super(index, mtu, source, target, kind, *case)
                index += 1


def send(packets, interface, source_mac, router_mac):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.bind((interface, 0))
    eth, sent = Ether(src=source_mac, dst=router_mac), 0
    for packet in packets:
        if packet.kind is TCP:
            link.send(packet.opening(eth))
        link.send(packet.frame(eth))
        sent += 1
        time.sleep(0.001)
    return sent


def same(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}:\n  got    {bytes(got).hex()}\n  wanted {bytes(wanted).hex()}")


def right(what, raw):
    """The packet without padding; fails unless scapy makes the same lengths and checksums of it."""
    layer = IPv6 if raw[0] >> 4 == 6 else IP
    packet = layer(raw)
    length = packet.plen + 40 if layer is IPv6 else packet.len
    if length > len(raw):
        sys.exit(f"{what}: says {length} bytes, and has {len(raw)}")
    packet = layer(raw[:length])
    again = packet.copy()
    if layer is IPv6:
        del again.plen
    else:
        del again.len, again.chksum
    transport = again.payload
    if isinstance(transport, (TCP, UDP)):
        data = bytes(transport.payload)
        transport.remove_payload()
        transport.add_payload(Raw(data))
        without = isinstance(transport, UDP) and transport.chksum == 0
        if without and layer is IPv6:
            sys.exit(f"{what}: UDP over IPv6 without a checksum")
        if isinstance(transport, UDP):
            del transport.len
        if not without:
            del transport.chksum
    same(what, raw[:length], bytes(again))
    return packet


def check(packets, sources, capture, vtep, mtu, vni):
    wanted = {packet.port: list(packet.segments(sources[packet.v6])) for packet in packets}
    looked_at, outer_ids = 0, set()
    for number, frame in enumerate(rdpcap(capture), 1):
        what = f"packet {number}"
        outer = frame.payload
        if not isinstance(outer, (IP, IPv6)) or outer.src != vtep or not isinstance(outer.payload, UDP):
            continue
        if outer.payload.dport not in TUNNELS:
            continue
        looked_at += 1
        outer = right(f"{what}, outside", bytes(frame)[14:])
        if len(outer) > mtu:
            sys.exit(f"{what}: {len(outer)} bytes, more than the MTU")
        if outer.version == 4 and outer.flags != "DF":
            if outer.id in outer_ids:
                sys.exit(f"{what}: may be fragmented, and identification {outer.id} comes twice")
            outer_ids.add(outer.id)
        tunnel = (VXLAN if outer.payload.dport == 4789 else GENEVE)(bytes(outer.payload.payload))
        if tunnel.vni != vni:
            sys.exit(f"{what}: VNI {tunnel.vni}")
        inner = bytes(tunnel.payload)[14:]
        packet = right(f"{what}, inside", inner)
        segments = wanted.get(getattr(packet.payload, "sport", None))
        is_opening = isinstance(packet.payload, TCP) and packet.payload.flags.S
        if segments is None or packet.src not in sources or is_opening:
            continue
        if not segments:
            sys.exit(f"{what}: more segments than there should be: {packet.summary()}")
        same(f"{what}, a segment from port {packet.payload.sport}", inner, segments.pop(0))
    missing = {port: len(left) for port, left in wanted.items() if left}
    if missing:
        sys.exit(f"segments that never came, by port: {missing}")
    return looked_at


def main():
    mode, mtu, source4, source6, targets, where, *rest = sys.argv[1:]
    sources = source4, source6
    packets = supers(int(mtu), sources, targets)
    if mode == "send":
        print(send(packets, where, *rest))
    else:
        vtep, wire_mtu, vni = rest
        print(check(packets, sources, where, vtep, int(wire_mtu), int(vni)))


if __name__ == "__main__":
    main()
