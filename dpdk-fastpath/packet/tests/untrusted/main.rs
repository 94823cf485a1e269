//! Whatever bytes come from outside, no function here panics, and what the quick readings say is what the full one says. The
//! targets are also those of the coverage-guided fuzzing in `fuzz/`.

#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod targets;

/// Inputs that are made of the corpus, for each target.
const ROUNDS: u32 = 40_000;

#[test]
fn any_frame_is_read_and_answered_without_a_panic() {
    replay::replay("frame", ROUNDS, targets::frame);
}

#[test]
fn any_tunnel_packet_is_unwrapped_without_a_panic() {
    replay::replay("frame", ROUNDS, targets::tunnel);
}
