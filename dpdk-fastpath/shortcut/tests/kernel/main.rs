//! The short cut in this machine's kernel: real namespaces, real taps.

#![allow(clippy::unwrap_used)]

fn main() {
    println!("{:?}", culvert_shortcut::Kernel::load(1024).map(|_| "loaded"));
}
