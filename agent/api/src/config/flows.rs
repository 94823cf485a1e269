//! How the fast path treats connections.

use serde::Deserialize;

use super::ConfigError;
use crate::fastpath;

/// What a TCP segment or SCTP packet gets whose connection the fast path does not know, or whose endpoint is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LostConnections {
    /// A reset or an ABORT, so that the client can try again at once.
    #[default]
    Reset,
    /// Nothing: the client finds out by its own timeouts.
    Drop,
    /// Another endpoint, which may know the connection or else refuses it.
    Reselect,
}

/// Who answers a ping to a Service's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServicePing {
    /// The fast path, as long as the Service is there.
    #[default]
    Node,
    /// One of its endpoints.
    Endpoint,
}

/// How the fast path treats connections. What is absent has the fast path's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Flows {
    /// What becomes of connections that are lost.
    pub lost_connections: LostConnections,
    /// Who answers pings.
    pub service_ping: ServicePing,
    /// ICMP errors of its own that each worker sends to one port in a second, at most.
    pub icmp_errors_per_second: Option<u32>,
    /// How long connections may be silent.
    pub timeout_seconds: TimeoutSeconds,
}

/// Seconds of silence after which connections are forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TimeoutSeconds {
    /// TCP until the handshake is complete.
    pub tcp_opening: Option<u32>,
    /// TCP with data to come from both sides.
    pub tcp_established: Option<u32>,
    /// TCP with a FIN from one side.
    pub tcp_half_closed: Option<u32>,
    /// TCP with a FIN from both sides, or a reset.
    pub tcp_closed: Option<u32>,
    /// UDP before the first reply.
    pub udp_unreplied: Option<u32>,
    /// UDP with replies.
    pub udp: Option<u32>,
    /// ICMP echo.
    pub icmp: Option<u32>,
    /// SCTP associations.
    pub sctp: Option<u32>,
}

impl Flows {
    /// Longest timeout: the fast path's clock for flows turns over after 36 hours.
    pub const MAX_TIMEOUT: u32 = 86_400;
    /// Most `icmpErrorsPerSecond`.
    pub const MAX_ICMP_ERRORS: u32 = 1_000_000;

    pub(super) fn validate(self) -> Result<Self, ConfigError> {
        let TimeoutSeconds {
            tcp_opening,
            tcp_established,
            tcp_half_closed,
            tcp_closed,
            udp_unreplied,
            udp,
            icmp,
            sctp,
        } = self.timeout_seconds;
        let in_range = |key: &str, value: Option<u32>, max: u32| match value {
            Some(value) if !(1..=max).contains(&value) => {
                Err(ConfigError::value(format!("overlay.flows.{key}"), value, format!("must be 1-{max}")))
            }
            _ => Ok(()),
        };
        in_range("icmpErrorsPerSecond", self.icmp_errors_per_second, Self::MAX_ICMP_ERRORS)?;
        for (key, value) in [
            ("tcpOpening", tcp_opening),
            ("tcpEstablished", tcp_established),
            ("tcpHalfClosed", tcp_half_closed),
            ("tcpClosed", tcp_closed),
            ("udpUnreplied", udp_unreplied),
            ("udp", udp),
            ("icmp", icmp),
            ("sctp", sctp),
        ] {
            in_range(&format!("timeoutSeconds.{key}"), value, Self::MAX_TIMEOUT)?;
        }
        Ok(self)
    }
}

impl From<&Flows> for fastpath::FlowPolicy {
    fn from(flows: &Flows) -> Self {
        let lost = match flows.lost_connections {
            LostConnections::Reset => fastpath::LostConnections::Reset,
            LostConnections::Drop => fastpath::LostConnections::Drop,
            LostConnections::Reselect => fastpath::LostConnections::Reselect,
        };
        let seconds = &flows.timeout_seconds;
        Self {
            lost_connections: lost.into(),
            icmp_errors_per_second: flows.icmp_errors_per_second.unwrap_or_default(),
            timeouts: Some(fastpath::FlowTimeouts {
                tcp_opening: seconds.tcp_opening.unwrap_or_default(),
                tcp_established: seconds.tcp_established.unwrap_or_default(),
                tcp_half_closed: seconds.tcp_half_closed.unwrap_or_default(),
                tcp_closed: seconds.tcp_closed.unwrap_or_default(),
                udp_unreplied: seconds.udp_unreplied.unwrap_or_default(),
                udp: seconds.udp.unwrap_or_default(),
                icmp: seconds.icmp.unwrap_or_default(),
                sctp: seconds.sctp.unwrap_or_default(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::agent::AgentConfig;

    fn flows(text: &str) -> Result<Flows, ConfigError> {
        AgentConfig::from_yaml(&format!("overlay: {{ flows: {{ {text} }} }}")).map(|c| c.overlay.flows)
    }

    #[test]
    fn what_is_given_reaches_the_fast_path_and_the_rest_is_left_to_it() {
        let given = flows("lostConnections: drop, timeoutSeconds: { udp: 300, tcpClosed: 10 }").unwrap();
        let policy = fastpath::FlowPolicy::from(&given);
        assert_eq!(policy.lost_connections(), fastpath::LostConnections::Drop);
        assert_eq!(policy.icmp_errors_per_second, 0);
        let timeouts = fastpath::FlowTimeouts { udp: 300, tcp_closed: 10, ..Default::default() };
        assert_eq!(policy.timeouts, Some(timeouts));
        assert_eq!(flows("").unwrap(), Flows::default());
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_key() {
        for (text, message) in [
            ("timeoutSeconds: { udp: 0 }", "overlay.flows.timeoutSeconds.udp 0: must be 1-86400"),
            (
                "timeoutSeconds: { tcpEstablished: 86401 }",
                "overlay.flows.timeoutSeconds.tcpEstablished 86401: must be 1-86400",
            ),
            ("icmpErrorsPerSecond: 0", "overlay.flows.icmpErrorsPerSecond 0: must be 1-1000000"),
        ] {
            assert_eq!(flows(text).unwrap_err().to_string(), message);
        }
        for text in
            ["servicePing: nobody", "lostConnections: keep", "timeoutSeconds: { tcp: 1 }", "timeout: 3"]
        {
            assert!(matches!(flows(text), Err(ConfigError::Yaml(_))), "{text}");
        }
    }
}
