//! SR-IOV in the guest.

use super::Show;
use crate::ensure;
use crate::frame::Outcome;
use crate::guest::Guest;

/// Boots the guest and shows what is shown in it.
pub(super) fn show_in_guest(show: &mut Show) -> Outcome {
    show.heading("SR-IOV: booting a guest with two emulated Intel 82576 NICs");
    let program = std::env::current_exe()?.display().to_string();
    let command = [&program, "demo", "--inside", "sriov"].map(str::to_owned);
    let status = Guest::prepare()?.run(&command, |line| show.relay(line))?;
    ensure!(status == 0 || status == 1, "the guest's part ended with {status}");
    Ok(())
}

/// The guest's part.
pub(super) fn show(show: &mut Show) -> Outcome {
    show.heading("SR-IOV");
    Ok(())
}
