//! What devlink tells of a NIC: the mode of its switch, its serial number, and the health that its driver reports.
//!
//! Generic netlink as in `linux/devlink.h`. Few drivers have all of it, many none: absence is normal. The kernel answers
//! while it is being asked, under a lock that a driver may hold for seconds (a firmware update, a reload): requests are
//! made on a thread of their own, nobody waits longer than [`PATIENCE`], and while one is under way the last answer counts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use culvert_api::value::PciAddress;
use nix::errno::Errno;
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use serde::{Deserialize, Serialize};
use tokio::runtime;

use crate::netlink::attr::{Attributes, Reader, text_of, u16_of};
use crate::netlink::raw::{Answer, Question, RawNetlink};
use crate::netlink::{NetlinkCause, NetlinkError};

mod ddp;
#[cfg(test)]
mod tests;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`: command, version, two reserved bytes.
const GENLMSGHDR: usize = 4;

const DEVLINK_CMD_ESWITCH_GET: u8 = 29;
const DEVLINK_CMD_ESWITCH_SET: u8 = 30;
const DEVLINK_CMD_INFO_GET: u8 = 51;
const DEVLINK_CMD_HEALTH_REPORTER_GET: u8 = 52;
const DEVLINK_ATTR_BUS_NAME: u16 = 1;
const DEVLINK_ATTR_DEV_NAME: u16 = 2;
const DEVLINK_ATTR_ESWITCH_MODE: u16 = 25;
const DEVLINK_ATTR_INFO_SERIAL_NUMBER: u16 = 99;
const DEVLINK_ATTR_HEALTH_REPORTER: u16 = 114;
const DEVLINK_ATTR_HEALTH_REPORTER_NAME: u16 = 115;
const DEVLINK_ATTR_HEALTH_REPORTER_STATE: u16 = 116;
/// DEVLINK_HEALTH_REPORTER_STATE_ERROR
const STATE_ERROR: u8 = 1;

/// How long an answer is waited for.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// A device that devlink knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DevlinkDevice {
    /// The bus: `pci`.
    pub bus: String,
    /// Its name there: `0000:03:00.0`.
    pub name: String,
}

/// Mode of the switch inside a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EswitchMode {
    /// The NIC forwards between VFs by MAC and VLAN.
    Legacy,
    /// Each VF has a representor, and the kernel says what is forwarded.
    Switchdev,
}

/// A devlink socket.
#[derive(Debug)]
pub struct Devlink {
    raw: RawNetlink,
    family: u16,
    last: Arc<Mutex<Last>>,
}

/// Last answers.
#[derive(Debug, Default)]
struct Last {
    eswitch: BTreeMap<DevlinkDevice, Option<EswitchMode>>,
    serials: BTreeMap<DevlinkDevice, Option<String>>,
    failed: BTreeMap<DevlinkDevice, Vec<String>>,
}

impl Devlink {
    /// Opens a socket in the program's own network namespace; `None` if the kernel has no devlink.
    pub async fn open() -> Result<Option<Self>, NetlinkError> {
        let raw = RawNetlink::open(NETLINK_GENERIC).map_err(NetlinkError::open)?;
        Self::over(raw).await
    }

    async fn over(raw: RawNetlink) -> Result<Option<Self>, NetlinkError> {
        let mut message = Attributes::after(&[CTRL_CMD_GETFAMILY, 1, 0, 0]);
        message.put_text(CTRL_ATTR_FAMILY_NAME, "devlink");
        let answers = match raw.ask(Question::one(GENL_ID_CTRL, message.finish())).await {
            Err(NetlinkCause::Kernel { errno: Errno::ENOENT, .. }) => return Ok(None),
            answer => answer.map_err(|cause| NetlinkError::of("devlink", "find it", cause))?,
        };
        let family = answers
            .iter()
            .find_map(|answer| u16_of(Reader::after(GENLMSGHDR, &answer.payload).find(CTRL_ATTR_FAMILY_ID)?));
        Ok(family.map(|family| Self { raw, family, last: Arc::default() }))
    }

    /// The mode of a NIC's switch; `None` if it has none, or its driver does not say.
    pub async fn eswitch_mode(&self, device: &DevlinkDevice) -> Result<Option<EswitchMode>, NetlinkError> {
        let question = self.question(DEVLINK_CMD_ESWITCH_GET, device, |_| {});
        let Some(answers) = self.patiently(device, "read its switch's mode", question).await? else {
            return Ok(self.last().eswitch.get(device).copied().flatten());
        };
        let mode = answers.iter().find_map(|answer| {
            match u16_of(Reader::after(GENLMSGHDR, &answer.payload).find(DEVLINK_ATTR_ESWITCH_MODE)?)? {
                0 => Some(EswitchMode::Legacy),
                1 => Some(EswitchMode::Switchdev),
                _ => None,
            }
        });
        self.last().eswitch.insert(device.clone(), mode);
        Ok(mode)
    }

    /// Sets the mode of a NIC's switch. Most drivers want it before there are VFs.
    pub async fn set_eswitch_mode(
        &self,
        device: &DevlinkDevice,
        mode: EswitchMode,
    ) -> Result<(), NetlinkError> {
        let number: u16 = match mode {
            EswitchMode::Legacy => 0,
            EswitchMode::Switchdev => 1,
        };
        let question = self.question(DEVLINK_CMD_ESWITCH_SET, device, |m| {
            m.put(DEVLINK_ATTR_ESWITCH_MODE, &number.to_ne_bytes());
        });
        let error = |cause| NetlinkError::of(device.to_string(), format!("set its switch to {mode}"), cause);
        self.on_a_thread(question).await.map(drop).map_err(error)
    }

    /// A NIC's serial number as its driver tells it; read once, as some drivers ask the firmware.
    pub async fn serial(&self, device: &DevlinkDevice) -> Result<Option<String>, NetlinkError> {
        if let Some(known) = self.last().serials.get(device) {
            return Ok(known.clone());
        }
        let question = self.question(DEVLINK_CMD_INFO_GET, device, |_| {});
        let Some(answers) = self.patiently(device, "read its serial number", question).await? else {
            return Ok(None);
        };
        let serial = answers.iter().find_map(|answer| {
            let text = Reader::after(GENLMSGHDR, &answer.payload).find(DEVLINK_ATTR_INFO_SERIAL_NUMBER)?;
            Some(text_of(text).trim().to_owned()).filter(|text| !text.is_empty())
        });
        self.last().serials.insert(device.clone(), serial.clone());
        Ok(serial)
    }

    /// Names of the health reporters that are in error, of all devices that have such: `fw_fatal`, `tx`.
    pub async fn failed_reporters(&self) -> Result<BTreeMap<DevlinkDevice, Vec<String>>, NetlinkError> {
        let question = Question::all(self.family, vec![DEVLINK_CMD_HEALTH_REPORTER_GET, 1, 0, 0]);
        let all = DevlinkDevice { bus: "devlink".to_owned(), name: "health reporters".to_owned() };
        let Some(answers) = self.patiently(&all, "list them", question).await? else {
            return Ok(self.last().failed.clone());
        };
        let mut failed: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (device, reporter) in answers.iter().filter_map(|answer| failed_reporter(&answer.payload)) {
            let reporters = failed.entry(device).or_default();
            // Drivers have the same reporter for each of several ports.
            if !reporters.contains(&reporter) {
                reporters.push(reporter);
            }
        }
        self.last().failed.clone_from(&failed);
        Ok(failed)
    }

    fn question(&self, command: u8, device: &DevlinkDevice, more: impl FnOnce(&mut Attributes)) -> Question {
        let mut message = Attributes::after(&[command, 1, 0, 0]);
        message.put_text(DEVLINK_ATTR_BUS_NAME, &device.bus);
        message.put_text(DEVLINK_ATTR_DEV_NAME, &device.name);
        more(&mut message);
        Question::one(self.family, message.finish())
    }

    /// Asks what may not be there: no such device or no such function is an empty answer. `None` if the answer takes too
    /// long, or another one still does.
    async fn patiently(
        &self,
        device: &DevlinkDevice,
        action: &str,
        question: Question,
    ) -> Result<Option<Vec<Answer>>, NetlinkError> {
        if self.raw.is_busy() {
            return Ok(None);
        }
        match tokio::time::timeout(PATIENCE, self.on_a_thread(question)).await {
            Err(_) => Ok(None),
            Ok(Err(NetlinkCause::Kernel { errno: Errno::EOPNOTSUPP | Errno::ENODEV, .. })) => {
                Ok(Some(Vec::new()))
            }
            Ok(answer) => {
                answer.map(Some).map_err(|cause| NetlinkError::of(device.to_string(), action, cause))
            }
        }
    }

    /// Asks from a thread that may be blocked by the kernel.
    async fn on_a_thread(&self, question: Question) -> Result<Vec<Answer>, NetlinkCause> {
        let (raw, handle) = (self.raw.clone(), runtime::Handle::current());
        let asked = tokio::task::spawn_blocking(move || handle.block_on(raw.ask_here(&question))).await;
        asked.unwrap_or_else(|_| Err(NetlinkCause::Protocol("the netlink socket is closed".to_owned())))
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Device and name of a reporter that is in error.
fn failed_reporter(payload: &[u8]) -> Option<(DevlinkDevice, String)> {
    let attributes = Reader::after(GENLMSGHDR, payload);
    let text = |kind| attributes.clone().find(kind).map(text_of);
    let device = DevlinkDevice { bus: text(DEVLINK_ATTR_BUS_NAME)?, name: text(DEVLINK_ATTR_DEV_NAME)? };
    let reporter = Reader::new(attributes.clone().find(DEVLINK_ATTR_HEALTH_REPORTER)?);
    let state = reporter.clone().find(DEVLINK_ATTR_HEALTH_REPORTER_STATE)?;
    (state.first() == Some(&STATE_ERROR))
        .then(|| (device, reporter.find(DEVLINK_ATTR_HEALTH_REPORTER_NAME).map(text_of).unwrap_or_default()))
}

impl From<PciAddress> for DevlinkDevice {
    fn from(address: PciAddress) -> Self {
        Self { bus: "pci".to_owned(), name: address.to_string() }
    }
}

impl fmt::Display for DevlinkDevice {
    /// `pci/0000:03:00.0`, as devlink(8) writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bus, self.name)
    }
}

impl fmt::Display for EswitchMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy",
            Self::Switchdev => "switchdev",
        })
    }
}
