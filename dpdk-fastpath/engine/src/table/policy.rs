//! How connections are treated.

use culvert_api::fastpath as proto;

use super::error::Problem;
use crate::flow::Timeouts;

/// What a TCP segment or SCTP packet gets whose connection is not known, or whose endpoint is gone, unless it opens one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostConnections {
    /// A reset or an ABORT, so that the client can try again at once.
    Reset,
    /// Nothing: the client finds out by its own timeouts.
    Drop,
    /// Another endpoint, which may know the connection or else refuses it.
    Reselect,
}

/// How this node treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowPolicy {
    /// What becomes of connections that are lost.
    pub lost: LostConnections,
    /// ICMP errors of its own that each worker sends to one port in a second, at most.
    pub icmp_errors_per_second: u32,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
}

impl FlowPolicy {
    /// What holds unless somebody says otherwise.
    pub const DEFAULT: Self =
        Self { lost: LostConnections::Reset, icmp_errors_per_second: 1000, timeouts: Timeouts::DEFAULT };
}

impl TryFrom<&proto::FlowPolicy> for FlowPolicy {
    type Error = Problem;

    fn try_from(policy: &proto::FlowPolicy) -> Result<Self, Problem> {
        let or = |value, default| if value == 0 { default } else { value };
        let lost = match proto::LostConnections::try_from(policy.lost_connections) {
            Ok(proto::LostConnections::Unspecified) => Self::DEFAULT.lost,
            Ok(proto::LostConnections::Reset) => LostConnections::Reset,
            Ok(proto::LostConnections::Drop) => LostConnections::Drop,
            Ok(proto::LostConnections::Reselect) => LostConnections::Reselect,
            Err(_) => {
                let value = u64::from(policy.lost_connections.unsigned_abs());
                return Err(Problem::Range { field: "lost_connections", value, min: 0, max: 3 });
            }
        };
        let given = policy.timeouts.unwrap_or_default();
        let seconds = |field, value, default| match or(value, default) {
            seconds @ 1..=Timeouts::MAX => Ok(seconds),
            seconds => {
                Err(Problem::Range { field, value: seconds.into(), min: 1, max: Timeouts::MAX.into() })
            }
        };
        let default = Timeouts::DEFAULT;
        Ok(Self {
            lost,
            icmp_errors_per_second: or(policy.icmp_errors_per_second, Self::DEFAULT.icmp_errors_per_second),
            timeouts: Timeouts {
                tcp_opening: seconds("tcp_opening", given.tcp_opening, default.tcp_opening)?,
                tcp_established: seconds("tcp_established", given.tcp_established, default.tcp_established)?,
                tcp_half_closed: seconds("tcp_half_closed", given.tcp_half_closed, default.tcp_half_closed)?,
                tcp_closed: seconds("tcp_closed", given.tcp_closed, default.tcp_closed)?,
                udp_unreplied: seconds("udp_unreplied", given.udp_unreplied, default.udp_unreplied)?,
                udp: seconds("udp", given.udp, default.udp)?,
                icmp: seconds("icmp", given.icmp, default.icmp)?,
                sctp: seconds("sctp", given.sctp, default.sctp)?,
            },
        })
    }
}

impl From<&FlowPolicy> for proto::FlowPolicy {
    fn from(policy: &FlowPolicy) -> Self {
        let lost = match policy.lost {
            LostConnections::Reset => proto::LostConnections::Reset,
            LostConnections::Drop => proto::LostConnections::Drop,
            LostConnections::Reselect => proto::LostConnections::Reselect,
        };
        let Timeouts {
            tcp_opening,
            tcp_established,
            tcp_half_closed,
            tcp_closed,
            udp_unreplied,
            udp,
            icmp,
            sctp,
        } = policy.timeouts;
        Self {
            lost_connections: lost.into(),
            icmp_errors_per_second: policy.icmp_errors_per_second,
            timeouts: Some(proto::FlowTimeouts {
                tcp_opening,
                tcp_established,
                tcp_half_closed,
                tcp_closed,
                udp_unreplied,
                udp,
                icmp,
                sctp,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_its_default() {
        assert_eq!(FlowPolicy::try_from(&proto::FlowPolicy::default()), Ok(FlowPolicy::DEFAULT));
        let given = proto::FlowPolicy {
            lost_connections: proto::LostConnections::Drop.into(),
            icmp_errors_per_second: 7,
            timeouts: Some(proto::FlowTimeouts { udp: 300, ..Default::default() }),
        };
        let policy = FlowPolicy::try_from(&given).unwrap();
        let timeouts = Timeouts { udp: 300, ..Timeouts::DEFAULT };
        let wanted = FlowPolicy { lost: LostConnections::Drop, icmp_errors_per_second: 7, timeouts };
        assert_eq!(policy, wanted);
        assert_eq!(FlowPolicy::try_from(&proto::FlowPolicy::from(&policy)), Ok(policy), "as it is shown");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |policy: proto::FlowPolicy| FlowPolicy::try_from(&policy).unwrap_err().to_string();
        let timeouts = Some(proto::FlowTimeouts { tcp_closed: 86_401, ..Default::default() });
        assert_eq!(
            refused(proto::FlowPolicy { timeouts, ..Default::default() }),
            "tcp_closed 86401: must be 1-86400"
        );
        let lost_connections = 4;
        assert_eq!(
            refused(proto::FlowPolicy { lost_connections, ..Default::default() }),
            "lost_connections 4: must be 0-3"
        );
    }
}
