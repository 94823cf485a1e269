//! What the agent may do on this machine.

use std::fs;
use std::io;

/// The agent lacks something it cannot do without.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Its capabilities are not known.
    #[error("cannot read {STATUS}")]
    Read(#[source] io::Error),
    /// Some are missing.
    #[error("no permission: {} missing; run culvert-agent as root, in a container with these capabilities", .0.join(" and "))]
    Missing(Vec<&'static str>),
}

const STATUS: &str = "/proc/self/status";

/// Interfaces, addresses and routes; and entering the namespaces of pods. Bits of `linux/capability.h`.
const NEEDED: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Makes sure that the agent has the capabilities it needs.
pub fn check() -> Result<(), PrivilegeError> {
    let missing = missing(&fs::read_to_string(STATUS).map_err(PrivilegeError::Read)?);
    if missing.is_empty() { Ok(()) } else { Err(PrivilegeError::Missing(missing)) }
}

/// The needed capabilities that are not in the effective set of proc(5)'s `status`.
fn missing(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_effective_set_is_missing() {
        let status =
            |caps: &str| format!("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{caps}\nSeccomp:\t0\n");
        assert!(missing(&status("000001ffffffffff")).is_empty());
        assert_eq!(missing(&status("0000000000001000")), ["CAP_SYS_ADMIN"]);
        assert_eq!(missing(&status("0000000000000000")), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(missing(""), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    }
}
