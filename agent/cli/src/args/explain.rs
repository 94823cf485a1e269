//! `explain`.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, ValueEnum};
use culvert_api::fastpath::{self, ExplainRequest};

/// The packet that is asked about.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Question {
    /// The pod's address and port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    from: SocketAddr,
    /// Where it goes.
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Transport protocol.
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    protocol: Protocol,
    /// Routing domain of the pod.
    #[arg(long, default_value_t = 0)]
    tenant: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl From<&Question> for ExplainRequest {
    fn from(question: &Question) -> Self {
        let protocol = match question.protocol {
            Protocol::Tcp => fastpath::Protocol::Tcp,
            Protocol::Udp => fastpath::Protocol::Udp,
            Protocol::Sctp => fastpath::Protocol::Sctp,
        };
        Self {
            tenant: question.tenant,
            protocol: protocol.into(),
            source: octets(question.from.ip()),
            source_port: question.from.port().into(),
            destination: octets(question.to.ip()),
            destination_port: question.to.port().into(),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
