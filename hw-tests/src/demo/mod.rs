//! The same topologies, shown to people.

mod fastpath;
mod show;
mod sriov;

use clap::ValueEnum;

pub use show::Show;

/// A half of Culvert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Half {
    /// The DPDK fast path: overlay and Services.
    Fastpath,
    /// SR-IOV: VFs for pods.
    Sriov,
}

/// Shows the halves, one after the other, and ends with a table of what was shown. `inside` says that this machine is
/// the guest, whose results go to the machine that booted it.
pub fn run(halves: &[Half], inside: bool) -> bool {
    let mut show = Show::new(inside);
    for half in halves {
        let shown = match half {
            Half::Fastpath => fastpath::show(&mut show),
            Half::Sriov if inside => sriov::show(&mut show),
            Half::Sriov => sriov::show_in_guest(&mut show),
        };
        if let Err(stop) = shown {
            show.fail("the demonstration goes on", stop.text());
        }
    }
    show.end()
}
