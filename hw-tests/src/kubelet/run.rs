//! One life of the stand-in, from start to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use culvert_api::kubelet::v1beta1::registration_server::RegistrationServer;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::found::find;
use super::registration::Registrar;
use super::state::State;

/// Name of kubelet's socket.
const SOCKET: &str = "kubelet.sock";

/// How long its end may take.
const END: Duration = Duration::from_secs(5);

/// A process of its own, so to speak: when the runtime ends, connections break and whatever is under way is lost.
#[derive(Debug)]
pub(super) struct Run {
    runtime: Option<Runtime>,
    /// The listening socket.
    listening: OwnedFd,
    state: Arc<State>,
}

impl Run {
    pub(super) fn start(folder: &Path, registry: &Path, state: Arc<State>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        remove_sockets(folder)?;
        let listener = std::os::unix::net::UnixListener::bind(folder.join(SOCKET))?;
        Self::serve(listener, folder, registry, state)
    }

    /// Ends it as [`Self::stop`] does, and starts again with a new socket that has the inode of the old one.
    pub(super) async fn replace(self, folder: &Path, registry: &Path) -> io::Result<Self> {
        let kept = folder.join("kept");
        std::fs::hard_link(folder.join(SOCKET), &kept)?;
        let listening = self.listening.try_clone()?;
        let state = self.state.clone();
        self.stop().await;
        remove_sockets_but(folder, &kept)?;
        std::fs::hard_link(&kept, folder.join(SOCKET))?;
        std::fs::remove_file(&kept)?;
        Self::serve(listening.into(), folder, registry, state)
    }

    fn serve(
        listener: std::os::unix::net::UnixListener,
        folder: &Path,
        registry: &Path,
        state: Arc<State>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listening = listener.as_fd().try_clone_to_owned()?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::from_std(listener)?
        };
        let registrar = Registrar { folder: folder.to_owned(), state: state.clone() };
        let server = Server::builder()
            .add_service(RegistrationServer::new(registrar))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(async move {
            if let Err(error) = server.await {
                eprintln!("kubelet stand-in: {error}");
            }
        });
        runtime.spawn(find(registry.to_owned(), state.clone()));
        Ok(Self { runtime: Some(runtime), listening, state })
    }

    /// Ends it as SIGKILL would: what is open breaks, the socket stays on disk.
    pub(super) async fn stop(mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It is of no use to anybody whether threads of it still linger.
            let _ = spawn_blocking(move || runtime.shutdown_timeout(END)).await;
        }
        self.state.forget_devices();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Kubelet removes every socket in the folder, whoever it belongs to, and leaves other files.
fn remove_sockets(folder: &Path) -> io::Result<()> {
    remove_sockets_but(folder, Path::new(""))
}

fn remove_sockets_but(folder: &Path, kept: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() && entry.path() != kept {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
