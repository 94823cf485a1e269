//! The figures, for people and for programs.

use serde::Serialize;

use crate::columns::aligned;
use crate::report::{Machine, short};
use crate::stats::Spread;

/// Below so many keys the memory is that of a few hugepages, whatever is in them.
const MEASURABLE: usize = 100_000;

/// Figures of one table with one number of keys. Serialized, it is one element of what `-o json` prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub(crate) table: &'static str,
    /// Keys in the table: two for each connection.
    pub(crate) keys: usize,
    /// Keys that are looked up together.
    pub(crate) burst: usize,
    /// TSC cycles for each key that is there.
    pub(crate) hit: Spread,
    /// TSC cycles for each key that is not.
    pub(crate) miss: Spread,
    /// Million connections entered per second, both directions of each.
    pub(crate) inserts: f64,
    /// Bytes for each connection, both directions; none where there are too few to tell.
    pub(crate) bytes: Option<f64>,
}

impl Figure {
    /// Without the memory if that cannot be told from so few keys.
    pub(super) fn measurable(self) -> Self {
        Self { bytes: self.bytes.filter(|_| self.keys >= MEASURABLE), ..self }
    }
}

/// The table, with the machine above it.
pub(super) fn table(machine: &Machine, figures: &[Figure]) -> String {
    let heading = ["TABLE", "KEYS", "BURST", "HIT min/med/max", "MISS min/med/max", "INSERTS M/s", "BYTES"];
    let spread = |Spread { min, median, max }: Spread| format!("{min:.0} / {median:.0} / {max:.0}");
    let row = |figure: &Figure| {
        [
            figure.table.to_owned(),
            short(figure.keys),
            figure.burst.to_string(),
            spread(figure.hit),
            spread(figure.miss),
            format!("{:.1}", figure.inserts),
            figure.bytes.map_or_else(String::new, |bytes| format!("{bytes:.0}")),
        ]
    };
    let rows = [heading.map(str::to_owned)].into_iter().chain(figures.iter().map(row)).collect::<Vec<_>>();
    format!(
        "{}\n\n{}\nhit, miss: TSC cycles per key; inserts and bytes: of connections, both directions\n",
        machine.line(),
        aligned(&rows, &[0])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_only_where_it_can_be_told() {
        let spread = Spread { min: 1.0, median: 2.4, max: 3.0 };
        let figure = |keys| {
            let (hit, miss) = (spread, spread);
            Figure { table: "culvert", keys, burst: 64, hit, miss, inserts: 2.51, bytes: Some(128.2) }
                .measurable()
        };
        let machine = Machine { cpu: "CPU".into(), cpus: 2, hz: 2_000_000_000, dpdk: "DPDK 22.11".into() };
        let expected = "\
CPU, 2 CPUs, TSC 2.00 GHz, DPDK 22.11

TABLE    KEYS  BURST  HIT min/med/max  MISS min/med/max  INSERTS M/s  BYTES
culvert    1k     64        1 / 2 / 3         1 / 2 / 3          2.5
culvert    1M     64        1 / 2 / 3         1 / 2 / 3          2.5    128

hit, miss: TSC cycles per key; inserts and bytes: of connections, both directions
";
        assert_eq!(table(&machine, &[figure(1000), figure(1_000_000)]), expected);
    }
}
