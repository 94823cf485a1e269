//! One life of the stand-in, from start to stop.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use culvert_api::kubelet::v1beta1::registration_server::RegistrationServer;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::found::find;
use super::registration::Registrar;
use super::state::State;

#[derive(Debug)]
pub(super) struct Run {
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    finder: JoinHandle<()>,
    state: Arc<State>,
}

impl Run {
    pub(super) async fn start(folder: &Path, registry: &Path, state: Arc<State>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        remove_sockets(folder)?;
        let listener = UnixListener::bind(folder.join("kubelet.sock"))?;
        let registrar = Registrar { folder: folder.to_owned(), state: state.clone() };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let served = Server::builder()
                .add_service(RegistrationServer::new(registrar))
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                    let _ = stopped.await;
                })
                .await;
            if let Err(error) = served {
                eprintln!("kubelet stand-in: {error}");
            }
        });
        let finder = tokio::spawn(find(registry.to_owned(), state.clone()));
        Ok(Self { stop, server, finder, state })
    }

    /// Ends it as SIGKILL would: what is open breaks, the socket stays on disk.
    pub(super) async fn stop(self) {
        self.finder.abort();
        let _ = self.stop.send(());
        self.server.abort();
        let _ = self.server.await;
        self.state.forget_devices();
    }
}

/// Kubelet removes every socket in the folder, whoever it belongs to, and leaves other files.
fn remove_sockets(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
