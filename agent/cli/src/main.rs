//! culvert: the command line of the agent.
fn main() {}
