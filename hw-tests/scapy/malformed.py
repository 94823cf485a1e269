#!/usr/bin/python3
"""Sends frames that are wrong in every way that one byte can be wrong.

    malformed.py pod      INTERFACE SOURCE_MAC ROUTER_MAC SOURCE4 SOURCE6 TARGET4 TARGET6
    malformed.py underlay INTERFACE SOURCE_MAC VTEP_MAC   SOURCE4 SOURCE6 TARGET4 TARGET6

Each legal frame is sent cut off after every byte, and with each byte of its first 128 changed five ways; then come
frames that need more than one byte to be wrong. Prints how many were sent. The encoder is scapy's, so that a
misunderstanding of ours is not on both ends.
"""

import logging
import socket
import sys
import time

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr,
                                ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                                IPv6ExtHdrHopByHop, IPv6ExtHdrRouting)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

where, interface, source_mac, router_mac, source4, source6, target4, target6 = sys.argv[1:]
data = Raw(b"culvert" * 4)


def legal(eth):
    """Frames that a pod may send, below the Ethernet header `eth`."""
    v4, v6 = IP(src=source4, dst=target4, ttl=9), IPv6(src=source6, dst=target6, hlim=9)
    inside = v4 / UDP(sport=1, dport=2) / data
    inside6 = v6 / UDP(sport=1, dport=2) / data
    return [
        eth / ARP(op=1, hwsrc=source_mac, psrc=source4, pdst=target4),
        eth / v4 / ICMP() / data,
        eth / v4 / UDP(sport=1, dport=9) / data,
        eth / v4 / TCP(sport=1, dport=9, options=[("MSS", 1400), ("WScale", 7)]) / data,
        eth / IP(src=source4, dst=target4, options=[IPOption_RR()]) / UDP() / data,
        eth / v4 / ICMP(type=3, code=4) / inside,
        eth / Dot1Q(vlan=7) / v4 / UDP() / data,
        eth / v6 / ICMPv6EchoRequest() / data,
        eth / v6 / ICMPv6ND_NS(tgt=target6) / ICMPv6NDOptSrcLLAddr(lladdr=source_mac),
        eth / v6 / ICMPv6ND_NA(tgt=source6),
        eth / v6 / UDP(sport=1, dport=9) / data,
        eth / v6 / TCP(sport=1, dport=9, flags="S") / data,
        eth / v6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP() / data,
        eth / v6 / IPv6ExtHdrRouting() / IPv6ExtHdrFragment(m=1) / UDP() / data,
        eth / v6 / ICMPv6PacketTooBig(mtu=1280) / inside6,
    ]


def wrong(eth):
    """Frames that are wrong as a whole."""
    v4, v6 = IP(src=source4, dst=target4), IPv6(src=source6, dst=target6)
    fragment = IP(src=source4, dst=target4, flags="MF", frag=8190, proto=17)
    yield bytes(eth / fragment / Raw(bytes(64)))
    yield bytes(eth / IP(src=source4, dst=target4, frag=1, proto=6) / Raw(bytes(16)))
    yield bytes(eth / v4 / UDP(len=7) / data)
    yield bytes(eth / v4 / UDP(len=65535) / data)
    yield bytes(eth / IP(src=source4, dst=target4, len=10) / data)
    yield bytes(eth / IP(src=source4, dst=target4, len=65535) / data)
    yield bytes(eth / IP(src=source4, dst=target4, ihl=15) / data)
    yield bytes(eth / IP(src=target4, dst=target4) / ICMP())
    yield bytes(eth / IP(src="0.0.0.0", dst="255.255.255.255") / UDP())
    yield bytes(eth / IP(src=source4, dst="127.0.0.1") / ICMP())
    yield bytes(eth / v4 / TCP(dataofs=15) / data)
    yield bytes(eth / v4 / TCP(flags="SFRPAU") / data)
    yield bytes(eth / IPv6(src=source6, dst=target6, plen=65535) / data)
    yield bytes(eth / IPv6(src=source6, dst="::1") / ICMPv6EchoRequest())
    chain = v6
    for _ in range(60):
        chain = chain / IPv6ExtHdrDestOpt()
    yield bytes(eth / chain / UDP())
    yield bytes(eth / v6 / IPv6ExtHdrFragment(offset=8191, m=1) / Raw(bytes(64)))
    yield bytes(eth) + bytes(1400)
    yield bytes(eth) + b"\xff" * 1400


def tunnelled(inner):
    """A VXLAN packet as the far node sends it, around a frame of its pods."""
    outer = Ether(src=source_mac, dst=router_mac) / IP(src="10.1.1.2", dst="10.1.1.1") / UDP(sport=50000, dport=4789)
    return outer / VXLAN(vni=4096, flags="Instance") / inner


def variants(frame, header):
    """Every truncation, and every byte of the first `header` changed five ways."""
    for length in range(14, len(frame)):
        yield frame[:length]
    for index in range(min(header, len(frame))):
        byte = frame[index]
        for value in {0, 0xFF, byte ^ 0x01, byte ^ 0x80, (byte + 1) & 0xFF} - {byte}:
            yield frame[:index] + bytes([value]) + frame[index + 1:]


def frames():
    if where == "pod":
        eth = Ether(src=source_mac, dst=router_mac)
        for packet in legal(eth):
            yield from variants(bytes(packet), 128)
        yield from wrong(eth)
        return
    inner = Ether(src="02:63:0a:01:01:02", dst="02:63:0a:01:01:01")
    for packet in legal(inner):
        # What lies behind the outer headers was sent by the pod's run already; here its every byte is tunnelled.
        yield from variants(bytes(tunnelled(packet)), 128)
    for frame in wrong(inner):
        yield bytes(tunnelled(Ether(frame)))[:1514]
    outer = Ether(src=source_mac, dst=router_mac)
    yield from variants(bytes(outer / IP(src="10.1.1.2", dst="10.1.1.1") / ICMP() / data), 64)
    yield from variants(bytes(outer / IPv6(src="fd00:1::2", dst="fd00:1::1") / ICMPv6EchoRequest() / data), 64)
    vxlan = UDP(sport=50000, dport=4789) / VXLAN(vni=4096, flags="Instance") / inner / Raw(bytes(2))
    for flags, offset in (("MF", 0), ("", 4)):
        yield bytes(outer / IP(src="10.1.1.2", dst="10.1.1.1", flags=flags, frag=offset) / vxlan)
    yield bytes(outer / IP(src="10.1.1.3", dst="10.1.1.1") / vxlan)
    yield bytes(outer / IPv6(src="fd00:1::2", dst="fd00:1::1") / vxlan)


link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind((interface, 0))
sent = 0
for frame in frames():
    link.send(frame)
    sent += 1
    if sent % 64 == 0:
        time.sleep(0.002)   # no faster than the port is polled: a full queue would drop what is to be judged
print(sent)
