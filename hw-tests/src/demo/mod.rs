//! The same topologies, shown to people.
