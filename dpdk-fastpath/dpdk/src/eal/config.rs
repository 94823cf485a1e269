//! What EAL is started with, typed, and the arguments that become of it.

use crate::log::LogLevel;
use crate::port::Vdev;

/// Where the memory of mempools and queues comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hugepages {
    /// Hugepages, or refuse to start.
    Required,
    /// Hugepages if enough are free, otherwise ordinary pages ([`Eal::fallback`](super::Eal::fallback) tells why).
    Preferred,
    /// Ordinary pages: slower (TLB misses), and no device that needs physical addresses.
    Off,
}

/// Which PCI devices EAL takes at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pci {
    /// None; the PCI bus is not even scanned.
    None,
    /// None at start; [`Port::plug`](crate::port::Port::plug) takes one later.
    Later,
    /// Exactly these (`0000:03:00.1`), if they are bound to a driver DPDK can use.
    Allow(Vec<String>),
}

/// How devices see memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iova {
    /// As EAL thinks fit.
    Auto,
    /// Virtual addresses; needs an IOMMU, or no DMA at all.
    Virtual,
    /// Physical addresses; needs root and hugepages.
    Physical,
}

/// What EAL is started with.
#[derive(Debug, Clone)]
pub struct EalConfig {
    /// CPU that the thread which calls [`Eal::init`](super::Eal::init) is pinned to. Worker threads are not EAL's:
    /// [`lcore::spawn`](crate::lcore::spawn) starts them.
    pub control_cpu: u32,
    /// Ordinary pages or hugepages.
    pub hugepages: Hugepages,
    /// Memory for mempools and queues, MB. Taken at start; with hugepages more is taken when it runs out, with
    /// ordinary pages this is all there is.
    pub megabytes: u32,
    /// Keep hugepages anonymous: nothing in hugetlbfs, no mount needed, nothing left behind by a killed process, and no
    /// secondary processes. No effect without hugepages (EAL refuses `--in-memory` with `--no-huge`).
    pub in_memory: bool,
    /// PCI devices.
    pub pci: Pci,
    /// Devices without hardware that are made at start; [`Port::create`](crate::port::Port::create) makes them later.
    pub vdevs: Vec<Vdev>,
    /// Address mode.
    pub iova: Iova,
    /// Keeps the runtime folders of several DPDK programs on one machine apart.
    pub file_prefix: String,
    /// The least grave lines that are logged.
    pub log_level: LogLevel,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            control_cpu: 0,
            hugepages: Hugepages::Preferred,
            megabytes: 256,
            in_memory: true,
            pci: Pci::None,
            vdevs: Vec::new(),
            iova: Iova::Auto,
            file_prefix: "culvert".into(),
            log_level: LogLevel::Warning,
        }
    }
}

impl EalConfig {
    /// EAL's arguments, program name first; `hugepages` as the preflight decided.
    pub(super) fn arguments(&self, hugepages: bool) -> Vec<String> {
        let mut arguments = vec![
            "culvert".to_owned(),
            // One lcore: its number need not be the CPU's, so that CPUs past RTE_MAX_LCORE work too.
            format!("--lcores=0@{}", self.control_cpu),
            "-m".into(),
            self.megabytes.to_string(),
            format!("--file-prefix={}", self.file_prefix),
            format!("--log-level={}", self.log_level.name()),
            "--no-telemetry".into(),
        ];
        match (hugepages, self.in_memory) {
            (true, true) => arguments.push("--in-memory".into()),
            (true, false) => {}
            (false, _) => arguments.extend(["--no-huge".into(), "--no-shconf".into()]),
        }
        match &self.pci {
            Pci::None => arguments.push("--no-pci".into()),
            // EAL takes every device unless it is told which; this is the address of none.
            Pci::Later => arguments.push("--allow=ffff:ff:1f.7".into()),
            Pci::Allow(addresses) => {
                arguments.extend(addresses.iter().map(|address| format!("--allow={address}")));
            }
        }
        match self.iova {
            Iova::Auto => {}
            Iova::Virtual => arguments.push("--iova-mode=va".into()),
            Iova::Physical => arguments.push("--iova-mode=pa".into()),
        }
        arguments.extend(self.vdevs.iter().map(|vdev| {
            let device = vdev.device();
            let comma = if device.arguments.is_empty() { "" } else { "," };
            format!("--vdev={}{comma}{}", device.name, device.arguments)
        }));
        arguments
    }

    /// Refuses what EAL would misread or silently change. What it returns is the field's name and what is wrong.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.megabytes < 16 {
            return Err(("megabytes", format!("{}: EAL does not start with less than 16", self.megabytes)));
        }
        let prefix_fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.file_prefix.is_empty()
            || self.file_prefix.len() > 40
            || self.file_prefix.starts_with('.')
            || !self.file_prefix.chars().all(prefix_fits)
        {
            return Err((
                "file_prefix",
                format!(
                    "{:?}: must be 1-40 letters, digits, - _ . and not start with a dot",
                    self.file_prefix
                ),
            ));
        }
        if let Pci::Allow(addresses) = &self.pci {
            // An empty allow-list means "every device" to EAL: it would take the node's own NICs.
            if addresses.is_empty() {
                return Err(("pci", "the allow-list is empty; say Pci::None".into()));
            }
            if let Some(bad) = addresses.iter().find(|address| !is_address(address)) {
                return Err(("pci", format!("{bad:?}: must be a PCI address such as 0000:03:00.1")));
            }
        }
        for vdev in &self.vdevs {
            vdev.check().map_err(|error| ("vdevs", error.to_string()))?;
        }
        if self.iova == Iova::Physical && self.hugepages == Hugepages::Off {
            return Err(("iova", "physical addresses need hugepages".into()));
        }
        Ok(())
    }
}

/// Whether a text may be a PCI address, and nothing that EAL reads as anything else.
pub(crate) fn is_address(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c)) && text.contains(':')
}
