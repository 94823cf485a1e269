//! The state of the agent's parts, for `culvert status`, `/readyz` and the log.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_api::agent::Subsystem;
use tracing::{error, info, warn};

/// State of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not configured.
    Off,
    /// Not done with its first round.
    Starting,
    /// Does its work.
    Ok,
    /// Does its work but for what the detail says.
    Degraded,
    /// Does not do its work.
    Failed,
}

impl State {
    /// The state as the protocol and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All parts, in the order they were named.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    name: &'static str,
    state: State,
    detail: String,
}

/// One part's own line.
#[derive(Debug, Clone)]
pub struct Reporter {
    health: Health,
    name: &'static str,
}

impl Health {
    /// A line for the part called `name`, [`State::Off`] until it says otherwise.
    pub fn part(&self, name: &'static str) -> Reporter {
        self.entries().push(Entry { name, state: State::Off, detail: String::new() });
        Reporter { health: self.clone(), name }
    }

    /// All lines, for the protocol.
    pub fn subsystems(&self) -> Vec<Subsystem> {
        let line = |e: &Entry| Subsystem {
            name: e.name.to_owned(),
            state: e.state.as_str().to_owned(),
            detail: e.detail.clone(),
        };
        self.entries().iter().map(line).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Sets state and detail, and logs them when the state, or the detail of a bad one, is new.
    pub fn set(&self, state: State, detail: impl Into<String>) {
        let detail = detail.into();
        let part = self.name;
        let mut entries = self.health.entries();
        let Some(entry) = entries.iter_mut().find(|e| e.name == part) else { return };
        let same =
            entry.state == state && (entry.detail == detail || matches!(state, State::Ok | State::Off));
        if !same {
            match state {
                State::Failed => error!(part, "failed: {detail}"),
                State::Degraded => warn!(part, "degraded: {detail}"),
                State::Off | State::Starting | State::Ok if detail.is_empty() => info!(part, "{state}"),
                State::Off | State::Starting | State::Ok => info!(part, "{state}: {detail}"),
            }
        }
        entry.state = state;
        entry.detail = detail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_listed_in_the_order_they_were_named_with_their_last_word() {
        let health = Health::default();
        let first = health.part("z");
        health.part("a");
        first.set(State::Degraded, "slow");
        first.set(State::Failed, "gone");
        let lines: Vec<_> = health.subsystems().into_iter().map(|s| (s.name, s.state, s.detail)).collect();
        let line =
            |name: &str, state: &str, detail: &str| (name.to_owned(), state.to_owned(), detail.to_owned());
        assert_eq!(lines, [line("z", "failed", "gone"), line("a", "off", "")]);
    }
}
