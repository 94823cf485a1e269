#![no_main]
#![allow(dead_code)]

#[path = "../../dpdk-fastpath/engine/tests/reference/engine.rs"]
mod engine;
#[path = "../../dpdk-fastpath/engine/tests/reference/harness.rs"]
mod harness;
#[path = "../../dpdk-fastpath/engine/tests/reference/model/mod.rs"]
mod model;
#[path = "../../dpdk-fastpath/engine/tests/reference/story.rs"]
mod story;
#[path = "../../dpdk-fastpath/engine/tests/reference/targets.rs"]
mod targets;
#[path = "../../dpdk-fastpath/engine/tests/reference/wire/mod.rs"]
mod wire;
#[path = "../../dpdk-fastpath/engine/tests/reference/world/mod.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::pipeline(bytes));
