//! Patterns as a shell has them: `*`, `?` and `[a-c]`.

use std::fmt;

/// A pattern, or a text without any special character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Glob(String);

impl Glob {
    /// Checks a pattern; other characters than the special ones are the caller's business.
    ///
    /// # Errors
    /// When a bracket is not closed, or closed at once.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'[' && (rest.next().is_none_or(|b| b == b']') || !rest.any(|b| b == b']')) {
                return Err(format!("pattern {text:?}: [ needs characters and a ]"));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether it is a plain text, which only matches itself.
    pub(super) fn is_plain(text: &str) -> bool {
        !text.contains(['*', '?', '['])
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        matches(self.0.as_bytes(), text.as_bytes())
    }
}

/// A `*` that does not work out takes one more character; only the last one has to be reconsidered.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            star = Some((rest, text));
            pattern = rest;
            continue;
        }
        match (one(pattern, text.first().copied()), text) {
            (Some(rest), [_, after @ ..]) => (pattern, text) = (rest, after),
            _ if pattern.is_empty() && text.is_empty() => return true,
            _ => match star {
                Some((rest, [_, after @ ..])) => {
                    star = Some((rest, after));
                    (pattern, text) = (rest, after);
                }
                _ => return false,
            },
        }
    }
}

/// What is left of the pattern after it took `byte`.
fn one(pattern: &[u8], byte: Option<u8>) -> Option<&[u8]> {
    let byte = byte?;
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => {
            let end = class.iter().position(|b| *b == b']')?;
            let (class, rest) = (&class[..end], &class[end + 1..]);
            let mut members = class;
            while let [first, after @ ..] = members {
                let (last, after) = match after {
                    [b'-', last, after @ ..] => (last, after),
                    _ => (first, after),
                };
                if (*first..=*last).contains(&byte) {
                    return Some(rest);
                }
                members = after;
            }
            None
        }
        [plain, rest @ ..] if *plain == byte => Some(rest),
        _ => None,
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, yes, no) in [
            ("ens*f0", &["ens1f0", "ensf0", "ens1f0f0"][..], &["ens1f1", "ens1f0np0", "xens1f0"][..]),
            ("ens?f[01]", &["ens1f0", "ens2f1"], &["ens10f0", "ens1f2", "ens1f"]),
            ("*", &["", "x"], &[]),
            ("0000:3b:0[0-1].?", &["0000:3b:00.0", "0000:3b:01.7"], &["0000:3b:02.0", "0000:3b:00."]),
            ("a*b*c", &["abc", "aXbYbZc"], &["acb", "ab"]),
            ("[ace-g-]", &["a", "e", "f", "-"], &["b", "d", "h", ""]),
            ("plain", &["plain"], &["plai", "plainer"]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            for text in yes {
                assert!(glob.matches(text), "{pattern} {text}");
            }
            for text in no {
                assert!(!glob.matches(text), "{pattern} {text}");
            }
        }
        for bad in ["ens[", "ens[]", "ens[0", "a[b]c["] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }

    /// The obvious way, exponential in stars.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|n| slow(rest, &text[n..])),
            ([p, rest @ ..], [t, after @ ..]) => (*p == b'?' || p == t) && slow(rest, after),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_the_obvious_one(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(Glob::new(&pattern).unwrap().matches(&text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
