//! What kubelet may call.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::config::device_plugin::Allocation;
use culvert_api::errors::chain;
use culvert_api::kubelet::pluginregistration::registration_server::Registration;
use culvert_api::kubelet::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use culvert_api::kubelet::v1beta1::device_plugin_server::DevicePlugin;
use culvert_api::kubelet::v1beta1::{
    AllocateRequest, AllocateResponse, ContainerPreferredAllocationResponse, Device, DevicePluginOptions,
    Empty, ListAndWatchResponse, PreStartContainerRequest, PreStartContainerResponse,
    PreferredAllocationRequest, PreferredAllocationResponse,
};
use culvert_api::value::ResourceName;
use futures::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::register::VERSION;
use crate::allocate::{RequestError, allocate, members};
use crate::grant::{Grant, vfio_driver};
use crate::memory::Keeper;

use crate::pool::{Member, Pool};
use crate::preferred::preferred;
use crate::publish::Publisher;

/// How long kubelet waits for the first look at the machine. It gives `PreStartContainer` 30 seconds.
const SEEN_DEADLINE: Duration = Duration::from_secs(20);

/// The device plugin of one pool.
#[derive(Debug, Clone)]
pub(super) struct PoolService {
    pub(super) pool: watch::Receiver<Arc<Pool>>,
    /// How many lists are being watched now.
    pub(super) watching: Arc<watch::Sender<usize>>,
    pub(super) publisher: Publisher,
    pub(super) allocation: Allocation,
    pub(super) keeper: Keeper,
    /// Whether the machine has been looked at.
    pub(super) seen: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
}

impl PoolService {
    fn snapshot(&self) -> Arc<Pool> {
        self.pool.borrow().clone()
    }

    /// The pool as the machine has it: what is remembered only is not given away.
    async fn seen(&self) -> Result<Arc<Pool>, Status> {
        let mut seen = self.seen.clone();
        if let Ok(Ok(_)) = timeout(SEEN_DEADLINE, seen.wait_for(|seen| *seen)).await {
            return Ok(self.snapshot());
        }
        let resource = self.snapshot().resource().clone();
        Err(Status::unavailable(format!(
            "{resource}: the agent was started a moment ago and has not yet looked at the devices; its log says why"
        )))
    }
}

/// Counts an open stream for as long as it lives.
struct Watching(Arc<watch::Sender<usize>>);

impl Watching {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count.clone())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// The lists of one open stream.
struct Lists {
    pool: watch::Receiver<Arc<Pool>>,
    first: bool,
    last: Vec<Device>,
    stop: CancellationToken,
    _open: Watching,
}

impl Lists {
    /// The next list that differs from the last, and what is to come after it.
    ///
    /// A pool that was withdrawn ends with an empty list: kubelet would keep the capacity of one that just ends for
    /// five minutes more.
    async fn next(mut self) -> Option<(Vec<Device>, Option<Self>)> {
        loop {
            let ended = if std::mem::take(&mut self.first) {
                false
            } else {
                tokio::select! {
                    changed = self.pool.changed() => changed.is_err(),
                    () = self.stop.cancelled() => true,
                }
            };
            let list = self.pool.borrow_and_update().list();
            // Much about a device can change that kubelet is not told of.
            if list != self.last {
                self.last.clone_from(&list);
                return Some((list, (!ended).then_some(self)));
            }
            if ended {
                return None;
            }
        }
    }
}

#[tonic::async_trait]
impl DevicePlugin for PoolService {
    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        // Asked for where it is of use only: with the agent away kubelet could not start a container.
        let pre_start_required = self.snapshot().members().any(|m| vfio_driver(&m.device).is_some());
        Ok(Response::new(DevicePluginOptions {
            pre_start_required,
            get_preferred_allocation_available: true,
        }))
    }

    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let lists = Lists {
            pool: self.pool.clone(),
            first: true,
            last: Vec::new(),
            stop: self.stop.clone(),
            _open: Watching::new(&self.watching),
        };
        let lists = stream::unfold(Some(lists), |lists| async { lists?.next().await });
        Ok(Response::new(Box::pin(lists.map(|devices| Ok(ListAndWatchResponse { devices })))))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let pool = self.snapshot();
        let answer = |container| {
            preferred(&pool, container, self.allocation)
                .map(|device_ids| ContainerPreferredAllocationResponse { device_ids })
        };
        let container_responses =
            request.get_ref().container_requests.iter().map(answer).collect::<Result<_, _>>()?;
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let pool = self.seen().await?;
        let containers = &request.get_ref().container_requests;
        let container_responses = containers
            .iter()
            .map(|container| allocate(&pool, &container.device_ids, self.publisher.way()))
            .collect::<Result<Vec<_>, _>>()
            .inspect_err(|error| tracing::warn!(%error, "allocation refused"))?;
        // The runtime reads the specification after this answer: somebody may have removed it meanwhile.
        self.publisher.pool(&pool).map_err(|error| Status::internal(chain(&error)))?;
        for (container, response) in containers.iter().zip(&container_responses) {
            for member in members(&pool, &container.device_ids)? {
                // By CDI the runtime looks nodes up whenever it starts the container.
                if let (false, Ok(grant)) = (response.devices.is_empty(), Grant::of(&member.device)) {
                    self.keeper.gave(pool.resource(), member.device.pci, host_paths(&grant));
                }
                // Multus does without, and pods with it.
                if let Err(error) = self.publisher.device(&pool, member) {
                    tracing::warn!(error = chain(&error), "device information");
                }
            }
            tracing::info!(resource = %pool.resource(), devices = container.device_ids.join(","), "allocated");
        }
        Ok(Response::new(AllocateResponse { container_responses }))
    }

    /// Kubelet repeats to a restarted container what it was given at admission, even if the device has gone since or has
    /// other device nodes. That its link is down is no reason to refuse: the container may wait for that.
    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let pool = self.seen().await?;
        for member in members(&pool, &request.get_ref().device_ids)? {
            let given = self.keeper.given(pool.resource(), member.device.pci);
            check(pool.resource(), member, given.as_deref())
                .inspect_err(|error| tracing::warn!(%error, "a container must not start"))?;
        }
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

fn host_paths(grant: &Grant) -> Vec<String> {
    grant.nodes.iter().map(|node| node.host_path.clone()).collect()
}

/// Whether a device still is what a container was given, by these nodes.
fn check(resource: &ResourceName, member: &Member, given: Option<&[String]>) -> Result<(), RequestError> {
    let (resource, id) = (resource.clone(), member.device.pci.to_string());
    if !member.present {
        return Err(RequestError::Gone { resource, id });
    }
    let grant = Grant::of(&member.device).map_err(|problem| RequestError::Grant {
        resource: resource.clone(),
        id: id.clone(),
        problem,
    })?;
    let now = host_paths(&grant);
    match given {
        Some(given) if given != now => {
            let now = if now.is_empty() { "without device nodes".to_owned() } else { now.join(", ") };
            Err(RequestError::Other { resource, id, given: given.join(", "), now })
        }
        _ => Ok(()),
    }
}

/// Tells kubelet, which has found the socket by itself, what it serves.
#[derive(Debug, Clone)]
pub(super) struct FoundService {
    pub(super) resource: ResourceName,
    /// Path of this very socket.
    pub(super) endpoint: String,
    /// What kubelet has said last.
    pub(super) word: Arc<watch::Sender<Word>>,
}

/// What kubelet, which has found the plugin, says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing yet.
    Nothing,
    /// The plugin is registered.
    Registered,
    /// The plugin is refused, for this reason.
    Refused(String),
}

#[tonic::async_trait]
impl Registration for FoundService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DevicePlugin".to_owned(),
            name: self.resource.to_string(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = status.into_inner();
        if !plugin_registered {
            tracing::warn!(resource = %self.resource, error, "kubelet refuses the plugin");
        }
        self.word.send_replace(if plugin_registered { Word::Registered } else { Word::Refused(error) });
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
