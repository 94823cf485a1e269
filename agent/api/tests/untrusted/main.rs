//! Whatever bytes come over a socket or stand in a file, reading them does not panic. The targets are also those of the
//! coverage-guided fuzzing in `fuzz/`.

#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod targets;

/// Inputs that are made of the corpus, for each target.
const ROUNDS: u32 = 4_000;

#[test]
fn any_request_on_the_agents_socket_is_read_or_refused() {
    replay::replay("request", ROUNDS * 5, targets::request);
}

#[test]
fn any_configuration_is_read_or_refused() {
    replay::replay("config", ROUNDS, targets::config);
}
