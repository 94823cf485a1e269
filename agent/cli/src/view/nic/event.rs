//! `nic watch`, and what `nic show` knows of the past.

use std::time::{Duration, UNIX_EPOCH};

use culvert_api::agent::NicEvent;
use serde::Serialize;

use crate::output::Mood;

/// An event as JSON has it, on one line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventView {
    pub(super) time: String,
    pub(super) kind: String,
    pub(super) state: String,
    pf: Option<String>,
    index: Option<u32>,
    vf: Option<String>,
    pool: Option<String>,
    pod: Option<String>,
    container: Option<String>,
    interface: Option<String>,
    reason: Option<String>,
    seconds: Option<f64>,
    pub(super) text: String,
}

impl From<NicEvent> for EventView {
    fn from(event: NicEvent) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let at = UNIX_EPOCH.checked_add(Duration::from_millis(event.unix_milliseconds));
        Self {
            time: humantime::format_rfc3339_millis(at.unwrap_or(UNIX_EPOCH)).to_string(),
            kind: event.kind,
            state: event.state,
            pf: some(event.pf),
            index: event.index,
            vf: some(event.vf),
            pool: some(event.pool),
            pod: some(event.pod),
            container: some(event.container),
            interface: some(event.interface),
            reason: some(event.reason),
            seconds: event.seconds,
            text: event.text,
        }
    }
}

impl EventView {
    /// What it is about: `vf 3 of 0000:03:00.0`, an address, or nothing.
    pub(super) fn object(&self) -> String {
        match (self.index, &self.pf, &self.vf) {
            (Some(index), Some(pf), _) => format!("vf {index} of {pf}"),
            (_, _, Some(vf)) => vf.clone(),
            (_, Some(pf), None) => pf.clone(),
            (_, None, None) => String::new(),
        }
    }

    /// Whether it is good or bad news.
    pub(super) fn mood(&self) -> Mood {
        match self.state.as_str() {
            "done" | "healthy" | "up" => Mood::Good,
            "refused" | "failed" | "unhealthy" | "gone" | "no carrier" | "down" => Mood::Bad,
            _ => Mood::Plain,
        }
    }
}

/// An event on one line, for people, in parts: when, what became of it, and the rest. A log's columns need not fit the
/// longest of a future that nobody knows.
pub(crate) fn line(event: &EventView) -> (String, Mood, String, String) {
    let what = format!("{} {}", event.kind, event.state);
    let object = event.object();
    let rest = if object.is_empty() { event.text.clone() } else { format!("{object}: {}", event.text) };
    (event.time.clone(), event.mood(), format!("{:<16}", what.trim_end()), rest)
}
