//! One invocation: the agent's part and, where the agent asks for it, an IPAM plugin's.

use culvert_api::agent::{CniReply, IpamRun};

use crate::call::Agent;
use crate::conf::Conf;
use crate::device_info;
use crate::ipam::Plugin;
use crate::log::{Level, Log};
use crate::output::Failure;

/// What the runtime wants.
pub(crate) struct Invocation<'a> {
    pub(crate) command: &'a str,
    pub(crate) config: &'a [u8],
    pub(crate) conf: &'a Conf,
}

impl Invocation<'_> {
    /// What to print, and the exit status.
    pub(crate) fn run(&self, log: &mut Log) -> Result<(Vec<u8>, u8), Failure> {
        let agent = Agent::new(self.conf, self.config);
        let reply = agent.call(self.command, None)?;
        let Some(IpamRun { plugin, again, release_first }) = reply.ipam.clone() else {
            return Ok(self.finish(reply, log));
        };
        let version = self.conf.version.as_deref();
        let plugin = Plugin { name: &plugin, config: self.config, version };
        log.write(Level::Debug, self.command, &format!("ipam plugin {} runs", plugin.name));
        match (self.command, again) {
            ("ADD", _) => {
                if release_first {
                    self.release(&plugin, log);
                }
                let reply = self.add(&agent, &plugin, log)?;
                Ok(self.finish(reply, log))
            }
            (_, true) => {
                let done = plugin.run(self.command);
                // Whatever became of it, the agent does its part.
                let reply = agent.call(self.command, Some(done.as_ref().cloned().unwrap_or_default()))?;
                if reply.exit_code == 0 {
                    done?;
                }
                Ok(self.finish(reply, log))
            }
            (_, false) => {
                let answer = self.finish(reply, log);
                plugin.run(self.command)?;
                Ok(answer)
            }
        }
    }

    /// The pod has its device; the plugin says which addresses go with it. All or nothing: what fails undoes the rest.
    fn add(&self, agent: &Agent<'_>, plugin: &Plugin<'_>, log: &mut Log) -> Result<CniReply, Failure> {
        let given = match plugin.run("ADD") {
            Ok(printed) => agent.call("ADD", Some(printed)),
            Err(failure) => {
                // The runtime sends a DEL, too: what is not undone here is undone then.
                match agent.call("DEL", Some(Vec::new())) {
                    Ok(reply) if reply.exit_code == 0 => {}
                    Ok(reply) => log.write(Level::Error, "DEL", &String::from_utf8_lossy(&reply.output)),
                    Err(left) => log.write(Level::Error, "DEL", &left.to_string()),
                }
                Err(failure)
            }
        };
        if !matches!(&given, Ok(reply) if reply.exit_code == 0) {
            self.release(plugin, log);
        }
        given
    }

    /// Has the plugin forget what it gave; that it cannot is no reason to stop.
    fn release(&self, plugin: &Plugin<'_>, log: &mut Log) {
        if let Err(failure) = plugin.run("DEL") {
            log.write(Level::Error, "DEL", &failure.to_string());
        }
    }

    fn finish(&self, reply: CniReply, log: &mut Log) -> (Vec<u8>, u8) {
        if let Some(file) = &reply.device_info
            && let Err(error) = device_info::put(file)
        {
            // A pod without it has its device all the same.
            let message = format!("device information {}: {error}", file.path);
            eprintln!("culvert-cni: {message}");
            log.write(Level::Error, self.command, &message);
        }
        (reply.output, u8::try_from(reply.exit_code).unwrap_or(1))
    }
}
