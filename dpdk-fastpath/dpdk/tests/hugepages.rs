//! Starting with hugepages, anonymous ones: no hugetlbfs mount is needed.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::ExitCode;

use common::{Case, pool, run};
use culvert_dpdk::{Eal, EalConfig, Hugepages};

const PAGES: &str = "/proc/sys/vm/nr_hugepages";

fn main() -> ExitCode {
    run(vec![Case::root("a_pool_lies_in_hugepages_and_all_are_given_back_at_the_end", hugepages)])
}

/// More hugepages, while this lives.
struct Reserved(u64);

impl Reserved {
    fn more(pages: u64) -> Self {
        fs::write(PAGES, (reserved() + pages).to_string()).unwrap();
        Self(pages)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Somebody else may have changed the number meanwhile: take back only what this added.
        let _ = fs::write(PAGES, reserved().saturating_sub(self.0).to_string());
    }
}

fn reserved() -> u64 {
    fs::read_to_string(PAGES).unwrap().trim().parse().unwrap()
}

fn free_pages() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:")).unwrap();
    line.trim().parse().unwrap()
}

fn hugepages() {
    let _reserved = Reserved::more(64);
    let free = free_pages();
    let config = EalConfig { hugepages: Hugepages::Required, megabytes: 64, ..EalConfig::default() };
    let eal = Eal::init(&config).unwrap();
    assert!(eal.hugepages());
    assert!(eal.fallback().is_none());
    assert!(free_pages() + 32 <= free, "32 pages of {free} must be taken, {} are free", free_pages());
    let pool = pool(&eal, "in-hugepages", 16383);
    assert_eq!(pool.available(), 16383);
    drop(pool);
    drop(eal);
}
