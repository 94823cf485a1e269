//! Ping, as an argument of its own for each thing a case may want.

use std::net::IpAddr;

use super::Netns;
use super::process::run;
use crate::frame::{Outcome, Stop};

/// A ping that is about to be sent.
#[derive(Debug, Clone)]
pub struct Ping {
    to: IpAddr,
    options: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Pong {
    /// Requests sent, and replies that came back.
    pub sent: u32,
    /// Replies that came back.
    pub received: u32,
    /// What ping printed: ICMP errors stand here.
    pub text: String,
}

impl Ping {
    /// Three requests in quick succession, 56 bytes of data each.
    pub fn to(address: impl Into<IpAddr>) -> Self {
        let options = ["-n", "-c3", "-i0.1", "-W1"].map(str::to_owned).to_vec();
        Self { to: address.into(), options }
    }

    /// Makes the whole IP packet `len` bytes long and forbids to fragment it.
    #[must_use]
    pub fn unfragmented(self, len: u16) -> Self {
        // Behind the IP header comes that of the echo, 8 bytes.
        let header = if self.to.is_ipv4() { 28 } else { 48 };
        self.option(format!("-s{}", len.saturating_sub(header))).option("-Mdo")
    }

    /// Sends it from an address that is not that of the interface.
    #[must_use]
    pub fn source(self, address: &str) -> Self {
        self.option(format!("-I{address}"))
    }

    /// Lets the packet live for `hops` hops.
    #[must_use]
    pub fn hops(self, hops: u8) -> Self {
        self.option(format!("-t{hops}"))
    }

    fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// When ping cannot be run at all; no reply is no error.
    pub fn from(&self, netns: &Netns) -> Outcome<Pong> {
        let done = run(netns.command("ping").args(&self.options).arg(self.to.to_string()))?;
        let text = format!("{}{}", done.stdout, done.stderr);
        let (sent, received) =
            counts(&text).ok_or_else(|| Stop::fail(format!("{}: {text}", done.command)))?;
        Ok(Pong { sent, received, text })
    }

    /// Sends it and wants every reply.
    pub fn answered(&self, netns: &Netns) -> Outcome {
        let pong = self.from(netns)?;
        if pong.received == pong.sent {
            return Ok(());
        }
        Err(Stop::fail(format!(
            "ping {} from {}: {} of {} replies\n{}",
            self.to,
            netns.name(),
            pong.received,
            pong.sent,
            pong.text
        )))
    }

    /// Sends it and wants no reply at all.
    pub fn unanswered(&self, netns: &Netns) -> Outcome<Pong> {
        let pong = self.from(netns)?;
        if pong.received == 0 {
            return Ok(pong);
        }
        Err(Stop::fail(format!("ping {} from {}: was answered\n{}", self.to, netns.name(), pong.text)))
    }
}

/// "3 packets transmitted, 2 received".
fn counts(text: &str) -> Option<(u32, u32)> {
    let line = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut parts = line.split(", ").map(|part| part.split_whitespace().next().and_then(|n| n.parse().ok()));
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn replies_are_counted_whether_or_not_there_were_errors() {
        assert_eq!(counts("3 packets transmitted, 3 received, 0% packet loss, time 402ms"), Some((3, 3)));
        assert_eq!(counts("x\n3 packets transmitted, 0 received, +3 errors, 100% packet loss"), Some((3, 0)));
        assert_eq!(counts("ping: unknown host"), None);
    }
}
