//! One invocation: the environment variables and the configuration, checked.

use std::path::PathBuf;

use culvert_api::agent::CniRequest;
use culvert_api::value::{IfName, Mac};
use ipnet::IpNet;

use super::error::CniError;
use super::netconf::{self, Basics, NetConf, ValidAttachment};
use super::requested::parse_addresses;
use super::version::Version;
use crate::pods::{Key, PodName};

/// A checked invocation.
#[derive(Debug)]
pub(super) enum Command {
    Add(Box<Attachment>),
    /// And the pod's namespace, where the runtime still knows it.
    Del(Key, Basics, Option<PathBuf>),
    Check(Box<Attachment>),
    /// What of the network is still in use.
    Gc(Basics, Vec<ValidAttachment>),
    Status(Basics),
}

/// What ADD and CHECK are about.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) key: Key,
    pub(super) netns: PathBuf,
    pub(super) args: Args,
    pub(super) conf: NetConf,
}

/// CNI_ARGS, as far as they are of interest. Keys may come twice (Multus repeats them): the last one counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Args {
    pub(super) pod: Option<PodName>,
    /// The pod's UID.
    pub(super) uid: Option<String>,
    pub(super) ips: Vec<IpNet>,
    pub(super) mac: Option<Mac>,
}

impl Command {
    /// Checks a request. `version` is set to that of the request as soon as it is known.
    pub(super) fn parse(request: &CniRequest, version: &mut Version) -> Result<Self, CniError> {
        let conf = netconf::object(&request.config, version)?;
        let command = request.command.as_str();
        if command == "DEL" {
            // What is wrong with the configuration was wrong at ADD, too; a DEL that fails keeps the pod from ending.
            let netns = Some(PathBuf::from(&request.netns)).filter(|path| !path.as_os_str().is_empty());
            return Ok(Self::Del(key(request)?, Basics::lenient(&conf), netns));
        }
        netconf::check_version(&conf)?;
        let since = |first: Version| {
            if *version >= first {
                return Ok(());
            }
            Err(CniError::version(format!("CNI_COMMAND {command}: needs cniVersion {first}, not {version}")))
        };
        match command {
            "ADD" => Ok(Self::Add(Box::new(Attachment::parse(request, NetConf::parse(&conf)?)?))),
            "CHECK" => {
                since(Version::V040)?;
                Ok(Self::Check(Box::new(Attachment::parse(request, NetConf::parse(&conf)?)?)))
            }
            "GC" => {
                since(Version::V110)?;
                let mut basics = Basics::parse(&conf)?;
                let valid = basics.valid_attachments.take().ok_or_else(|| {
                    CniError::config("cni.dev/valid-attachments: GC without it would remove everything")
                })?;
                Ok(Self::Gc(basics, valid))
            }
            "STATUS" => {
                since(Version::V110)?;
                Ok(Self::Status(Basics::parse(&conf)?))
            }
            other => Err(CniError::environment(format!(
                "CNI_COMMAND {other:?}: must be ADD, DEL, CHECK, GC, STATUS or VERSION"
            ))),
        }
    }
}

impl Attachment {
    fn parse(request: &CniRequest, conf: NetConf) -> Result<Self, CniError> {
        if request.netns.is_empty() {
            return Err(CniError::environment(
                "CNI_NETNS: is not set; it must be the path of a network namespace",
            ));
        }
        Ok(Self {
            key: key(request)?,
            netns: PathBuf::from(&request.netns),
            args: Args::parse(&request.args)?,
            conf,
        })
    }
}

fn key(request: &CniRequest) -> Result<Key, CniError> {
    let id = &request.container_id;
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) || !id.bytes().all(legal) {
        return Err(CniError::environment(format!(
            "CNI_CONTAINERID {id:?}: must begin with a letter or digit and hold only those, '_', '.' and '-'"
        )));
    }
    let ifname: IfName =
        request.ifname.parse().map_err(|e| CniError::environment(format!("CNI_IFNAME: {e}")))?;
    Ok(Key { container_id: id.clone(), ifname })
}

impl Args {
    /// Reads `KEY=VALUE;KEY=VALUE`. Keys that are not ours pass.
    fn parse(text: &str) -> Result<Self, CniError> {
        let mut args = Self::default();
        let (mut namespace, mut name) = (String::new(), String::new());
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(CniError::environment(format!(
                    "CNI_ARGS: {pair:?} is not of the form KEY=VALUE"
                )));
            };
            match key {
                "K8S_POD_NAMESPACE" => value.clone_into(&mut namespace),
                "K8S_POD_NAME" => value.clone_into(&mut name),
                "K8S_POD_UID" => args.uid = uid(value)?,
                "IP" => {
                    args.ips = parse_addresses(value).ok_or_else(|| {
                        CniError::environment(format!(
                            "CNI_ARGS: IP={value}: must be IP addresses separated by commas"
                        ))
                    })?;
                }
                "MAC" if value.is_empty() => args.mac = None,
                "MAC" => {
                    let mac = value.parse().map_err(|e| CniError::environment(format!("CNI_ARGS: {e}")))?;
                    args.mac = Some(mac);
                }
                _ => {}
            }
        }
        args.pod = (!namespace.is_empty() && !name.is_empty()).then_some(PodName { namespace, name });
        Ok(args)
    }
}

/// A UID, which becomes part of a path.
fn uid(text: &str) -> Result<Option<String>, CniError> {
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(CniError::environment(format!(
            "CNI_ARGS: K8S_POD_UID={text}: must hold only letters, digits and '-'"
        )));
    }
    Ok(Some(text.to_owned()).filter(|uid| !uid.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_foreign_keys_of_cni_args_pass_and_the_last_one_counts() {
        let text =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=p;K8S_POD_NAME=q;X=;IP=10.1.0.2,fd00::2/64";
        let args = Args::parse(text).unwrap();
        assert_eq!(args.pod, Some(PodName { namespace: "a".to_owned(), name: "q".to_owned() }));
        assert_eq!(args.ips, ["10.1.0.2/32".parse::<IpNet>().unwrap(), "fd00::2/64".parse().unwrap()]);
        assert_eq!(Args::parse("").unwrap(), Args::default());
    }

    #[test]
    fn cni_args_that_make_no_sense_are_refused_by_name() {
        for (text, part) in [
            ("K8S_POD_NAME", "KEY=VALUE"),
            ("IP=x", "IP=x"),
            ("MAC=01:00:00:00:00:00", "multicast"),
            ("K8S_POD_UID=../..", "K8S_POD_UID=../.."),
        ] {
            let error = Args::parse(text).unwrap_err();
            assert_eq!(error.code(), 4);
            assert!(
                error.to_string().contains("CNI_ARGS") && error.to_string().contains(part),
                "{text}: {error}"
            );
        }
    }
}
