//! Ports for programs in pods: memory that the fast path shares over a Unix socket in a volume of the pod's.
//!
//! The volume is an `emptyDir` of the name `culvert`, which kubelet makes before it asks for the pod's network, and the
//! socket in it is named as the interface. Beside it lies what the program has to know, `eth0.json`; which keys it has
//! follows the device information specification (k8snetworkplumbingwg, 1.1.0).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use culvert_api::fastpath::PortDevice;
use culvert_api::value::IfName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::record::Lease;

/// Name of the volume: a path of at most 107 bytes has to hold it.
const VOLUME: &str = "culvert";

/// Longest path of a Unix socket (unix(7)).
const LONGEST: usize = 107;

/// How memory is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sharing {
    /// memif: the program connects.
    Memif,
    /// vhost-user: the program listens.
    VhostUser,
}

/// Where a program finds its port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Socket {
    /// How memory is shared.
    pub sharing: Sharing,
    /// The socket, as this node sees it.
    pub path: PathBuf,
}

/// Why a pod gets no such port.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The runtime does not say which pod it is.
    #[error("CNI_ARGS K8S_POD_UID: is not set; the pod's volume is found by it")]
    NoUid,
    /// No volume.
    #[error(
        "{}: there is no such folder: give the pod a volume `{{ name: {VOLUME}, emptyDir: {{}} }}`, mounted where the program \
         looks; where kubelet's folder is another, set cni.kubeletDir of the agent's configuration",
        .0.display()
    )]
    NoVolume(PathBuf),
    /// A path that no socket can have.
    #[error(
        "{}: a socket's path has at most {LONGEST} bytes: take a shorter name for the interface, or for kubelet's folder",
        .0.display()
    )]
    TooLong(PathBuf),
    /// What the program has to know could not be written.
    #[error("{}: cannot be written", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl FromStr for Sharing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "memif" => Ok(Self::Memif),
            "vhostUser" => Ok(Self::VhostUser),
            _ => Err("must be memif or vhostUser".to_owned()),
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memif => "memif",
            Self::VhostUser => "vhostUser",
        })
    }
}

impl Socket {
    /// That of interface `ifname` of the pod with this UID.
    ///
    /// # Errors
    /// When the pod has no volume for it.
    pub fn of(
        kubelet: &Path,
        uid: Option<&str>,
        ifname: &IfName,
        sharing: Sharing,
    ) -> Result<Self, SocketError> {
        let uid = uid.ok_or(SocketError::NoUid)?;
        let volume = kubelet.join("pods").join(uid).join("volumes/kubernetes.io~empty-dir").join(VOLUME);
        // A link would lead wherever the pod likes; kubelet makes none.
        if !fs::symlink_metadata(&volume).is_ok_and(|found| found.is_dir()) {
            return Err(SocketError::NoVolume(volume));
        }
        let path = volume.join(ifname.as_str());
        if path.as_os_str().len() > LONGEST {
            return Err(SocketError::TooLong(path));
        }
        Ok(Self { sharing, path })
    }

    /// What the fast path is asked for.
    pub fn device(&self) -> PortDevice {
        match self.sharing {
            Sharing::Memif => PortDevice::Memif,
            Sharing::VhostUser => PortDevice::VhostUser,
        }
    }

    /// Writes what the program has to know beside the socket.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn describe(&self, lease: &Lease) -> Result<(), SocketError> {
        let path = self.beside("json");
        self.write(&path, &self.description(lease))
            .map_err(|source| SocketError::Description { path, source })
    }

    fn write(&self, path: &Path, text: &Value) -> io::Result<()> {
        let new = self.beside("new");
        // Nothing that a program may have put there is followed or kept.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
        file.write_all(format!("{text:#}\n").as_bytes())?;
        drop(file);
        fs::rename(new, path)
    }

    /// A file of the same name with something behind a dot.
    fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{what}"));
        self.path.with_file_name(name)
    }

    /// The path is that of the file in the volume: where that is mounted only the pod knows.
    fn description(&self, lease: &Lease) -> Value {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut text = match self.sharing {
            Sharing::Memif => json!({
                "type": "memif",
                "memif": { "role": "slave", "path": file, "mode": "ethernet", "id": 0 },
            }),
            Sharing::VhostUser => json!({
                "type": "vhost-user",
                "vhost-user": { "mode": "server", "path": file },
            }),
        };
        text["version"] = "1.1.0".into();
        text["mac"] = lease.mac.to_string().into();
        text["mtu"] = lease.mtu.into();
        text["addresses"] = lease.addresses.iter().map(ToString::to_string).collect();
        text["gateways"] = lease.gateways.iter().map(ToString::to_string).collect();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            port: "cv1".parse().unwrap(),
            addresses: vec!["10.1.0.2".parse().unwrap()],
            gateways: vec!["10.1.0.1".parse().unwrap()],
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1450,
        }
    }

    #[test]
    fn a_socket_lies_in_the_pods_volume_with_what_its_program_has_to_know_beside_it() {
        let kubelet = tempfile::tempdir().unwrap();
        let volume = kubelet.path().join("pods/uid-1/volumes/kubernetes.io~empty-dir/culvert");
        let of = |uid, sharing| Socket::of(kubelet.path(), uid, &"eth0".parse().unwrap(), sharing);
        let refusal = of(Some("uid-1"), Sharing::Memif).unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("{}: there is no such folder", volume.display())), "{refusal}");
        assert!(refusal.contains("`{ name: culvert, emptyDir: {} }`"), "{refusal}");
        assert!(of(None, Sharing::Memif).unwrap_err().to_string().contains("K8S_POD_UID"));

        fs::create_dir_all(&volume).unwrap();
        let socket = of(Some("uid-1"), Sharing::Memif).unwrap();
        assert_eq!(socket.path, volume.join("eth0"));
        let secret = kubelet.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, volume.join("eth0.new")).unwrap();
        std::os::unix::fs::symlink(&secret, volume.join("eth0.json")).unwrap();
        socket.describe(&lease()).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret", "a link of the pod's was followed");
        let read = |name| fs::read_to_string(volume.join(name)).unwrap();
        let said: Value = serde_json::from_str(&read("eth0.json")).unwrap();
        assert_eq!(
            said,
            json!({
                "type": "memif", "version": "1.1.0",
                "memif": { "role": "slave", "path": "eth0", "mode": "ethernet", "id": 0 },
                "mac": "02:00:00:00:00:01", "mtu": 1450,
                "addresses": ["10.1.0.2"], "gateways": ["10.1.0.1"],
            })
        );
        of(Some("uid-1"), Sharing::VhostUser).unwrap().describe(&lease()).unwrap();
        let said: Value = serde_json::from_str(&read("eth0.json")).unwrap();
        assert_eq!(said["vhost-user"], json!({ "mode": "server", "path": "eth0" }));
    }
}
