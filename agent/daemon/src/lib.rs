//! culvert-agent: the node agent.
