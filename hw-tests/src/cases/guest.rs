//! The guest itself.

use crate::ensure;
use crate::frame::{Case, Context, Outcome, Place::Guest};

pub(super) const CASES: &[Case] = &[Case { name: "the_guest_has_two_pfs", place: Guest, run: two_pfs }];

fn two_pfs(_: &Context) -> Outcome {
    let mut pfs = 0;
    for entry in std::fs::read_dir("/sys/class/net")?.flatten() {
        pfs += usize::from(entry.path().join("device/sriov_totalvfs").exists());
    }
    ensure!(pfs == 2, "found {pfs} PFs");
    Ok(())
}
