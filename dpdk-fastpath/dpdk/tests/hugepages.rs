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

/// Reserves hugepages; puts the number back at the end, so that a test leaves the machine as it was.
struct Reserved(String);

impl Reserved {
    fn at_least(pages: u64) -> Self {
        let before = fs::read_to_string(PAGES).unwrap();
        let wanted = before.trim().parse::<u64>().unwrap() + pages;
        fs::write(PAGES, wanted.to_string()).unwrap();
        Self(before)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _ = fs::write(PAGES, self.0.trim());
    }
}

fn free_pages() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("HugePages_Free:")).unwrap();
    line.trim().parse().unwrap()
}

fn hugepages() {
    let _reserved = Reserved::at_least(64);
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
