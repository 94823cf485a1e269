//! Functions of a PF, as a selector names them: `ens1f0#0-3,5`.

use std::ops::RangeInclusive;

/// A PF, by name or PCI address, and which of its functions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Functions {
    /// The PF as written, in lower case.
    pub pf: String,
    /// Which of its functions.
    pub which: Which,
}

/// Which functions of a PF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All, the PF itself among them while it has no VFs.
    All,
    /// VFs with these indices.
    Vfs(Vec<RangeInclusive<u32>>),
    /// The text makes no sense; the peer offers nothing then, and so does Culvert.
    None,
}

impl Functions {
    /// Reads a selector's item, and says what is wrong with it.
    pub(super) fn parse(text: &str) -> (Self, Option<String>) {
        let Some((pf, list)) = text.split_once('#') else {
            return (Self { pf: text.to_ascii_lowercase(), which: Which::All }, None);
        };
        let (which, problem) = match ranges(list) {
            Ok(ranges) => (Which::Vfs(ranges), None),
            Err(problem) => (Which::None, Some(problem)),
        };
        (Self { pf: pf.to_ascii_lowercase(), which }, problem)
    }

    /// Whether a function of this PF is meant; `vf` is `None` for the PF itself.
    pub fn contains(&self, vf: Option<u32>) -> bool {
        match (&self.which, vf) {
            (Which::All, _) => true,
            (Which::Vfs(ranges), Some(vf)) => ranges.iter().any(|range| range.contains(&vf)),
            (Which::Vfs(_), None) | (Which::None, _) => false,
        }
    }
}

fn ranges(list: &str) -> Result<Vec<RangeInclusive<u32>>, String> {
    if list.contains('#') {
        return Err("more than one '#': selects nothing".to_owned());
    }
    list.split(',').map(range).collect()
}

fn range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| digits)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Err(format!("{text:?} is no VF index and no range such as 0-3: the item selects nothing"));
    };
    if first > last {
        return Err(format!("{text:?} ends before it begins: the item selects nothing"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(text: &str) -> Vec<u32> {
        let (functions, problem) = Functions::parse(text);
        assert_eq!(problem, None);
        (0..10).filter(|vf| functions.contains(Some(*vf))).collect()
    }

    #[test]
    fn ranges_are_inclusive_and_add_up() {
        assert_eq!(selected("ens1f0#0-3,5"), [0, 1, 2, 3, 5]);
        assert_eq!(selected("ens1f0#7"), [7]);
        assert_eq!(selected("0000:03:00.0#2-2,1"), [1, 2]);
    }

    #[test]
    fn a_name_alone_means_all_functions_and_the_pf_itself() {
        assert_eq!(selected("ens1f0").len(), 10);
        let (all, _) = Functions::parse("Ens1F0");
        assert!(all.contains(None));
        assert_eq!(all.pf, "ens1f0");
        assert!(!Functions::parse("ens1f0#0").0.contains(None));
    }

    #[test]
    fn an_item_that_makes_no_sense_selects_nothing_and_says_so() {
        for text in [
            "e#",
            "e#a",
            "e#1-",
            "e#-1",
            "e#3-1",
            "e#0#1",
            "e#1,",
            "e#+1",
            "e#1-2-3",
            "e# 1",
            "e#99999999999",
        ] {
            let (functions, problem) = Functions::parse(text);
            assert!(problem.is_some_and(|p| p.contains("selects nothing")), "{text}");
            assert!((0..10).all(|vf| !functions.contains(Some(vf))), "{text}");
        }
    }
}
