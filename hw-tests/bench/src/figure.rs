//! What was measured, beside the peer's figure and what is demanded.

use serde::Serialize;

use crate::columns::aligned;
use crate::stats::Spread;

/// One figure. Serialized, it is one element of what `-o json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) case: &'static str,
    /// Median of the runs.
    pub(crate) value: f64,
    /// Of value, peer and must.
    pub(crate) unit: &'static str,
    /// The least that was measured of the peer; nothing if it cannot do it.
    pub(crate) peer: Option<f64>,
    /// The value must be below, if anything is demanded.
    pub(crate) must: Option<f64>,
    /// What it should be below, if that is more.
    pub(crate) aim: Option<f64>,
    /// Least and most.
    #[serde(skip)]
    pub(crate) spread: Spread,
}

impl Figure {
    /// Of several runs.
    pub(crate) fn of(case: &'static str, unit: &'static str, runs: impl IntoIterator<Item = f64>) -> Self {
        let spread = Spread::of(runs);
        Self { case, value: spread.median, unit, peer: None, must: None, aim: None, spread }
    }

    /// The least that was measured of the peer.
    pub(crate) fn peer(self, peer: f64) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// What the value must stay below.
    pub(crate) fn must(self, must: f64) -> Self {
        Self { must: Some(must), ..self }
    }

    /// What the value should stay below, beyond what it must.
    pub(crate) fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }

    /// Whether what is demanded was reached, if anything is.
    pub(crate) fn is_met(&self) -> bool {
        self.must.is_none_or(|must| self.value < must)
    }
}

/// An aligned table, with what was missed below.
pub(crate) fn table(heading: &str, figures: &[Figure]) -> String {
    let mut rows =
        vec![["CASE", "MEDIAN", "LEAST", "MOST", "UNIT", "PEER", "MUST", "AIM"].map(str::to_owned)];
    let number = |value: f64| if value < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") };
    let short = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value}"));
    let below = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("< {value}"));
    rows.extend(figures.iter().map(|figure| {
        let Spread { min, median, max } = figure.spread;
        [
            figure.case.to_owned(),
            number(median),
            number(min),
            number(max),
            figure.unit.to_owned(),
            short(figure.peer),
            below(figure.must),
            below(figure.aim),
        ]
    }));
    let mut text = format!("{heading}\n\n{}", aligned(&rows, &[0, 4]));
    for missed in figures.iter().filter(|figure| !figure.is_met()) {
        text += &format!("missed: {}\n", missed.case);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_what_was_missed_is_named() {
        let figures = [
            Figure::of("first list", "ms", [31.0, 29.0, 50.0]).peer(4300.0).must(100.0),
            Figure::of("Allocate", "ms", [0.25]).must(0.2).aim(0.1),
            Figure::of("VERSION", "ms", [1.0]),
        ];
        let expected = "\
512 VFs of one PF, 3 runs

CASE        MEDIAN  LEAST   MOST  UNIT  PEER   MUST    AIM
first list    31.0   29.0   50.0  ms    4300  < 100      -
Allocate     0.250  0.250  0.250  ms       -  < 0.2  < 0.1
VERSION      1.000  1.000  1.000  ms       -      -      -
missed: Allocate
";
        assert_eq!(table("512 VFs of one PF, 3 runs", &figures), expected);
    }

    #[test]
    fn json_has_the_fields_that_programs_expect() {
        let figure = Figure::of("first list", "ms", [31.0]).must(100.0);
        let expected = serde_json::json!([
            { "case": "first list", "value": 31.0, "unit": "ms", "peer": null, "must": 100.0, "aim": null }
        ]);
        assert_eq!(serde_json::to_value([figure]).unwrap(), expected);
    }
}
