// Shared by the tests that replay corpora; each includes this file as a module.
//! Replays the inputs of a corpus, and inputs that are made of them by chance: the same ones in every run.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::{fs, iter};

/// Longest input that is made.
const LONGEST: usize = 4096;

/// The inputs of a corpus with their names, in order.
pub(crate) fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name, fs::read(&path).expect("a readable file"))
    };
    let mut inputs: Vec<_> = entries.map(read).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{}: empty", folder.display());
    inputs
}

/// Gives every input of a corpus to `target`, and then so many that are made of them.
pub(crate) fn replay(name: &str, rounds: u32, mut target: impl FnMut(&[u8])) {
    let inputs = corpus(name);
    for (file, input) in &inputs {
        attempt(&format!("{name}/{file}"), input, &mut target);
    }
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds {
        let (file, input) = &inputs[chance.below(inputs.len())];
        let (_, other) = &inputs[chance.below(inputs.len())];
        let input = mutated(&mut chance, input, other);
        attempt(&format!("round {round}, made of {name}/{file}"), &input, &mut target);
    }
}

/// Tells which input it was if it makes `target` panic, so that it can be kept.
fn attempt(name: &str, input: &[u8], target: &mut impl FnMut(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{name} fails; to keep it: echo {hex} | xxd -r -p > fuzz/corpus/...");
        resume_unwind(panic);
    }
}

/// A few changes of an input.
fn mutated(chance: &mut Chance, input: &[u8], other: &[u8]) -> Vec<u8> {
    /// Numbers at which something often turns.
    const EDGES: [u8; 10] = [0, 1, 4, 8, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff];
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(4) {
        if bytes.is_empty() {
            bytes.push(chance.next() as u8);
        }
        let at = chance.below(bytes.len());
        match chance.below(8) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = chance.next() as u8,
            2 => bytes[at] = EDGES[chance.below(EDGES.len())],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..(at + 1 + chance.below(8)).min(bytes.len()))),
            5 => {
                let many = 1 + chance.below(8);
                bytes.splice(at..at, iter::repeat_with(|| chance.next() as u8).take(many));
            }
            6 => {
                // A part of it once more.
                let end = (at + 1 + chance.below(32)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                // The rest of another.
                let from = chance.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// Numbers that look random (xorshift64*).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}
