//! Ports by DPDK.

use std::time::Duration;

use culvert_dpdk::{Eal, Mempool, Port, PortConfig, PortError, Vdev};

use super::{Backend, NewPort};
use crate::clock::Clock;
use crate::table::PortIndex;
use crate::worker::{Recruit, Team, WorkerError};

/// What makes a port's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortDriver {
    /// A kernel tap interface, through DPDK's net_tap.
    Tap,
}

/// Why a port could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The device.
    #[error(transparent)]
    Device(Box<PortError>),
    /// The workers.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl From<PortError> for BackendError {
    fn from(error: PortError) -> Self {
        Self::Device(Box::new(error))
    }
}

/// Devices of DPDK, handed to the workers.
#[derive(Debug)]
pub struct DpdkBackend {
    driver: PortDriver,
    /// `None` once they were stopped.
    team: Option<Team>,
    workers: u16,
    pool: Mempool,
    eal: Eal,
}

impl DpdkBackend {
    /// Starts the workers; no ports yet.
    ///
    /// # Errors
    /// When a worker cannot be started.
    pub fn start(
        eal: &Eal,
        pool: &Mempool,
        driver: PortDriver,
        recruits: Vec<Recruit>,
        clock: Clock,
        idle_sleep: Duration,
    ) -> Result<Self, WorkerError> {
        let workers = recruits.len() as u16;
        let team = Team::start(eal, recruits, clock, idle_sleep)?;
        Ok(Self { driver, team: Some(team), workers, pool: pool.clone(), eal: eal.clone() })
    }

    /// The workers, unless they were stopped.
    pub fn team(&self) -> Option<&Team> {
        self.team.as_ref()
    }

    /// Where packets live.
    pub fn pool(&self) -> &Mempool {
        &self.pool
    }

    /// Stops the workers; no packet moves from now on.
    ///
    /// # Errors
    /// When one of them ended by a panic.
    pub fn stop_workers(&mut self) -> Result<(), WorkerError> {
        self.team.take().map_or(Ok(()), Team::stop)
    }
}

impl Backend for DpdkBackend {
    type Device = Port;
    type Error = BackendError;

    fn open(&mut self, port: &NewPort<'_>) -> Result<Port, BackendError> {
        let vdev = match self.driver {
            PortDriver::Tap => {
                Vdev::Tap { interface: port.interface.to_string(), mac: Some(port.mac.octets()) }
            }
        };
        let mut device = Port::create(&self.eal, &vdev)?;
        // As many of both as there are workers; see `worker` for why.
        let config = PortConfig {
            rx_queues: self.workers,
            tx_queues: self.workers,
            mtu: Some(port.mtu),
            ..PortConfig::default()
        };
        let queues = device.start(&config, &self.pool)?;
        if let Some(team) = &self.team {
            team.hand_over(port.index, port.worker, queues)?;
        }
        Ok(device)
    }

    fn close(&mut self, index: PortIndex, device: Port) -> Result<(), BackendError> {
        if let Some(team) = &self.team {
            team.take_back(index)?;
        }
        // A device that is still in use goes when the last user drops it.
        device.remove().map_err(|(_, error)| error.into())
    }
}
