//! What is measured, in this order.

use std::time::{Duration, Instant};

use culvert_hw_tests::kubelet::{KubeletStandIn, Resource};

use super::agent::Agent;
use super::machine::Machine;
use super::{ControlError, cni};
use crate::cli::Control;
use crate::figure::Figure;

const RESOURCE: &str = "culvert.io/vfs";

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the agent is left alone before its memory is looked at.
const IDLE: Duration = Duration::from_secs(3);

/// Calls of `Allocate` per run.
const ALLOCATIONS: u16 = 1000;

/// Calls of culvert-cni.
const CALLS: u16 = 60;

/// Everything that is measured with.
struct Scene {
    machine: Machine,
    agent: Agent,
    kubelet: KubeletStandIn,
}

/// Measures everything.
pub(super) async fn all(control: &Control) -> Result<Vec<Figure>, ControlError> {
    let machine = Machine::new(control.vfs)?;
    let agent = Agent::new()?;
    let kubelet = KubeletStandIn::start(&agent.kubelet())
        .await
        .map_err(ControlError::io("start the kubelet stand-in"))?;
    let mut scene = Scene { machine, agent, kubelet };
    let (mut cold, mut warm, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let (mut allocate, mut idle, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..control.runs {
        eprintln!("[{}/{}] culvert-agent", run + 1, control.runs);
        scene.agent.forget();
        cold.push(scene.first_list().await?);
        scene.remembered().await?;
        scene.agent.kill();
        warm.push(scene.first_list().await?);
        again.push(scene.wiped().await?);
        allocate.push(scene.allocate().await?);
        tokio::time::sleep(IDLE).await;
        idle.push(scene.agent.resident()?);
        lost.push(scene.lose_vf().await?);
        scene.agent.kill();
    }
    eprintln!("culvert-cni");
    let calls = (0..CALLS).map(|_| cni::version()).collect::<Result<Vec<_>, _>>()?;
    let memory = (0..control.runs).map(|_| cni::resident()).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![
        Figure::of("first list, from exec", "ms", cold).peer(4300.0).must(100.0),
        Figure::of("first list, from exec, restarted", "ms", warm).peer(4300.0).must(20.0),
        Figure::of("list after kubelet wiped the sockets", "ms", again).peer(1700.0).must(100.0),
        Figure::of("Allocate", "ms", allocate).peer(0.23).must(0.2),
        Figure::of("VF lost, to Unhealthy", "ms", lost).must(1000.0),
        Figure::of("culvert-agent, idle", "MB", idle).peer(40.0).must(15.0),
        Figure::of("culvert-cni, most memory", "MB", memory).peer(13.9).must(3.0),
        Figure::of("culvert-cni VERSION, from exec", "ms", calls).peer(1.9),
    ])
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

impl Scene {
    async fn wait(&self, wanted: impl Fn(&Resource) -> bool) -> Result<(), ControlError> {
        let waited = self.kubelet.wait(RESOURCE, PATIENCE, wanted).await;
        waited.map(drop).map_err(|error| self.agent.explain(error))
    }

    /// Starts the agent; milliseconds until kubelet has the whole list.
    async fn first_list(&mut self) -> Result<f64, ControlError> {
        // Kubelet has noticed the end of the last one.
        if self.kubelet.resource(RESOURCE).is_some() {
            self.wait(|resource| !resource.connected).await?;
        }
        let started = self.agent.start(&self.machine)?;
        self.whole_list().await?;
        Ok(milliseconds(started))
    }

    async fn whole_list(&self) -> Result<(), ControlError> {
        self.wait(|resource| resource.connected && resource.allocatable() == self.machine.vfs()).await
    }

    /// Waits until the agent has written down what it offers.
    async fn remembered(&self) -> Result<(), ControlError> {
        let deadline = Instant::now() + PATIENCE;
        while !self.agent.memory().exists() {
            if Instant::now() > deadline {
                return Err(self.agent.explain("the devices were not written down"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Kubelet restarts; milliseconds from its wiping the sockets until it has the whole list.
    async fn wiped(&mut self) -> Result<f64, ControlError> {
        self.kubelet.stop().await;
        let started = Instant::now();
        self.kubelet.resume().await.map_err(ControlError::io("restart the kubelet stand-in"))?;
        self.whole_list().await?;
        Ok(milliseconds(started))
    }

    /// Milliseconds for one call, the mean of many, of one device each.
    async fn allocate(&self) -> Result<f64, ControlError> {
        let known = self.kubelet.resource(RESOURCE).unwrap_or_default();
        let healthy = known.devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id);
        let ids = healthy.cycle().take(usize::from(ALLOCATIONS));
        let started = Instant::now();
        for id in ids {
            let allocated = self.kubelet.allocate_ids(RESOURCE, std::slice::from_ref(id)).await;
            allocated.map_err(|error| self.agent.explain(error))?;
        }
        Ok(milliseconds(started) / f64::from(ALLOCATIONS))
    }

    /// Takes a VF away; milliseconds until kubelet knows.
    async fn lose_vf(&mut self) -> Result<f64, ControlError> {
        let started = Instant::now();
        self.machine.lose_vf()?;
        self.whole_list().await?;
        Ok(milliseconds(started))
    }
}
