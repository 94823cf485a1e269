#!/usr/bin/python3
"""Packets of connections that go by the short cut.

    shortcut.py check CAPTURE CLIENT SERVER PORT VNI
    shortcut.py send|ask INTERFACE SOURCE_MAC ROUTER_MAC SOURCE PORT TARGET PORT TTL LENGTH ID

`check` reads a capture of the wire between two nodes, all of which must be a connection of a pod CLIENT with PORT of a pod
SERVER, in VXLAN: whatever can be wrong with a packet is told. Prints how many packets were looked at. `send` sends a TCP
segment of LENGTH bytes, with its IP header. `ask` sends it and prints what ICMP says to it: who, type, code, MTU, and to whom
it was sent.
"""

import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer, sendp
from scapy.utils import rdpcap

from segments import right

LEAST_DATA = 100


def check(capture, client, server, port, vni):
    looked_at, tunnel_ports, data = 0, {}, {}
    for number, frame in enumerate(rdpcap(capture), 1):
        what = f"packet {number}"

        def must(condition, text):
            if not condition:
                sys.exit(f"{what}: {text}: {frame.summary()}")

        looked_at += 1
        must(frame.type == 0x0800, "is not IPv4")
        outer = right(f"{what}, outside", bytes(frame)[14:])
        must(isinstance(outer.payload, UDP) and len(outer) <= 1500, f"{len(outer)} bytes outside")
        must(outer.ttl > 1 and outer.frag == 0 and not outer.flags.MF, "the outer header")
        udp = outer.payload
        must(udp.dport == 4789 and 49152 <= udp.sport, f"UDP from {udp.sport} to {udp.dport}")
        tunnel = VXLAN(bytes(udp.payload))
        must(bytes(tunnel)[:8] == bytes([8, 0, 0, 0]) + vni.to_bytes(3, "big") + b"\0", f"VXLAN {bytes(tunnel)[:8].hex()}")
        eth = Ether(bytes(tunnel)[8:])
        must(eth.type == 0x0800, f"type {eth.type:#x} inside")
        # Addresses of tunnel endpoints inside tell which node it is as well.
        must(eth.dst[:5] == eth.src[:5] == "02:63" and eth.dst[-2:] != eth.src[-2:], f"{eth.src} to {eth.dst} inside")
        must(outer.dst.endswith(f".{int(eth.dst[-2:], 16)}"), f"{eth.dst} at {outer.dst}")
        inner = right(f"{what}, inside", bytes(tunnel)[8 + 14:])
        tcp = inner.payload
        must(isinstance(tcp, TCP) and inner.ttl == 63, f"protocol {inner.proto} with {inner.ttl} hops left")
        there = (inner.src, inner.dst, tcp.dport) == (client, server, port)
        must(there or (inner.src, inner.dst, tcp.sport) == (server, client, port),
             f"{inner.src}:{tcp.sport} to {inner.dst}:{tcp.dport}")
        must(tunnel_ports.setdefault(there, udp.sport) == udp.sport, f"UDP from {udp.sport}, one flow")
        data[there] = data.get(there, 0) + (len(tcp.payload) > 0)
    if min(data.get(True, 0), data.get(False, 0)) < LEAST_DATA:
        sys.exit(f"packets with data, by whether they are the client's: {data}")
    return looked_at


def segment(source_mac, router_mac, source, source_port, target, target_port, ttl, length, ident):
    packet = Ether(src=source_mac, dst=router_mac) / IP(src=source, dst=target, ttl=int(ttl), id=int(ident), flags="DF")
    packet /= TCP(sport=int(source_port), dport=int(target_port), flags="PA", seq=1, ack=1)
    return packet / Raw(bytes(int(length) - 40))


def ask(interface, packet):
    sent = packet[IP]

    def is_answer(heard):
        return IPerror in heard and TCPerror in heard and heard[IPerror].id == sent.id and heard[IPerror].src == sent.src

    sniffer = AsyncSniffer(iface=interface, lfilter=is_answer, count=1, timeout=10,
                           started_callback=lambda: sendp(packet, iface=interface, verbose=False))
    sniffer.start()
    sniffer.join()
    for heard in sniffer.results:
        icmp, about = heard[ICMP], heard[IPerror]
        mtu = icmp.nexthopmtu if (icmp.type, icmp.code) == (3, 4) else 0
        print(heard[IP].src, icmp.type, icmp.code, mtu, f"{about.dst}:{heard[TCPerror].dport}")


def main():
    mode, *rest = sys.argv[1:]
    if mode == "check":
        capture, client, server, port, vni = rest
        print(check(capture, client, server, int(port), int(vni)))
    elif mode == "ask":
        ask(rest[0], segment(*rest[1:]))
    else:
        sendp(segment(*rest[1:]), iface=rest[0], verbose=False)


main()
