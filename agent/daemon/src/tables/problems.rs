//! What is wrong with objects.

use crate::kube::ObjectId;
use crate::shared_map::SharedMap;

/// Lines that say what is wrong, by the object that they were found with; every line names an object. Clones share what is
/// the same in them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Problems {
    by_object: SharedMap<ObjectId, Vec<String>>,
    count: usize,
}

impl Problems {
    /// Says all that is wrong with an object.
    pub(super) fn set(&mut self, object: ObjectId, mut lines: Vec<String>) {
        lines.sort_unstable();
        lines.dedup();
        self.count -= self.by_object.get(&object).map_or(0, |before| before.len());
        self.count += lines.len();
        if lines.is_empty() {
            self.by_object.remove(&object);
        } else {
            self.by_object.insert(object, lines);
        }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All lines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.by_object.values().flat_map(|lines| lines.iter()).map(String::as_str)
    }

    /// The lines that are new in `new`, and those that it lacks.
    pub fn changes<'a>(&'a self, new: &'a Self) -> (Vec<&'a str>, Vec<&'a str>) {
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for difference in self.by_object.differences(&new.by_object) {
            let [old, new] =
                [difference.old, difference.new].map(|lines| lines.map_or(&[][..], |l| l.as_slice()));
            come.extend(new.iter().filter(|line| !old.contains(line)).map(String::as_str));
            gone.extend(old.iter().filter(|line| !new.contains(line)).map(String::as_str));
        }
        (come, gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_what_went_is_told_line_by_line() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let [a, b, c] = ["a", "b", "c"].map(ObjectId::node);
        let mut old = Problems::default();
        old.set(a.clone(), lines(&["a2", "a1", "a1"]));
        old.set(b.clone(), lines(&["b1"]));
        let mut new = old.clone();
        new.set(a, lines(&["a2", "a3"]));
        new.set(b, vec![]);
        new.set(c, lines(&["c1"]));
        assert_eq!(old.changes(&new), (vec!["a3", "c1"], vec!["a1", "b1"]));
        assert_eq!((old.lines().collect::<Vec<_>>(), old.len()), (vec!["a1", "a2", "b1"], 3));
        assert_eq!((new.lines().collect::<Vec<_>>(), new.len()), (vec!["a2", "a3", "c1"], 3));
    }
}
