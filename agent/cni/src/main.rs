//! culvert-cni: the CNI plugin, a thin client of the agent.
fn main() {}
