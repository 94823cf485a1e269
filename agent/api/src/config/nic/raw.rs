//! The policy as written, and how it becomes one that makes sense.

use super::*;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct RawNicPolicy {
    #[serde(default)]
    apply_at_start: bool,
    pfs: Vec<RawPf>,
}

/// A struct that also has the keys of a VF's settings: serde cannot flatten them in and still refuse unknown keys.
macro_rules! with_settings {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct $name {
            $($(#[$meta])* $field: $type,)*
            vlan: Option<VlanId>,
            qos: Option<VlanQos>,
            vlan_protocol: Option<VlanProtocol>,
            spoof_check: Option<bool>,
            trust: Option<bool>,
            link_state: Option<LinkState>,
            min_rate: Option<Rate>,
            max_rate: Option<Rate>,
            mtu: Option<Mtu>,
            driver: Option<VfDriver>,
        }

        impl $name {
            /// These settings, and for those that are not given the ones of `base`.
            fn over(&self, base: &Settings) -> Settings {
                Settings {
                    vlan: self.vlan.unwrap_or(base.vlan),
                    // A priority and a protocol belong to the VLAN that they are written beside.
                    qos: self.qos.unwrap_or(if self.vlan.is_some() { VlanQos::MIN } else { base.qos }),
                    vlan_protocol: self
                        .vlan_protocol
                        .unwrap_or(if self.vlan.is_some() { VlanProtocol::default() } else { base.vlan_protocol }),
                    spoof_check: self.spoof_check.or(base.spoof_check),
                    trust: self.trust.or(base.trust),
                    link_state: self.link_state.or(base.link_state),
                    min_rate: self.min_rate.or(base.min_rate),
                    max_rate: self.max_rate.or(base.max_rate),
                    mtu: self.mtu.or(base.mtu),
                    driver: self.driver.unwrap_or(base.driver),
                }
            }
        }
    };
}

with_settings!(RawPf {
    pf: PfSelector,
    vfs: u16,
    #[serde(default)]
    mac: RawMac,
    #[serde(default)]
    overrides: Vec<RawOverride>,
    #[serde(default)]
    pools: Vec<RawPool>,
});

with_settings!(RawOverride {
    vfs: VfSet,
    mac: Option<Mac>,
});

/// `derived`, `{ base: MAC }` or `{ list: [MAC...] }`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum RawMac {
    #[default]
    Derived,
    Base(Mac),
    List(Vec<Mac>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawPool {
    name: PoolName,
    vfs: VfSet,
}

#[derive(Clone)]
struct Settings {
    vlan: VlanId,
    qos: VlanQos,
    vlan_protocol: VlanProtocol,
    spoof_check: Option<bool>,
    trust: Option<bool>,
    link_state: Option<LinkState>,
    min_rate: Option<Rate>,
    max_rate: Option<Rate>,
    mtu: Option<Mtu>,
    driver: VfDriver,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vlan: VlanId::MIN,
            qos: VlanQos::MIN,
            vlan_protocol: VlanProtocol::default(),
            spoof_check: None,
            trust: None,
            link_state: None,
            min_rate: None,
            max_rate: None,
            mtu: None,
            driver: VfDriver::default(),
        }
    }
}

/// VF indexes: `3`, `"0-3"`, `"0-1,5"`; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
struct VfSet(BTreeSet<VfIndex>);

impl FromStr for VfSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = |part: &str| -> Result<VfIndex, String> {
            part.trim().parse().map_err(|_| format!("vfs {text:?}: must look like 3, 0-3 or 0-1,5"))
        };
        let mut set = BTreeSet::new();
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (index(first)?, index(last)?);
            if first > last {
                return Err(format!("vfs {text:?}: {first}-{last} is the wrong way round"));
            }
            for vf in first.get()..=last.get() {
                if !set.insert(vf_index(usize::from(vf))) {
                    return Err(format!("vfs {text:?}: names vf {vf} twice"));
                }
            }
        }
        Ok(Self(set))
    }
}

impl<'de> Deserialize<'de> for VfSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = VfSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a VF index or ranges of them, such as 3 or \"0-1,5\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<VfSet, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<VfSet, E> {
                number.to_string().parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<VfSet, E> {
                number.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl RawNicPolicy {
    pub(in super::super) fn validate(self) -> Result<NicPolicy, ConfigError> {
        let mut seen = BTreeSet::new();
        let mut macs = BTreeMap::new();
        let mut pfs = Vec::with_capacity(self.pfs.len());
        for raw in self.pfs {
            if !seen.insert(raw.pf.clone()) {
                return Err(ConfigError::value("nic.pfs", &raw.pf, "is named twice; give each PF one entry"));
            }
            let policy = raw.validate()?;
            for (index, vf) in policy.vfs.iter().enumerate() {
                let MacPolicy::Fixed(mac) = vf.mac else { continue };
                let here = format!("vf {index} of {}", policy.pf);
                if let Some(other) = macs.insert(mac, here.clone()) {
                    return Err(ConfigError::value(
                        format!("{here}: mac"),
                        mac,
                        format!("is that of {other}, too"),
                    ));
                }
            }
            pfs.push(policy);
        }
        Ok(NicPolicy { apply_at_start: self.apply_at_start, pfs })
    }
}

impl RawPf {
    fn validate(self) -> Result<PfPolicy, ConfigError> {
        let pf = self.pf.clone();
        let count = usize::from(self.vfs);
        let base = self.over(&Settings::default());
        let mut settings = vec![base.clone(); count];
        let mut macs = self.macs()?;
        let mut overridden = BTreeSet::new();
        for raw in &self.overrides {
            if let (Some(mac), true) = (raw.mac, raw.vfs.0.len() > 1) {
                let reason = format!("is one address for {} VFs", raw.vfs.0.len());
                return Err(ConfigError::value(format!("overrides of {pf}: mac"), mac, reason));
            }
            for index in raw.vfs.indexes(&pf, "overrides", count)? {
                if !overridden.insert(index) {
                    let reason = "is in two overrides; give it one";
                    return Err(ConfigError::value(format!("overrides of {pf}: vf"), index, reason));
                }
                settings[index] = raw.over(&base);
                if let Some(mac) = raw.mac {
                    macs[index] = MacPolicy::Fixed(mac);
                }
            }
        }
        let mut pools: Vec<Option<PoolName>> = vec![None; count];
        let mut names = BTreeSet::new();
        for pool in &self.pools {
            if !names.insert(&pool.name) {
                let reason = "is there twice; join their vfs";
                return Err(ConfigError::value(format!("pools of {pf}: pool"), &pool.name, reason));
            }
            for index in pool.vfs.indexes(&pf, &format!("pool {}", pool.name), count)? {
                if let Some(other) = pools[index].replace(pool.name.clone()) {
                    let reason = format!("is in pool {other}, too");
                    return Err(ConfigError::value(format!("pool {} of {pf}: vf", pool.name), index, reason));
                }
            }
        }
        let mut vfs = Vec::with_capacity(count);
        for (index, ((settings, mac), pool)) in settings.into_iter().zip(macs).zip(pools).enumerate() {
            vfs.push(settings.validate(&format!("vf {index} of {pf}"), mac, pool)?);
        }
        Ok(PfPolicy { pf, vfs })
    }

    fn macs(&self) -> Result<Vec<MacPolicy>, ConfigError> {
        let count = usize::from(self.vfs);
        match &self.mac {
            RawMac::Derived => Ok(vec![MacPolicy::Derived; count]),
            RawMac::List(list) if list.len() == count => {
                Ok(list.iter().copied().map(MacPolicy::Fixed).collect())
            }
            RawMac::List(list) => {
                let reason = format!("must be {count}, one for each VF");
                Err(ConfigError::value(
                    format!("{}: number of addresses in mac list", self.pf),
                    list.len(),
                    reason,
                ))
            }
            RawMac::Base(base) => (0..u64::from(self.vfs))
                .map(|index| {
                    plus(*base, index).map(MacPolicy::Fixed).ok_or_else(|| {
                        let reason = format!("leaves no unicast addresses for {count} VFs");
                        ConfigError::value(format!("{}: mac base", self.pf), base, reason)
                    })
                })
                .collect(),
        }
    }
}

/// `base` as a number, plus `index`; `None` past the last unicast address of that first octet.
fn plus(base: Mac, index: u64) -> Option<Mac> {
    let [a, b, c, d, e, f] = base.octets();
    let [x, y, a2, b, c, d, e, f] =
        u64::from_be_bytes([0, 0, a, b, c, d, e, f]).checked_add(index)?.to_be_bytes();
    if [x, y, a2] != [0, 0, a] {
        return None;
    }
    Mac::try_from([a, b, c, d, e, f]).ok()
}

fn vf_index(index: usize) -> VfIndex {
    VfIndex::try_from(index as u32).expect("came from a u16")
}

impl VfSet {
    /// The indexes, all below `count`.
    fn indexes(&self, pf: &PfSelector, owner: &str, count: usize) -> Result<Vec<usize>, ConfigError> {
        let indexes: Vec<usize> = self.0.iter().map(|vf| usize::from(vf.get())).collect();
        match indexes.last() {
            Some(last) if *last >= count => {
                let reason = match count {
                    0 => "there are no VFs (vfs: 0)".to_owned(),
                    _ => format!("must be 0-{} (vfs: {count})", count - 1),
                };
                Err(ConfigError::value(format!("{owner} of {pf}: vf"), last, reason))
            }
            _ => Ok(indexes),
        }
    }
}

impl Settings {
    fn validate(self, object: &str, mac: MacPolicy, pool: Option<PoolName>) -> Result<VfPolicy, ConfigError> {
        let error = |key: &str, value: &dyn fmt::Display, reason: &str| {
            Err(ConfigError::value(format!("{object}: {key}"), value, reason))
        };
        if self.vlan == VlanId::MIN && self.qos != VlanQos::MIN {
            return error("qos", &self.qos, "needs a vlan");
        }
        if self.vlan == VlanId::MIN && self.vlan_protocol == VlanProtocol::Dot1ad {
            return error("vlanProtocol", &"802.1ad", "needs a vlan");
        }
        let rates = match (self.min_rate, self.max_rate) {
            (None, None) => None,
            (min, max) => Some(Rates { min: min.unwrap_or(Rate::MIN), max: max.unwrap_or(Rate::MIN) }),
        };
        if let Some(Rates { min, max }) = rates
            && max != Rate::MIN
            && min > max
        {
            return error("minRate", &min, &format!("must not be above maxRate {max}"));
        }
        if let (Some(mtu), VfDriver::VfioPci) = (self.mtu, self.driver) {
            return error(
                "mtu",
                &mtu,
                "is for the kernel's driver; a program that uses vfio-pci sets its own",
            );
        }
        Ok(VfPolicy {
            mac,
            vlan: self.vlan,
            qos: self.qos,
            vlan_protocol: self.vlan_protocol,
            spoof_check: self.spoof_check,
            trust: self.trust,
            link_state: self.link_state,
            rates,
            mtu: self.mtu,
            driver: self.driver,
            pool,
        })
    }
}
