//! What the next process is to know from the beginning: the tables, the ports, and the neighbours on the underlay.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use culvert_api::fastpath as proto;
use culvert_api::value::Mac;
use prost::Message as _;

use crate::keep::{Inheritance, Keep, Ledger, LedgerError};
use crate::table::{Applied, Builder, TableError};

/// The names under which ledgers are kept.
pub const KEPT_TABLES: &str = "tables";
const KEPT_PORTS: &str = "ports";
const KEPT_NEIGHBOURS: &str = "neighbours";

/// What an entry of the ledger of tables is, by its first byte: tables, or changes to those of the entries before.
const TABLES: u8 = 0;
const CHANGES: u8 = 1;

/// Changes of that many bytes, and as many as the tables have, are joined with them.
const JOIN: u64 = 1 << 20;

/// Why the tables of another process are not in force.
#[derive(Debug, thiserror::Error)]
pub enum RecallError {
    /// The ledger.
    #[error("ledger of tables")]
    Ledger(#[from] LedgerError),
    /// An entry is none of ours.
    #[error("ledger of tables: entry {entry} is of unknown kind {kind:?}")]
    Kind {
        /// Which, from 0 on.
        entry: usize,
        /// Its first byte; `None` if it has none.
        kind: Option<u8>,
    },
    /// An entry cannot be decoded.
    #[error("ledger of tables: entry {entry}")]
    Decode {
        /// Which, from 0 on.
        entry: usize,
        /// Why not.
        source: prost::DecodeError,
    },
    /// This version does not accept what the other did.
    #[error("ledger of tables: entry {entry}")]
    Refused {
        /// Which, from 0 on.
        entry: usize,
        /// Why not.
        source: TableError,
    },
}

/// Writes tables and ports down.
#[derive(Debug, Default)]
pub struct Memory {
    keep: Keep,
    tables: Option<Ledger>,
    ports: Option<Ledger>,
    neighbours: Option<Ledger>,
    /// Bytes of the tables that changes are written behind.
    base: u64,
}

/// What another process knew.
#[derive(Debug, Default)]
pub struct Recalled {
    /// What the tables were made of, once there were any.
    pub tables: Option<(Builder, Applied)>,
    /// Ports, as they were listed.
    pub ports: Vec<proto::Port>,
    /// Next hops on the underlay.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

/// The entry of the ledger of neighbours: the newest counts.
#[derive(Clone, PartialEq, prost::Message)]
struct Neighbours {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Neighbour>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Neighbour {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    mac: Vec<u8>,
}

impl Neighbour {
    fn read(&self) -> Option<(IpAddr, Mac)> {
        let v4 = <[u8; 4]>::try_from(&self.address[..]).map(IpAddr::from);
        let address = v4.or_else(|_| <[u8; 16]>::try_from(&self.address[..]).map(IpAddr::from)).ok()?;
        let mac = <[u8; 6]>::try_from(&self.mac[..]).ok()?;
        Some((address, Mac::try_from(mac).ok()?))
    }
}

impl Memory {
    /// Reads what another process left and goes on behind it. The second is why the tables are not in force, if there were
    /// any and they are not.
    pub fn recall(keep: &Keep, inheritance: &mut Inheritance) -> (Self, Recalled, Option<RecallError>) {
        let mut memory = Self { keep: keep.clone(), ..Self::default() };
        let mut recalled = Recalled::default();
        let mut refused = None;
        if let Some(descriptor) = inheritance.take(KEPT_TABLES) {
            match read_tables(descriptor) {
                Ok((ledger, tables)) => {
                    memory.base = ledger.len();
                    memory.tables = Some(ledger);
                    recalled.tables = tables;
                }
                Err(error) => refused = Some(error),
            }
        }
        if let Some(descriptor) = inheritance.take(KEPT_PORTS) {
            match Ledger::open(descriptor) {
                Ok((ledger, entries)) => {
                    // One entry: all ports there are.
                    let list = entries.last().map(|entry| proto::ListPortsResponse::decode(&entry[..]));
                    recalled.ports = list.and_then(Result::ok).unwrap_or_default().ports;
                    memory.ports = Some(ledger);
                }
                Err(error) => {
                    tracing::warn!(error = super::chain(&error), "what ports there were is not known");
                }
            }
        }
        if let Some(Ok((ledger, entries))) = inheritance.take(KEPT_NEIGHBOURS).map(Ledger::open) {
            // What cannot be read is asked for.
            let list =
                entries.last().and_then(|entry| Neighbours::decode(&entry[..]).ok()).unwrap_or_default();
            recalled.neighbours = list.all.iter().filter_map(Neighbour::read).collect();
            memory.neighbours = Some(ledger);
        }
        (memory, recalled, refused)
    }

    /// The agent's tables are these, or, unless they are `synced`, these and those before.
    pub(super) fn replaced(&mut self, tables: &proto::Tables) {
        let entry = entry(TABLES, tables);
        let is_all = tables.synced && tables.node.is_some();
        self.write("tables", |memory| {
            let ledger = open(&memory.keep, &mut memory.tables, KEPT_TABLES)?;
            if is_all {
                ledger.replace(&entry)?;
            } else {
                ledger.append(&entry)?;
            }
            memory.base = ledger.len();
            Ok(())
        });
    }

    /// The agent's tables changed.
    pub(super) fn changed(&mut self, changes: &proto::Changes) {
        let entry = entry(CHANGES, changes);
        self.write("changes", |memory| {
            let ledger = open(&memory.keep, &mut memory.tables, KEPT_TABLES)?;
            ledger.append(&entry)?;
            if ledger.len() > 2 * memory.base + JOIN {
                if let Some(joined) = join(ledger)? {
                    ledger.replace(&joined)?;
                }
                memory.base = ledger.len();
            }
            Ok(())
        });
    }

    /// The ports are these.
    pub(super) fn has_ports(&mut self, ports: Vec<proto::Port>) {
        let entry = proto::ListPortsResponse { ports }.encode_to_vec();
        self.write("ports", |memory| open(&memory.keep, &mut memory.ports, KEPT_PORTS)?.replace(&entry));
    }

    /// The next hops on the underlay have these Ethernet addresses.
    pub(super) fn has_neighbours(&mut self, neighbours: impl Iterator<Item = (IpAddr, Mac)>) {
        let neighbour = |(address, mac): (IpAddr, Mac)| Neighbour {
            address: crate::table::octets(address),
            mac: mac.octets().to_vec(),
        };
        let entry = Neighbours { all: neighbours.map(neighbour).collect() }.encode_to_vec();
        self.write("neighbours", |memory| {
            open(&memory.keep, &mut memory.neighbours, KEPT_NEIGHBOURS)?.replace(&entry)
        });
    }

    fn write(&mut self, what: &str, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = write(self) {
            // A ledger that lacks an entry is worse than none.
            [KEPT_TABLES, KEPT_PORTS, KEPT_NEIGHBOURS].iter().for_each(|name| self.keep.forget(name));
            (self.tables, self.ports, self.neighbours) = (None, None, None);
            tracing::error!(%error, what, "not written down: the next process will have to wait for the agent");
        }
    }
}

/// The ledger, which is made if there is none.
fn open<'a>(keep: &Keep, ledger: &'a mut Option<Ledger>, name: &str) -> io::Result<&'a mut Ledger> {
    if ledger.is_none() {
        let new = Ledger::create(name)?;
        keep.store(name, &[new.as_fd()]);
        *ledger = Some(new);
    }
    Ok(ledger.as_mut().expect("is there now"))
}

fn entry(kind: u8, message: &impl prost::Message) -> Vec<u8> {
    let mut entry = Vec::with_capacity(1 + message.encoded_len());
    entry.push(kind);
    message.encode_raw(&mut entry);
    entry
}

type Tables = Option<(Builder, Applied)>;

fn read_tables(descriptor: std::os::fd::OwnedFd) -> Result<(Ledger, Tables), RecallError> {
    let (ledger, entries) = Ledger::open(descriptor)?;
    let mut builder = Builder::new();
    let mut applied = None;
    for (number, entry) in entries.iter().enumerate() {
        let (kind, rest) = entry.split_first().map_or((None, &[][..]), |(&kind, rest)| (Some(kind), rest));
        let decode = |source| RecallError::Decode { entry: number, source };
        let outcome = match kind {
            Some(TABLES) => builder.apply(&proto::Tables::decode(rest).map_err(decode)?),
            Some(CHANGES) => builder.change(&proto::Changes::decode(rest).map_err(decode)?),
            kind => return Err(RecallError::Kind { entry: number, kind }),
        };
        applied = Some(outcome.map_err(|source| RecallError::Refused { entry: number, source })?);
    }
    Ok((ledger, applied.map(|applied| (builder, applied))))
}

/// One entry that says what all entries of the ledger say; `None` unless the first of them are complete tables and the others
/// changes.
fn join(ledger: &Ledger) -> io::Result<Option<Vec<u8>>> {
    let copy = ledger.as_fd().try_clone_to_owned()?;
    let entries = match Ledger::open(copy) {
        Ok((_, entries)) => entries,
        Err(error) => return Err(io::Error::other(error)),
    };
    let joined = || {
        let ([TABLES, first @ ..], changes) =
            entries.split_first().map(|(first, rest)| (&first[..], rest))?
        else {
            return None;
        };
        let mut tables = proto::Tables::decode(first).ok().filter(|tables| tables.synced)?;
        for entry in changes {
            let [CHANGES, changes @ ..] = &entry[..] else { return None };
            fold(&mut tables, proto::Changes::decode(changes).ok()?);
        }
        Some(entry(TABLES, &tables))
    };
    Ok(joined())
}

/// Carries changes out on tables that they are meant for.
fn fold(tables: &mut proto::Tables, changes: proto::Changes) {
    let proto::Changes { revision, remotes, removed_remotes, services, removed_services, .. } = changes;
    tables.revision = revision;
    let mut by_name: HashMap<_, _> = remotes.into_iter().map(|node| (node.name.clone(), node)).collect();
    tables.remotes.retain(|node| !by_name.contains_key(&node.name) && !removed_remotes.contains(&node.name));
    tables.remotes.extend(by_name.drain().map(|(_, node)| node));
    let key =
        |service: &proto::Service| (service.tenant, service.protocol, service.vip.clone(), service.port);
    let gone = removed_services.into_iter().map(|key| (key.tenant, key.protocol, key.vip, key.port));
    let gone: std::collections::HashSet<_> = gone.chain(services.iter().map(key)).collect();
    tables.services.retain(|service| !gone.contains(&key(service)));
    tables.services.extend(services);
}

#[cfg(test)]
mod tests;
