//! A NIC that does what DPDK's programmer's guide ("Mbuf Library") says that one does: slowly, and knowing of a packet only
//! what `ol_flags`, `tx_offload` and its bytes say.

/// What is left open, and NICs do differently: the identification of outer IPv4 packets counts up with each segment, or is
/// the same in all of them. They must not be fragmented, so that it means nothing (RFC 6864, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OuterId {
    Same,
    Counts,
}

/// The fields of an mbuf.
struct Descriptor {
    flags: u64,
    l2: usize,
    l3: usize,
    l4: usize,
    size: usize,
    outer_l2: usize,
    outer_l3: usize,
}

impl Descriptor {
    fn read(flags: u64, fields: u64) -> Self {
        let field = |from: u32, bits: u32| (fields >> from & ((1 << bits) - 1)) as usize;
        Self {
            flags,
            l2: field(0, 7),
            l3: field(7, 9),
            l4: field(16, 8),
            size: field(24, 16),
            outer_l3: field(40, 9),
            outer_l2: field(49, 7),
        }
    }

    fn has(&self, flag: u64) -> bool {
        self.flags & flag == flag
    }
}

/// The sum of 16-bit words, with the carries.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn put(frame: &mut [u8], at: usize, value: usize) {
    frame[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Adds up what a checksum covers, the field itself included, which so must hold what is not covered.
fn complete(frame: &mut [u8], covered: std::ops::Range<usize>, field: usize, more: usize, udp: bool) {
    let total = sum(&frame[covered.clone()]) + more as u32;
    let checksum = !(((total & 0xffff) + (total >> 16)) as u16);
    put(frame, covered.start + field, if udp && checksum == 0 { 0xffff } else { checksum.into() });
}

/// The frames that go over the wire.
pub(super) fn transmit(flags: u64, fields: u64, frame: &[u8], outer_id: OuterId) -> Vec<Vec<u8>> {
    let d = Descriptor::read(flags, fields);
    assert!(d.has(dpdk_sys::SHIM_TX_IPV4) != d.has(dpdk_sys::SHIM_TX_IPV6), "one IP version");
    let tunnelled = flags & (0xf << 45) != 0;
    let outer_v4 = d.has(dpdk_sys::SHIM_TX_OUTER_IPV4);
    assert_eq!(
        tunnelled,
        outer_v4 != d.has(dpdk_sys::SHIM_TX_OUTER_IPV6),
        "one outer IP version, in a tunnel"
    );
    assert_eq!(tunnelled, d.outer_l2 + d.outer_l3 > 0, "outer headers have a length in a tunnel");
    let (tcp, udp) = (d.has(dpdk_sys::SHIM_TX_TCP_SEG), d.has(dpdk_sys::SHIM_TX_UDP_SEG));
    let cut = tcp || udp;
    let udp_checksum = d.has(dpdk_sys::SHIM_TX_UDP_CKSUM);

    let outer_udp = d.outer_l2 + d.outer_l3;
    let l3 = if tunnelled { outer_udp } else { 0 } + d.l2;
    let l4 = l3 + d.l3;
    let (head, payload) = frame.split_at(l4 + d.l4);
    let parts: Vec<_> = if cut { payload.chunks(d.size).collect() } else { vec![payload] };
    let last = parts.len() - 1;
    let segment = |(nth, part): (usize, &&[u8])| {
        let mut out = [head, part].concat();
        let end = out.len();
        if cut {
            if tunnelled {
                match outer_v4 {
                    true => put(&mut out, d.outer_l2 + 2, end - d.outer_l2),
                    false => put(&mut out, d.outer_l2 + 4, end - outer_udp),
                }
                put(&mut out, outer_udp + 4, end - outer_udp);
                if outer_v4 && outer_id == OuterId::Counts {
                    let id = usize::from(word(&out, d.outer_l2 + 4)) + nth;
                    put(&mut out, d.outer_l2 + 4, id);
                }
            }
            match d.has(dpdk_sys::SHIM_TX_IPV4) {
                true => {
                    put(&mut out, l3 + 2, end - l3);
                    let id = usize::from(word(&out, l3 + 4)) + nth;
                    put(&mut out, l3 + 4, id);
                }
                false => put(&mut out, l3 + 4, end - l4),
            }
            if udp {
                put(&mut out, l4 + 4, end - l4);
            } else {
                let sequence = u32::from(word(&out, l4 + 4)) << 16 | u32::from(word(&out, l4 + 6));
                let sequence = sequence.wrapping_add((nth * d.size) as u32);
                out[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
                // FIN and PSH, and CWR.
                out[l4 + 13] &= if nth == last { 0xff } else { !0x09 };
                out[l4 + 13] &= if nth == 0 { 0xff } else { !0x80 };
            }
        }
        // From the inside out.
        if d.has(dpdk_sys::SHIM_TX_IP_CKSUM) {
            complete(&mut out, l3..l4, 10, 0, false);
        }
        let length = |from: usize| if cut { end - from } else { 0 };
        match flags & dpdk_sys::SHIM_TX_UDP_CKSUM {
            0 => {}
            _ => complete(&mut out, l4..end, if udp_checksum { 6 } else { 16 }, length(l4), udp_checksum),
        }
        if d.has(dpdk_sys::SHIM_TX_OUTER_UDP_CKSUM) {
            complete(&mut out, outer_udp..end, 6, length(outer_udp), true);
        }
        if d.has(dpdk_sys::SHIM_TX_OUTER_IP_CKSUM) {
            complete(&mut out, d.outer_l2..outer_udp, 10, 0, false);
        }
        out
    };
    parts.iter().enumerate().map(segment).collect()
}
