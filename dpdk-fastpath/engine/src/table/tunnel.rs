//! What holds for the tunnels to all other nodes.

use culvert_api::fastpath as proto;
use culvert_packet::encap::{Dscp, Ecn, Encapsulation, Marking, OuterTtl};

use super::error::Problem;
use super::wire;

/// Largest DSCP.
const MAX_DSCP: u32 = 63;

/// What holds for the tunnels to all other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnels {
    /// What packets are wrapped in.
    pub encapsulation: Encapsulation,
    /// UDP destination port.
    pub port: u16,
    /// Traffic class and time to live of tunnel packets.
    pub marking: Marking,
    /// Whether tunnel packets over IPv6 go without UDP checksum.
    pub send_zero_checksum6: bool,
    /// Whether tunnel packets over IPv6 may come without UDP checksum.
    pub accept_zero_checksum6: bool,
}

impl Tunnels {
    /// Whether packets come as most do: in VXLAN, and with a DSCP of their own.
    pub const fn are_usual(&self) -> bool {
        matches!(self.encapsulation, Encapsulation::Vxlan) && !matches!(self.marking.dscp, Dscp::Uniform)
    }
}

impl TryFrom<&proto::LocalNode> for Tunnels {
    type Error = Problem;

    fn try_from(node: &proto::LocalNode) -> Result<Self, Problem> {
        let encapsulation = match node.encapsulation() {
            proto::Encapsulation::Geneve => Encapsulation::Geneve,
            proto::Encapsulation::Vxlan => Encapsulation::Vxlan,
            proto::Encapsulation::Unspecified => {
                known("encapsulation", node.encapsulation, 2)?;
                Encapsulation::Vxlan
            }
        };
        let port = match node.tunnel_port {
            0 => encapsulation.port(),
            port => wire::port("tunnel_port", port)?,
        };
        Ok(Self {
            encapsulation,
            port,
            marking: node.marking.as_ref().map(marking).transpose()?.unwrap_or_default(),
            send_zero_checksum6: node.send_zero_checksum6,
            accept_zero_checksum6: node.accept_zero_checksum6,
        })
    }
}

fn marking(marking: &proto::Marking) -> Result<Marking, Problem> {
    known("dscp_model", marking.dscp_model, 3)?;
    known("ecn", marking.ecn, 2)?;
    let dscp = match marking.dscp_model() {
        proto::DscpModel::Copy => Dscp::Copy,
        proto::DscpModel::Uniform => Dscp::Uniform,
        proto::DscpModel::Pipe | proto::DscpModel::Unspecified => {
            Dscp::Pipe(within("dscp", marking.dscp, 0, MAX_DSCP)?)
        }
    };
    let ecn = match marking.ecn() {
        proto::EcnMode::Compatibility => Ecn::Compatibility,
        proto::EcnMode::Normal | proto::EcnMode::Unspecified => Ecn::Normal,
    };
    let ttl = match marking.ttl {
        _ if marking.copy_ttl => OuterTtl::Copy,
        0 => Marking::default().ttl,
        ttl => OuterTtl::Fixed(within("ttl", ttl, 1, u8::MAX.into())?),
    };
    Ok(Marking { dscp, ecn, ttl })
}

fn within(field: &'static str, value: u32, min: u32, max: u32) -> Result<u8, Problem> {
    let wrong = Problem::Range { field, value: value.into(), min: min.into(), max: max.into() };
    u8::try_from(value).ok().filter(|_| (min..=max).contains(&value)).ok_or(wrong)
}

/// Whether an enumeration has this value; what a newer agent may send is refused, not taken for the default.
fn known(field: &'static str, value: i32, max: i32) -> Result<(), Problem> {
    if (0..=max).contains(&value) { Ok(()) } else { Err(Problem::Unknown { field, value }) }
}
