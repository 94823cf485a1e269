//! culvert-fastpath: the poll-mode forwarding engine.
