//! The bytes of a legal packet.

use crate::ip::Protocol;

use super::{LegalPacket, Message, Net, Piece};

impl LegalPacket {
    /// The bytes on the wire.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [self.eth_dst.0, self.eth_src.0].concat();
        if let Some(tci) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(tci.0.to_be_bytes());
        }
        let message = self.message_bytes();
        match &self.net {
            Net::V4 { src, dst, ttl, traffic_class, identification, dont_fragment, options } => {
                frame.extend([0x08, 0x00]);
                let (offset, more) = self.piece.offset_and_more();
                let flags = u16::from(*dont_fragment) << 14 | u16::from(more) << 13 | offset;
                let header_len = 20 + options.len();
                let mut header = vec![0x40 | (header_len / 4) as u8, *traffic_class];
                header.extend(((header_len + message.len()) as u16).to_be_bytes());
                header.extend(identification.to_be_bytes());
                header.extend(flags.to_be_bytes());
                header.extend([*ttl, self.protocol().0, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header.extend(options);
                let checksum = slow_checksum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(header);
            }
            Net::V6 { src, dst, hop_limit, traffic_class, flow_label, extensions } => {
                frame.extend([0x86, 0xdd]);
                let (first, chain) = self.chain(extensions);
                frame.extend((6 << 28 | u32::from(*traffic_class) << 20 | flow_label).to_be_bytes());
                frame.extend(((chain.len() + message.len()) as u16).to_be_bytes());
                frame.extend([first.0, *hop_limit]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                frame.extend(chain);
            }
        }
        frame.extend(message);
        frame.extend(std::iter::repeat_n(0xee, usize::from(self.padding)));
        frame
    }

    fn message_bytes(&self) -> Vec<u8> {
        let (mut bytes, field) = match &self.message {
            Message::Tcp { ports, sequence, acknowledgement, flags, options, data } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                bytes.extend([((20 + options.len()) as u8 / 4) << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(data);
                (bytes, Some(16))
            }
            Message::Udp { ports, with_checksum, data } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(((data.len() + 8) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(data);
                (bytes, (*with_checksum || self.is_v6()).then_some(6))
            }
            Message::Sctp { ports, tag, chunks } => {
                let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                bytes.extend(tag.to_be_bytes());
                bytes.extend([0; 4]);
                for (kind, flags, value) in chunks {
                    bytes.extend([*kind, *flags]);
                    bytes.extend((value.len() as u16 + 4).to_be_bytes());
                    bytes.extend(value);
                    bytes.resize(bytes.len().next_multiple_of(4), 0);
                }
                let checksum = slow_crc32c(&bytes);
                bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
                return bytes;
            }
            Message::Icmp { kind, code, rest, data } => {
                let mut bytes = vec![*kind, *code, 0, 0];
                bytes.extend(rest);
                bytes.extend(data);
                (bytes, Some(2))
            }
            Message::Opaque { data, .. } => return data.clone(),
        };
        if let Some(field) = field {
            let covered = [self.pseudo_header(bytes.len() as u32), bytes.clone()].concat();
            let checksum = match (slow_checksum(&covered), &self.message) {
                (0, Message::Udp { .. }) => 0xffff,
                (checksum, _) => checksum,
            };
            bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }

    fn pseudo_header(&self, len: u32) -> Vec<u8> {
        let tail = |len: u32| [len.to_be_bytes(), [0, 0, 0, self.protocol().0]].concat();
        match &self.net {
            Net::V4 { .. } if self.protocol() == Protocol::ICMP => vec![],
            Net::V4 { src, dst, .. } => [&src.octets()[..], &dst.octets(), &tail(len)].concat(),
            Net::V6 { src, dst, .. } => [&src.octets()[..], &dst.octets(), &tail(len)].concat(),
        }
    }

    /// The first next-header value, and the extension headers with the fragment header behind them.
    fn chain(&self, extensions: &[(Protocol, Vec<u8>)]) -> (Protocol, Vec<u8>) {
        let mut bytes = vec![];
        let mut next = self.protocol();
        if let Piece::Fragment(offset, more) = self.piece {
            bytes = vec![next.0, 0];
            bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
            bytes.extend([1, 2, 3, 4]);
            next = Protocol::FRAGMENT;
        }
        for (kind, body) in extensions.iter().rev() {
            let units = match *kind {
                Protocol::AUTHENTICATION => (body.len() + 2) / 4 - 2,
                _ => (body.len() + 2) / 8 - 1,
            };
            bytes = [&[next.0, units as u8], &body[..], &bytes].concat();
            next = *kind;
        }
        (next, bytes)
    }
}

impl Piece {
    fn offset_and_more(self) -> (u16, bool) {
        match self {
            Self::Whole => (0, false),
            Self::Fragment(offset, more) => (offset, more),
        }
    }
}

/// RFC 1071 word by word.
fn slow_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// RFC 9260, appendix A, bit by bit, as the polynomial is written down: from the highest bit on, with the bits of each byte
/// turned around.
pub(crate) fn slow_crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u64 = 0x1_1edc_6f41;
    let mut register: u64 = 0xffff_ffff;
    for byte in bytes {
        register ^= u64::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            register <<= 1;
            if register >> 32 != 0 {
                register ^= POLYNOMIAL;
            }
        }
    }
    !(register as u32).reverse_bits()
}
