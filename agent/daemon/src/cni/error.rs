//! Error objects (CNI specification 1.1.0, section 5, "Error").

use std::fmt;

use serde_json::json;

use super::version::Version;
use crate::errors::chain;
use crate::nic::{self, ReleaseError};
use crate::pods::{AttachError, CheckError, SocketError};

/// An error with one of the specification's codes, or one of our own from 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    code: u32,
    msg: &'static str,
    details: String,
}

/// Codes of the specification, and what they mean in a few words.
const INCOMPATIBLE_VERSION: (u32, &str) = (1, "incompatible CNI version");
const UNKNOWN_CONTAINER: (u32, &str) = (3, "unknown container");
const INVALID_ENVIRONMENT: (u32, &str) = (4, "invalid environment variable");
const IO_FAILURE: (u32, &str) = (5, "input/output failure");
const DECODE_FAILURE: (u32, &str) = (6, "network configuration is not valid JSON");
const INVALID_CONFIG: (u32, &str) = (7, "invalid network configuration");
const TRY_AGAIN: (u32, &str) = (11, "try again later");
const UNAVAILABLE: (u32, &str) = (50, "not available");
const CUT_OFF: (u32, &str) = (51, "not available, and pods may be cut off");
/// Our own.
const NOT_AS_ATTACHED: (u32, &str) = (100, "attachment is not as it was made");
const NO_ADDRESS: (u32, &str) = (101, "no address");
const NOT_DONE: (u32, &str) = (102, "attachment failed");
const IPAM_FAILED: (u32, &str) = (103, "ipam plugin failed");

impl CniError {
    /// The code.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The object for standard output.
    pub fn to_json(&self, version: Version) -> Vec<u8> {
        let object = json!({
            "cniVersion": version.as_str(),
            "code": self.code,
            "msg": self.msg,
            "details": self.details,
        });
        object.to_string().into_bytes()
    }

    fn new((code, msg): (u32, &'static str), details: impl Into<String>) -> Self {
        Self { code, msg, details: details.into() }
    }

    /// A version of the CNI that is not spoken here.
    pub(super) fn version(details: impl Into<String>) -> Self {
        Self::new(INCOMPATIBLE_VERSION, details)
    }

    /// An environment variable that is missing or makes no sense; `details` names it.
    pub(super) fn environment(details: impl Into<String>) -> Self {
        Self::new(INVALID_ENVIRONMENT, details)
    }

    /// A configuration that is no JSON.
    pub(super) fn decode(details: impl Into<String>) -> Self {
        Self::new(DECODE_FAILURE, details)
    }

    /// A configuration that makes no sense.
    pub(super) fn config(details: impl Into<String>) -> Self {
        Self::new(INVALID_CONFIG, details)
    }

    /// An IPAM plugin that did not do what it should.
    pub(super) fn ipam(details: impl Into<String>) -> Self {
        Self::new(IPAM_FAILED, details)
    }

    /// The answer to STATUS when ADD would not work.
    pub(super) fn unavailable(error: &dyn std::error::Error) -> Self {
        Self::new(UNAVAILABLE, chain(error))
    }

    /// The same, for a reason that is no error of another part.
    pub(super) fn unavailable_as(reason: &str) -> Self {
        Self::new(UNAVAILABLE, reason)
    }

    /// The answer to STATUS when pods that are attached have no network either.
    pub(super) fn cut_off(error: &dyn std::error::Error) -> Self {
        Self::new(CUT_OFF, chain(error))
    }

    /// The same, for a reason that is no error of another part.
    pub(super) fn cut_off_as(reason: &str) -> Self {
        Self::new(CUT_OFF, reason)
    }

    /// An attachment that differs from what `prevResult` says.
    pub(super) fn differs(problems: &[String]) -> Self {
        Self::new(NOT_AS_ATTACHED, problems.join("; "))
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.msg, self.details)
    }
}

impl From<AttachError> for CniError {
    fn from(error: AttachError) -> Self {
        let kind = match &error {
            AttachError::NotReady(_) => TRY_AGAIN,
            AttachError::Ipam(e) if e.is_temporary() => TRY_AGAIN,
            AttachError::FastPath(e) if e.is_away() => TRY_AGAIN,
            AttachError::Ipam(_) => NO_ADDRESS,
            AttachError::MacTaken { .. } => INVALID_CONFIG,
            AttachError::Socket(SocketError::Description { .. }) | AttachError::Store(_) => IO_FAILURE,
            AttachError::Socket(_) => INVALID_CONFIG,
            AttachError::Netns(_) => INVALID_ENVIRONMENT,
            AttachError::FastPath(_) | AttachError::Interface(_) | AttachError::Task(_) => NOT_DONE,
        };
        Self::new(kind, chain(&error))
    }
}

impl From<CheckError> for CniError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Unknown(_) => Self::new(UNKNOWN_CONTAINER, error.to_string()),
            CheckError::Faults(_) => Self::new(NOT_AS_ATTACHED, error.to_string()),
            CheckError::Attach(e) => e.into(),
        }
    }
}

impl From<nic::AttachError> for CniError {
    fn from(error: nic::AttachError) -> Self {
        use nic::AttachError as E;
        let kind = match &error {
            E::NoVf(_) | E::NoPfInterface { .. } | E::MacTaken { .. } => INVALID_CONFIG,
            E::HostNetns(_) | E::NoNetns(_) => {
                return Self::environment(format!("CNI_NETNS: {}", chain(&error)));
            }
            E::InUse { .. } | E::NoDriver(_) | E::Stopped => TRY_AGAIN,
            E::Journal(_) | E::Observe(_) => IO_FAILURE,
            E::Unknown(_) => UNKNOWN_CONTAINER,
            E::Twice { .. } | E::Failed { .. } => NOT_DONE,
        };
        Self::new(kind, chain(&error))
    }
}

impl From<ReleaseError> for CniError {
    fn from(error: ReleaseError) -> Self {
        Self::new(NOT_DONE, chain(&error))
    }
}

impl From<nic::CheckError> for CniError {
    fn from(error: nic::CheckError) -> Self {
        let kind = match &error {
            nic::CheckError::Unknown(_) => UNKNOWN_CONTAINER,
            nic::CheckError::Differs { .. } => NOT_AS_ATTACHED,
            nic::CheckError::Observe(_) => IO_FAILURE,
            nic::CheckError::Stopped => TRY_AGAIN,
        };
        Self::new(kind, chain(&error))
    }
}
