//! Starting EAL: what is refused, and that it is refused before anything is touched.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::ExitCode;

use common::{Case, ordinary_pages, run};
use culvert_dpdk::{Eal, EalConfig, EalError, Hugepages, Iova, Pci, Vdev};

fn main() -> ExitCode {
    run(vec![
        Case::new("a_bad_configuration_is_refused_and_names_the_field", bad_configurations),
        Case::new("required_hugepages_that_are_not_there_are_refused_with_what_to_do", hugepages_missing),
        Case::new("a_refused_start_can_be_tried_again_and_a_second_start_is_refused", double_start),
    ])
}

fn refused(config: &EalConfig, field: &str) {
    let error = Eal::init(config).unwrap_err();
    assert!(matches!(&error, EalError::BadConfig { field: f, .. } if *f == field), "{field}: {error}");
    assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
}

fn bad_configurations() {
    let good = ordinary_pages();
    refused(&EalConfig { megabytes: 0, ..good.clone() }, "megabytes");
    refused(&EalConfig { megabytes: u32::MAX, ..good.clone() }, "megabytes");
    refused(&EalConfig { control_cpu: 1023, ..good.clone() }, "control_cpu");
    refused(&EalConfig { control_cpu: u32::MAX, ..good.clone() }, "control_cpu");
    for prefix in ["", "..", "a/b", "a b", "x\0", &"x".repeat(41)] {
        refused(&EalConfig { file_prefix: prefix.into(), ..good.clone() }, "file_prefix");
    }
    refused(&EalConfig { pci: Pci::Allow(vec![]), ..good.clone() }, "pci");
    refused(&EalConfig { pci: Pci::Allow(vec!["eth0".into()]), ..good.clone() }, "pci");
    refused(&EalConfig { iova: Iova::Physical, ..good.clone() }, "iova");
    let tap = Vdev::Tap { interface: "a,iface=eth0".into(), mac: None };
    refused(&EalConfig { vdevs: vec![tap], ..good }, "vdevs");
}

fn hugepages_missing() {
    let config = EalConfig { hugepages: Hugepages::Required, megabytes: 1 << 30, ..ordinary_pages() };
    let error = Eal::init(&config).unwrap_err();
    assert!(matches!(error, EalError::Hugepages(_)), "{error}");
    assert!(error.to_string().contains("preferred or off"), "{error}");
}

fn double_start() {
    // The refusals above count for nothing.
    let eal = Eal::init(&EalConfig {
        vdevs: vec![Vdev::Null { name: "early".into(), packet: 64 }],
        ..ordinary_pages()
    })
    .unwrap();
    assert!(!eal.hugepages());
    assert!(matches!(Eal::init(&ordinary_pages()), Err(EalError::AlreadyInitialised)));
    let early = culvert_dpdk::Port::open(&eal, "net_null_early").unwrap();
    assert_eq!(early.info().unwrap().driver, "net_null");
    drop(early);
    drop(eal);
    assert!(matches!(Eal::init(&ordinary_pages()), Err(EalError::AlreadyInitialised)));
}
