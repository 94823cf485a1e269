#![no_main]

#[path = "../../dpdk-fastpath/packet/tests/untrusted/targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::frame(bytes));
