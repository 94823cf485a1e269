//! Outer headers over either IP version.

use super::{EncapError, Endpoints, OuterTtl, Template4, Template6, Tunnel, template4, template6};
use crate::buf::PacketBuf;

/// The outer headers of a tunnel, of whatever kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    headers: Headers,
    ttl: OuterTtl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Headers {
    V4(Template4),
    V6(Template6),
}

impl Template {
    /// Compiles the headers of a tunnel.
    pub fn new(tunnel: &Tunnel) -> Self {
        let headers = match tunnel.endpoints {
            Endpoints::V4 { src, dst } => Headers::V4(Template4::new(tunnel, src, dst)),
            Endpoints::V6 { src, dst } => Headers::V6(Template6::new(tunnel, src, dst)),
        };
        Self { headers, ttl: tunnel.marking.ttl }
    }

    /// The headers alone, if nothing but these is to be put in front of a packet: over IPv4, with a fixed time to live.
    pub const fn fixed4(&self) -> Option<&Template4> {
        match (&self.headers, self.ttl) {
            (Headers::V4(template), OuterTtl::Fixed(_)) => Some(template),
            _ => None,
        }
    }

    /// Bytes that [`encap`](Self::encap) puts in front of a frame.
    pub const fn overhead(&self) -> usize {
        match &self.headers {
            Headers::V4(template) => template.overhead(),
            Headers::V6(template) => template.overhead(),
        }
    }

    /// Puts the Ethernet frame in `buf` into the tunnel, as [`Template4::encap`] does; `traffic_class` and `ttl` are those
    /// of the inner packet as it now is.
    #[inline]
    pub fn encap(
        &self,
        buf: &mut impl PacketBuf,
        source_port: u16,
        traffic_class: u8,
        ttl: u8,
    ) -> Result<(), EncapError> {
        match &self.headers {
            Headers::V4(template) => {
                template.encap(buf, source_port, template.outer_traffic_class(traffic_class))?;
                if self.ttl == OuterTtl::Copy {
                    template4::set_ttl(buf.data_mut(), ttl);
                }
            }
            Headers::V6(template) => {
                template.encap(buf, source_port, template.outer_traffic_class(traffic_class))?;
                if self.ttl == OuterTtl::Copy {
                    template6::set_ttl(buf.data_mut(), ttl);
                }
            }
        }
        Ok(())
    }
}
