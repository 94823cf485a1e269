//! A page with a bar for each figure, drawn as SVG: no script, nothing to fetch.

use std::fmt::Write;

use super::{Figure, Machine, short, table};
use crate::work::Goal;

const LEFT: f64 = 320.0;
const WIDTH: f64 = 480.0;
const ROW: f64 = 30.0;

/// The page.
pub(crate) fn html(machine: &Machine, figures: &[Figure]) -> String {
    let height = ROW * figures.len() as f64 + 40.0;
    let total = LEFT + WIDTH + 80.0;
    let mut bars = String::new();
    for (n, figure) in figures.iter().enumerate() {
        bar(&mut bars, ROW * n as f64 + 30.0, figure);
    }
    format!(
        r##"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>culvert-bench engine</title>
<style>body {{ font: 14px sans-serif; margin: 2em; max-width: 70em }} text {{ font-size: 13px }}</style></head>
<body>
<h1>The forwarding engine as a share of the machine's limit</h1>
<p>{machine}. The limit is what the machine receives and transmits of the same packets in the same run when it does
nothing else. Black mark: the least that is demanded; white mark: what is aimed at.</p>
<svg viewBox="0 0 {total} {height}" width="{total}" height="{height}" role="img" aria-label="Share of the limit">
<text x="{LEFT}" y="16">0</text><text x="{end}" y="16" text-anchor="end">1: nothing but receive and transmit</text>
{bars}</svg>
<pre>{table}</pre>
</body></html>
"##,
        machine = escape(&machine.line()),
        end = LEFT + WIDTH,
        table = escape(&table(machine, figures)),
    )
}

fn bar(to: &mut String, top: f64, figure: &Figure) {
    let colour = if figure.is_met() { "#2a7f62" } else { "#b3402a" };
    let label = format!("{:?} {}, {} flows", figure.work, figure.title(), short(figure.flows));
    let middle = top + 14.0;
    let length = WIDTH * figure.share_of_io.clamp(0.0, 1.0);
    let spread = format!(
        "{:.1} Mpps, {:.0} cycles a packet ({:.0} to {:.0})",
        figure.mpps.median, figure.cycles.median, figure.cycles.min, figure.cycles.max
    );
    // Writing to a string cannot fail.
    let _ = write!(
        to,
        r##"<g><title>{spread}</title><text x="{end}" y="{middle}" text-anchor="end">{label}</text>
<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="20" fill="#e4e4e4"/>
<rect x="{LEFT}" y="{top}" width="{length:.1}" height="20" fill="{colour}"/>
<text x="{after}" y="{middle}">{share:.2}</text>"##,
        label = escape(&label),
        end = LEFT - 10.0,
        after = LEFT + WIDTH + 10.0,
        share = figure.share_of_io,
    );
    if let Some(Goal::Share { must, aim }) = figure.goal() {
        for (at, colour) in [(must, "#000"), (aim, "#fff")] {
            let x = LEFT + WIDTH * at;
            let _ = write!(to, r##"<rect x="{x:.1}" y="{top}" width="2" height="20" fill="{colour}"/>"##);
        }
    }
    to.push_str("</g>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::figure;
    use super::*;
    use crate::work::Work;

    #[test]
    fn a_bar_is_as_long_as_the_share_and_red_when_missed() {
        let machine = Machine { cpu: "A<B".into(), cpus: 2, hz: 2_000_000_000, dpdk: "DPDK".into() };
        let page = html(
            &machine,
            &[figure(Work::W1, 1000, [40; 3], [80; 3]), figure(Work::W1, 1000, [10; 3], [80; 3])],
        );
        assert!(page.contains("A&lt;B") && !page.contains("A<B"));
        assert!(page.contains(r##"width="240.0" height="20" fill="#2a7f62""##), "{page}");
        assert!(page.contains(r##"width="60.0" height="20" fill="#b3402a""##), "{page}");
    }
}
