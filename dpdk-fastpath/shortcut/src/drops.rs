//! What the programs drop.

/// Why a program drops a packet, as `enum reason` in `bpf/shortcut.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// It came out of a pod's `culvert0` and belongs to no decided connection of that pod, or not any more.
    Undecided,
    /// The kernel had no memory to rewrite it, or to put headers in front of it.
    NotRewritten,
    /// It came to a pod's `culvert0`, and was sent by somebody else in the node.
    FromNode,
    /// It has a VLAN tag and is for the address of the fast path at the uplink.
    VlanTag,
}

impl Reason {
    /// All of them, by their numbers.
    pub const ALL: [Self; 4] = [Self::Undecided, Self::NotRewritten, Self::FromNode, Self::VlanTag];

    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Undecided => "undecided",
            Self::NotRewritten => "not-rewritten",
            Self::FromNode => "from-node",
            Self::VlanTag => "vlan-tag",
        }
    }
}

/// Packets that were dropped since the programs were loaded, by reason.
pub type Drops = [(Reason, u64); Reason::ALL.len()];
