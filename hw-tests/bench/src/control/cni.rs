//! What a call of culvert-cni costs, apart from what the agent does.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Instant;

use culvert_hw_tests::net::program;

use super::ControlError;
use super::agent::status;

/// Milliseconds from exec to the end of `VERSION`.
pub(super) fn version() -> Result<f64, ControlError> {
    let mut command = Command::new(program("culvert-cni")?);
    command.env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().map_err(ControlError::io("run culvert-cni"))?;
    let took = started.elapsed();
    if !status.success() {
        return Err(ControlError::Agent(format!("culvert-cni VERSION: {status}")));
    }
    Ok(took.as_secs_f64() * 1e3)
}

/// The most memory in MB that an `ADD` needed by the time it waits for the agent.
pub(super) fn resident() -> Result<f64, ControlError> {
    let dir = tempfile::tempdir().map_err(ControlError::io("make a folder"))?;
    let socket = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).map_err(ControlError::io("listen for culvert-cni"))?;
    let mut child = Command::new(program("culvert-cni")?)
        .env_clear()
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "bench")
        .env("CNI_NETNS", "/proc/self/ns/net")
        .env("CNI_IFNAME", "net1")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(ControlError::io("run culvert-cni"))?;
    let config = format!(
        r#"{{"cniVersion":"1.1.0","name":"bench","type":"culvert-cni","deviceID":"0000:03:01.0","socket":"{}"}}"#,
        socket.display()
    );
    let asked = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(config.as_bytes()))
        .and_then(|()| listener.accept())
        .and_then(|(mut stream, _)| stream.read_exact(&mut [0; 64]).map(|()| stream));
    let most = asked.map_err(ControlError::io("hear from culvert-cni")).and_then(|stream| {
        let most = status(child.id(), "VmHWM:");
        drop(stream);
        most
    });
    // Without an answer it fails, as it should.
    let _ = child.kill();
    let _ = child.wait();
    most
}
