//! `culvert-agent --check-config`: what there is to say about configuration files, without starting anything.

use std::fs;
use std::io;
use std::path::PathBuf;

use culvert_api::config::device_plugin::ResourceListFile;
use culvert_api::config::nic::NicPolicy;
use culvert_api::value::ResourcePrefix;
use culvert_device_plugin::resource_list::{ResourceList, Severity, SyntaxError};
use culvert_host::HostRoot;

use crate::nic::{ObserveError, preview};

/// A list of resources that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is no JSON, or has no list.
    #[error("{}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: SyntaxError,
    },
    /// The machine cannot be looked at.
    #[error(transparent)]
    Observe(#[from] ObserveError),
}

/// A list of resources, and what there is to say about it.
#[derive(Debug)]
pub struct Checked {
    file: ResourceListFile,
    list: ResourceList,
}

impl Checked {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be used at all.
    pub fn read(file: ResourceListFile) -> Result<Self, CheckError> {
        let path = || file.path.clone();
        let text =
            fs::read_to_string(&file.path).map_err(|source| CheckError::Read { path: path(), source })?;
        let list = ResourceList::parse(&text, &file.prefix);
        let list = list.map_err(|source| CheckError::Syntax { path: path(), source })?;
        Ok(Self { file, list })
    }

    /// Whether there is nothing to say about the file.
    pub fn is_good(&self) -> bool {
        self.list.findings.is_empty()
    }

    /// A line for each finding, and one for the whole.
    pub fn lines(&self) -> Vec<String> {
        let path = self.file.path.display();
        let findings = &self.list.findings;
        let mut lines: Vec<String> = findings.iter().map(|finding| format!("{path}: {finding}")).collect();
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        let served = self.list.resources.iter().filter(|resource| resource.is_served()).count();
        lines.push(if findings.is_empty() {
            format!("{path}: good, {}", counted(served, "resource"))
        } else {
            let (errors, warnings) = (counted(errors, "error"), counted(findings.len() - errors, "warning"));
            format!("{path}: {}, {errors}, {warnings}", counted(served, "resource"))
        });
        lines
    }

    /// What each resource would have of the machine below `root` beside a policy, whose pools have this prefix, if no pod had
    /// anything. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub async fn devices(
        &self,
        root: &HostRoot,
        policy: &NicPolicy,
        prefix: &ResourcePrefix,
    ) -> Result<Vec<String>, CheckError> {
        let (devices, findings) = preview(root, policy, prefix, &self.list).await?;
        let path = self.file.path.display();
        let mut lines: Vec<String> = findings.iter().map(|finding| format!("{path}: {finding}")).collect();
        for resource in self.list.resources.iter().filter(|resource| resource.is_served()) {
            let name = &resource.name;
            let own = devices.iter().filter(|device| {
                device.pool.as_ref() == Some(&name.pool) && device.prefix.as_ref() == Some(&name.prefix)
            });
            let own: Vec<String> = own.map(|device| device.pci.to_string()).collect();
            lines.push(match own.as_slice() {
                [] => format!("{name}: no devices"),
                own => format!("{name}: {}: {}", counted(own.len(), "device"), own.join(" ")),
            });
        }
        Ok(lines)
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
