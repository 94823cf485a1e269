//! Differences to the tables in force.

use std::collections::{BTreeMap, BTreeSet};

use culvert_api::fastpath as proto;
use culvert_packet::flow::Tenant;
use ipnet::IpNet;

use super::builder::{Applied, Builder};
use super::check::{check_count, check_remotes, check_services, slots};
use super::error::{Problem, TableError};
use super::map::Map;
use super::remote::{MAX_REMOTES, RemoteNode};
use super::service::{MAX_SERVICES, ServiceKey, ServiceSpec};

/// Changes once they have been checked.
struct Checked {
    remotes: BTreeMap<String, RemoteNode>,
    removed_remotes: BTreeSet<String>,
    services: Map<ServiceKey, ServiceSpec>,
    removed_services: BTreeSet<ServiceKey>,
}

impl Builder {
    /// Changes the agent's tables, all that is said or, with an error, nothing.
    ///
    /// The outcome is that of [`apply`](Self::apply) with the whole tables, but for the numbers of slots.
    pub fn change(&mut self, changes: &proto::Changes) -> Result<Applied, TableError> {
        let checked = self.check_changes(changes)?;
        self.begin(changes.revision);
        self.remove_remotes(|name| checked.removed_remotes.contains(name));
        for key in checked.removed_services {
            let slot = self.snapshot.services.slots.get(&key);
            let service = slot.and_then(|slot| self.snapshot.services.by_slot.get(slot as usize)?.clone());
            if let Some(service) = service {
                self.remove_service(&service);
            }
        }
        self.put_remotes(checked.remotes);
        let new_services = self.put_services(checked.services);
        Ok(self.applied(new_services))
    }

    fn check_changes(&self, changes: &proto::Changes) -> Result<Checked, TableError> {
        let refused = |problem| TableError::new("changes", problem);
        let (base, current) = (changes.base, self.snapshot.revision);
        if base != current {
            return Err(refused(Problem::OtherBase { base, current }));
        }
        if changes.revision <= base {
            return Err(refused(Problem::NotAbove { new: changes.revision, base }));
        }
        if self.snapshot.local.is_none() {
            return Err(refused(Problem::NoLocalNode));
        }
        let services = check_services(&changes.services)?;
        let removed_services = self.check_removed_services(&changes.removed_services, &services)?;
        let count = services.keys().filter(|key| self.snapshot.service(key).is_none()).count();
        check_count("services", self.service_count + count - removed_services.len(), MAX_SERVICES)?;
        let remotes = check_remotes(&changes.remotes)?;
        let removed_remotes = self.check_removed_remotes(&changes.removed_remotes, &remotes)?;
        self.check_taken(&remotes, &removed_remotes)?;
        let goes = |name: &String| remotes.contains_key(name) || removed_remotes.contains(name);
        let stays = self.remotes.iter().filter(|(name, _)| !goes(name)).map(|(_, (_, node))| node);
        check_count("remotes", slots(stays.chain(remotes.values())), MAX_REMOTES)?;
        Ok(Checked { remotes, removed_remotes, services, removed_services })
    }

    fn check_removed_services(
        &self,
        list: &[proto::ServiceKey],
        services: &Map<ServiceKey, ServiceSpec>,
    ) -> Result<BTreeSet<ServiceKey>, TableError> {
        let mut removed = BTreeSet::new();
        for key in list {
            let key = ServiceKey::try_from(key)?;
            let there = self.snapshot.service(&key).is_some();
            let again = services.contains_key(&key) || !removed.insert(key);
            self.check_removal(there, again).map_err(|p| TableError::new(format!("service {key}"), p))?;
        }
        Ok(removed)
    }

    fn check_removed_remotes(
        &self,
        list: &[String],
        remotes: &BTreeMap<String, RemoteNode>,
    ) -> Result<BTreeSet<String>, TableError> {
        let mut removed = BTreeSet::new();
        for name in list {
            let there = self.remotes.contains_key(name);
            let again = remotes.contains_key(name) || !removed.insert(name.clone());
            self.check_removal(there, again).map_err(|p| TableError::new(format!("remote {name}"), p))?;
        }
        Ok(removed)
    }

    fn check_removal(&self, there: bool, again: bool) -> Result<(), Problem> {
        match (self.complete, there, again) {
            (false, _, _) => Err(Problem::NotSynced),
            (_, false, _) => Err(Problem::NotThere),
            (_, _, true) => Err(Problem::Again),
            (true, true, false) => Ok(()),
        }
    }

    /// Whether a remote node would have what one has that stays as it is.
    fn check_taken(
        &self,
        remotes: &BTreeMap<String, RemoteNode>,
        removed: &BTreeSet<String>,
    ) -> Result<(), TableError> {
        if remotes.is_empty() {
            return Ok(());
        }
        let vteps: Map<_, _> = remotes.values().map(|node| (node.vtep, node)).collect();
        let nets: Map<(Tenant, IpNet), _> =
            remotes.values().flat_map(|node| node.ranges().map(move |range| (range, node))).collect();
        let stays = |name: &String| !remotes.contains_key(name) && !removed.contains(name);
        for (name, (_, known)) in self.remotes.iter().filter(|(name, _)| stays(name)) {
            let taken = |node: &RemoteNode, field, address| {
                let owner = format!("remote {name}");
                TableError::new(
                    format!("remote {}", node.name),
                    Problem::AddressTaken { field, address, owner },
                )
            };
            if let Some(node) = vteps.get(&known.vtep) {
                return Err(taken(node, "vtep", known.vtep));
            }
            let claimed = known.ranges().find_map(|range| Some((range.1, nets.get(&range)?)));
            if let Some((net, node)) = claimed {
                return Err(taken(node, "podCIDR", net.addr()));
            }
        }
        Ok(())
    }
}
