//! What only a card's driver and its slot tell: the mode of its switch, its serial number, errors.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use culvert_api::value::PciAddress;
use culvert_host::HostRoot;
use culvert_host::devlink::{Devlink, EswitchMode};
use culvert_host::health::{HealthHints, health_hints};
use tracing::warn;

use super::observe::Observed;
use crate::errors::chain;

/// How long a PF that had a PCI Express error counts as ill: nobody tells when it has recovered.
const CONVALESCENCE: Duration = Duration::from_secs(60);

/// Asks the cards, and remembers their errors.
#[derive(Default)]
pub(super) struct Cards {
    devlink: Option<Devlink>,
    known: Mutex<BTreeMap<PciAddress, Known>>,
}

/// What is known of a PF.
#[derive(Debug, Clone)]
struct Known {
    hints: HealthHints,
    /// The last error, and when it was seen.
    error: Option<(String, Instant)>,
}

impl Cards {
    /// Connects to devlink, where there is one.
    pub(super) async fn open() -> Self {
        let devlink = Devlink::open().await.unwrap_or_else(|e| {
            warn!("no news of cards by devlink: {}", chain(&e));
            None
        });
        Self { devlink, ..Self::default() }
    }

    /// Adds to `observed` what its cards tell. What they do not tell is left out: it is for show and for health, and
    /// must not be in the way of anything.
    pub(super) async fn look(&self, root: &HostRoot, observed: &mut Observed) {
        if let Some(devlink) = self.devlink.as_ref().filter(|_| root.is_real()) {
            for pf in &mut observed.pfs {
                let device = pf.pf.pci.address.into();
                pf.eswitch = told(devlink.eswitch_mode(&device).await);
                if pf.pf.serial.is_none() {
                    pf.pf.serial = told(devlink.serial(&device).await);
                }
            }
        }
        let addresses: Vec<PciAddress> = observed.pfs.iter().map(|pf| pf.pf.pci.address).collect();
        let devlink = self.devlink.as_ref().filter(|_| root.is_real());
        match health_hints(root, devlink, &addresses).await {
            Ok(hints) => {
                for (pf, hints) in observed.pfs.iter_mut().zip(hints) {
                    pf.error = self.error(pf.pf.pci.address, hints, Instant::now());
                }
            }
            Err(e) => warn!("the health of cards is not known: {}", chain(&e)),
        }
    }

    /// What is wrong with a PF: errors since the agent began to look.
    fn error(&self, pf: PciAddress, hints: HealthHints, now: Instant) -> Option<String> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(pf).or_insert_with(|| Known { hints: hints.clone(), error: None });
        if let Some(error) = hints.problem(&known.hints) {
            known.error = Some((error, now));
        } else if !known.hints.failed_reporters.is_empty() {
            // A driver tells when it has recovered.
            known.error = None;
        }
        known.hints = hints;
        known.error.take_if(|(_, seen)| now.duration_since(*seen) > CONVALESCENCE);
        known.error.as_ref().map(|(error, _)| error.clone())
    }
}

/// What a card told, if it did.
fn told<T>(answer: Result<Option<T>, culvert_host::netlink::NetlinkError>) -> Option<T> {
    answer.unwrap_or_else(|e| {
        warn!("{}", chain(&e));
        None
    })
}

impl fmt::Debug for Cards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cards").finish_non_exhaustive()
    }
}

/// In a word, for a list; empty for a card without a switch.
pub(super) fn eswitch_word(mode: Option<EswitchMode>) -> String {
    mode.map(|mode| mode.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(fatal: u64, reporters: &[&str]) -> HealthHints {
        let failed_reporters = reporters.iter().map(|name| (*name).to_owned()).collect();
        HealthHints { aer_fatal: Some(fatal), aer_nonfatal: Some(7), failed_reporters }
    }

    #[test]
    fn an_error_of_the_slot_counts_for_a_minute_and_one_from_before_does_not_count() {
        let (cards, pf) = (Cards::default(), "0000:03:00.0".parse().unwrap());
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(cards.error(pf, hints(3, &[]), start), None);
        let error = Some("1 fatal PCI Express errors".to_owned());
        assert_eq!(cards.error(pf, hints(4, &[]), at(10)), error);
        assert_eq!(cards.error(pf, hints(4, &[]), at(60)), error);
        assert_eq!(cards.error(pf, hints(4, &[]), at(71)), None);
        let other = "0000:04:00.0".parse().unwrap();
        assert_eq!(cards.error(other, hints(9, &[]), at(71)), None);
    }

    #[test]
    fn an_error_that_a_driver_reports_counts_until_the_driver_says_it_is_over() {
        let (cards, pf) = (Cards::default(), "0000:03:00.0".parse().unwrap());
        let now = Instant::now();
        let error = Some("its driver reports an error: fw_fatal".to_owned());
        assert_eq!(cards.error(pf, hints(0, &["fw_fatal"]), now), error, "also one from before");
        assert_eq!(cards.error(pf, hints(0, &["fw_fatal"]), now + 2 * CONVALESCENCE), error);
        assert_eq!(cards.error(pf, hints(0, &[]), now + 2 * CONVALESCENCE), None);
    }
}
