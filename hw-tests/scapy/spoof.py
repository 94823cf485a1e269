#!/usr/bin/python3
"""Sends what a pod must not send, to be dropped for a certain reason.

    spoof.py INTERFACE SOURCE_MAC ROUTER_MAC SOURCE4 SOURCE6 VICTIM4 VICTIM6 ROUTER4 ROUTER6 REASON COUNT

Each frame for that reason is sent COUNT times; "none" sends what a pod may send. Prints how many were sent. UDP goes to
port 9999 of the victim, and what may be sent to port 9998.
"""

import logging
import socket
import struct
import sys
import time

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

interface, mac, router_mac, own4, own6, victim4, victim6, router4, router6, reason, count = sys.argv[1:]

SOL_PACKET, PACKET_VNET_HDR = 263, 15
PLAIN = struct.pack("<BBHHHH", 0, 0, 0, 0, 0, 0)
NEEDS_CSUM, GSO_UDP = 1, 5
OTHER_MAC, ALL = "02:aa:bb:cc:dd:ee", "ff:ff:ff:ff:ff:ff"
eth, wrong_eth = Ether(src=mac, dst=router_mac), Ether(src=OTHER_MAC, dst=router_mac)
udp = UDP(sport=9997, dport=9998 if reason == "none" else 9999) / Raw(b"culvert" * 4)


def v4(source=own4):
    return IP(src=source, dst=victim4) / udp


def v6(source=own6):
    return IPv6(src=source, dst=victim6) / udp


def discovery(message, source, target="ff02::1", option=ICMPv6NDOptDstLLAddr):
    return IPv6(src=source, dst=target, hlim=255) / message / option(lladdr=mac)


def super_packet(frame):
    """Three datagrams of the frame's headers in one."""
    raw = bytearray(bytes(frame / Raw(bytes(1500 - 28))))
    start = 14 + (40 if IPv6 in frame else 20)
    header = struct.pack("<BBHHHH", NEEDS_CSUM, GSO_UDP, start + 8, 500, start, 6)
    return header, bytes(raw)


FRAMES = {
    "none": [eth / v4(), eth / v6()],
    "spoofed-mac": [
        wrong_eth / v4(), wrong_eth / v6(), Ether(src=router_mac, dst=router_mac) / v4(),
        super_packet(wrong_eth / v4()), super_packet(wrong_eth / v6()),
        # The frame is the pod's own, and what it says is not.
        eth / ARP(op=1, hwsrc=OTHER_MAC, psrc=own4, pdst=router4),
        Ether(src=mac, dst=ALL) / ARP(op=2, hwsrc=OTHER_MAC, psrc=own4, hwdst=ALL, pdst=own4),
    ],
    "spoofed-address": [
        eth / v4(victim4), eth / v4("10.244.1.99"), eth / v4("10.1.1.2"), eth / v4("0.0.0.0"), eth / v4("127.0.0.1"),
        eth / v6(victim6), eth / v6("fd00:244:1::99"), eth / v6("fe80::1"), eth / v6("::"), eth / v6("::1"),
        super_packet(eth / v4(victim4)), super_packet(eth / v6(victim6)),
        # "The victim's address, or the router's, is here": to the router, to all, unasked.
        eth / ARP(op=1, hwsrc=mac, psrc=victim4, pdst=router4),
        Ether(src=mac, dst=ALL) / ARP(op=1, hwsrc=mac, psrc=victim4, pdst=victim4),
        Ether(src=mac, dst=ALL) / ARP(op=2, hwsrc=mac, psrc=router4, hwdst=ALL, pdst=router4),
        eth / discovery(ICMPv6ND_NS(tgt=router6), victim6, router6, ICMPv6NDOptSrcLLAddr),
        eth / discovery(ICMPv6ND_NA(tgt=victim6, R=0, S=0, O=1), victim6),
        Ether(src=mac, dst="33:33:00:00:00:01") / discovery(ICMPv6ND_NA(tgt=router6, R=1, S=0, O=1), router6),
    ],
    "neighbour-ignored": [
        eth / discovery(ICMPv6ND_NA(tgt=victim6, R=0, S=0, O=1), own6),
        Ether(src=mac, dst="33:33:00:00:00:01") / discovery(ICMPv6ND_NA(tgt=router6, R=1, S=0, O=1), "fe80::1"),
        Ether(src=mac, dst=ALL) / ARP(op=1, hwsrc=mac, psrc=own4, pdst=victim4),
    ],
    "vlan-tag": [
        eth / Dot1Q(vlan=7) / v4(), eth / Dot1Q(vlan=7) / v6(), eth / Dot1Q(vlan=0) / v4(),
        eth / Dot1Q(vlan=4095) / v4(), eth / Dot1Q(vlan=7) / Dot1Q(vlan=8) / v6(),
        eth / Dot1Q(vlan=7) / ARP(op=1, hwsrc=mac, psrc=own4, pdst=router4),
    ],
    "ether-type": [eth / Dot1AD(vlan=7) / v4(), eth / Dot1AD(vlan=7) / Dot1Q(vlan=8) / v6()],
}

link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
link.bind((interface, 0))
sent = 0
for _ in range(int(count)):
    for frame in FRAMES[reason]:
        header, raw = frame if isinstance(frame, tuple) else (PLAIN, bytes(frame))
        link.send(header + raw)
        sent += 1
    time.sleep(0.002)   # no faster than the port is polled: a full queue would drop what is to be judged
print(sent)
