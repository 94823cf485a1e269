//! What was measured of both sides, and what is demanded.

use serde::{Serialize, Serializer};

use crate::columns::aligned;
use crate::stats::Spread;

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Better {
    Higher,
    Lower,
}

/// One figure. Serialized, it is one element of what `-o json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Figure {
    pub(super) case: &'static str,
    /// Median of ours.
    #[serde(serialize_with = "median")]
    pub(super) ours: Spread,
    /// Median of the kernel's; nothing where only ours is measured.
    #[serde(serialize_with = "median_if_any")]
    pub(super) kernel: Option<Spread>,
    /// Median of the ratios of runs that followed each other, ours to the kernel's.
    pub(super) ratio: Option<f64>,
    /// What the ratio must reach, or, where there is no kernel's, the value.
    pub(super) must: f64,
    pub(super) better: Better,
    pub(super) unit: &'static str,
}

fn median<S: Serializer>(spread: &Spread, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(spread.median)
}

fn median_if_any<S: Serializer>(spread: &Option<Spread>, to: S) -> Result<S::Ok, S::Error> {
    spread.map(|spread| spread.median).serialize(to)
}

impl Figure {
    /// Of pairs of runs, ours first.
    pub(super) fn of_pairs(
        case: &'static str,
        unit: &'static str,
        better: Better,
        must: f64,
        pairs: &[(f64, f64)],
    ) -> Self {
        Self {
            case,
            ours: Spread::of(pairs.iter().map(|pair| pair.0)),
            kernel: Some(Spread::of(pairs.iter().map(|pair| pair.1))),
            ratio: Some(Spread::of(pairs.iter().map(|(ours, kernel)| ours / kernel)).median),
            must,
            better,
            unit,
        }
    }

    /// Of ours alone.
    pub(super) fn of_ours(
        case: &'static str,
        unit: &'static str,
        better: Better,
        must: f64,
        runs: &[f64],
    ) -> Self {
        let ours = Spread::of(runs.iter().copied());
        Self { case, ours, kernel: None, ratio: None, must, better, unit }
    }

    /// Whether what is demanded was reached.
    pub(super) fn is_met(&self) -> bool {
        let reached = self.ratio.unwrap_or(self.ours.median);
        match self.better {
            Better::Higher => reached >= self.must,
            Better::Lower => reached <= self.must,
        }
    }
}

/// An aligned table, with what was missed below.
pub(super) fn table(figures: &[Figure]) -> String {
    let mut rows = vec![
        ["CASE", "OURS", "MIN / MAX", "KERNEL", "MIN / MAX", "UNIT", "RATIO", "MUST"].map(str::to_owned),
    ];
    let number = |value: f64| match value {
        _ if value < 10.0 => format!("{value:.2}"),
        _ if value < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    let ends = |spread: Spread| format!("{} / {}", number(spread.min), number(spread.max));
    rows.extend(figures.iter().map(|figure| {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let sign = if figure.better == Better::Higher { ">=" } else { "<=" };
        [
            figure.case.to_owned(),
            number(figure.ours.median),
            ends(figure.ours),
            or_none(figure.kernel.map(|kernel| number(kernel.median))),
            or_none(figure.kernel.map(ends)),
            figure.unit.to_owned(),
            or_none(figure.ratio.map(|ratio| format!("{ratio:.2}"))),
            format!("{sign} {}", figure.must),
        ]
    }));
    let mut text = aligned(&rows, &[0, 5]);
    for missed in figures.iter().filter(|figure| !figure.is_met()) {
        text += &format!("missed: {}\n", missed.case);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_neighbouring_runs_and_misses_are_named() {
        let fast =
            Figure::of_pairs("fast", "Gbit/s", Better::Higher, 1.0, &[(8.0, 4.0), (9.0, 3.0), (6.0, 6.0)]);
        assert_eq!(fast.ratio, Some(2.0));
        let slow = Figure::of_pairs("slow", "us", Better::Lower, 1.3, &[(30.0, 20.0)]);
        let idle = Figure::of_ours("idle", "% of a CPU", Better::Lower, 2.0, &[0.5]);
        assert!(fast.is_met() && !slow.is_met() && idle.is_met());
        let text = table(&[fast, slow, idle]);
        assert!(text.ends_with("missed: slow\n"), "{text}");
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn json_has_the_fields_that_programs_expect() {
        let figure = Figure::of_pairs("fast", "Gbit/s", Better::Higher, 1.0, &[(8.0, 4.0)]);
        let expected = serde_json::json!([{
            "case": "fast", "ours": 8.0, "kernel": 4.0, "ratio": 2.0, "must": 1.0, "better": "higher", "unit": "Gbit/s"
        }]);
        assert_eq!(serde_json::to_value([figure]).unwrap(), expected);
    }
}
