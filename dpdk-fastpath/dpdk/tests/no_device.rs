//! A device that cannot be made at start; in a program of its own, since EAL starts only once.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::ExitCode;

use common::{Case, ordinary_pages, run};
use culvert_dpdk::{Eal, EalConfig, EalError, Vdev};

fn main() -> ExitCode {
    run(vec![Case::new("a_device_that_cannot_be_made_at_start_is_an_error_with_dpdks_reason", no_device)])
}

fn no_device() {
    let missing = Vdev::Pcap { name: "p".into(), receive: Some("/nonexistent".into()), transmit: None };
    let config = EalConfig { vdevs: vec![missing], ..ordinary_pages() };
    let error = Eal::init(&config).unwrap_err();
    assert!(matches!(&error, EalError::Device { device, .. } if device == "net_pcap_p"), "{error}");
    assert!(error.to_string().contains("No such file"), "{error}");
}
