//! What each command shows: the agent's answer with addresses as text and field names that stay as they are.

pub(crate) mod explain;
pub(crate) mod flow;
pub(crate) mod nic;
pub(crate) mod port;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod top;

use std::net::{IpAddr, SocketAddr};

use culvert_api::fastpath::Protocol;

/// An address of 4 or 16 bytes as text; anything else, which the agent never sends, as hexadecimal.
fn address(bytes: &[u8]) -> String {
    ip(bytes).map_or_else(|| hex(bytes, ""), |ip| ip.to_string())
}

/// An address with a port, an IPv6 address in brackets.
fn endpoint(bytes: &[u8], port: u32) -> String {
    match (ip(bytes), u16::try_from(port)) {
        (Some(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{}:{port}", address(bytes)),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> String {
    hex(bytes, ":")
}

fn hex(bytes: &[u8], separator: &str) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(separator)
}

fn protocol(number: i32) -> &'static str {
    match Protocol::try_from(number) {
        Ok(Protocol::Tcp) => "TCP",
        Ok(Protocol::Udp) => "UDP",
        Ok(Protocol::Sctp) => "SCTP",
        Ok(Protocol::Icmp) => "ICMP",
        Ok(Protocol::Unspecified) | Err(_) => "?",
    }
}

/// `-` where there is nothing to show, so that no column looks forgotten.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A tenant by its number, which is its VNI; `-` for the cluster's own.
fn tenant(number: u32) -> String {
    if number == 0 { or_dash("") } else { number.to_string() }
}

fn on_off(flag: bool) -> String {
    if flag { "on" } else { "off" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_people_write_them() {
        assert_eq!(address(&[10, 1, 0, 7]), "10.1.0.7");
        assert_eq!(endpoint(&[10, 1, 0, 7], 80), "10.1.0.7:80");
        let mut six = [0; 16];
        (six[0], six[1], six[15]) = (0xfd, 0, 7);
        assert_eq!(endpoint(&six, 80), "[fd00::7]:80");
        assert_eq!(address(&[1, 2]), "0102");
        assert_eq!((tenant(0), tenant(5001)), ("-".to_owned(), "5001".to_owned()));
        assert_eq!(mac(&[2, 0, 0, 0, 0, 0x1f]), "02:00:00:00:00:1f");
    }
}
