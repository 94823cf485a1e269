//! Nodes with culvert-fastpath.

use std::path::Path;

use culvert_api::fastpath::Protocol::{Tcp, Udp};
use culvert_hw_tests::net::Netns;
use culvert_hw_tests::topology::TwoNodes;

use super::{ECHO, HTTP, IPERF, PodsError, Side};

/// Culvert's side.
#[derive(Debug)]
pub(super) struct Ours(TwoNodes);

impl Ours {
    pub(super) fn new(dir: &Path) -> Result<Self, PodsError> {
        Ok(Self(TwoNodes::start(dir, &[(Tcp, IPERF), (Udp, IPERF), (Tcp, ECHO), (Tcp, HTTP)])?))
    }

    /// Kills what forwards on node 1, as `kill -9` does; its keeper goes on.
    pub(super) fn kill_forwarder(&self) -> Result<(), PodsError> {
        Ok(self.0.kill_forwarder()?)
    }

    /// CPU time of both fast paths so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64, PodsError> {
        Ok(self.0.cpu_seconds()?)
    }
}

impl Side for Ours {
    fn client(&self) -> &Netns {
        self.0.client()
    }

    fn near(&self) -> &Netns {
        self.0.near()
    }

    fn far(&self) -> &Netns {
        self.0.far()
    }

    fn serve(&mut self, far: bool) -> Result<(), PodsError> {
        Ok(self.0.serve(far)?)
    }
}
