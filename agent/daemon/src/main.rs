//! culvert-agent: the node agent.
fn main() {}
