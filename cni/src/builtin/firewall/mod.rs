//! `firewall`: pods are let through where another tool drops what the host forwards, and who may begin to talk to them
//! is limited if the configuration says so.
//!
//! ## Letting through ([`forward`])
//!
//! A packet must be accepted in every base chain of the hook `forward`: an accept in a table of ours ends that table's
//! chain and no other, so it cannot save a packet from docker's `policy drop`. The accept has to stand where the drop is:
//!
//! ```text
//! table ip filter {                        # iptables-nft's, and so docker's, ufw's, kube-proxy's; `ip6` likewise
//!     chain FORWARD { policy drop
//!         jump BERTH-<network>             # ours: the only rule of ours in a chain of others
//!         …                                # theirs, untouched
//!     }
//!     chain BERTH-<network> {              # ours
//!         jump CNI-ADMIN                   # only if the administrator has made that chain
//!         iifname berth0 accept
//!         oifname berth0 accept
//!     }
//! }
//! ```
//!
//! - Only where there is a base chain `FORWARD` in a table `filter` of `ip` or `ip6`, and it can drop: its policy does, or
//!   it has rules. Nothing is made where nobody drops, and a table or a chain of others is never made, changed or deleted.
//! - The rules name the bridge, not each pod: as many pods as there are, a packet passes three rules, and ADD and DEL
//!   change nothing. Pods that are on no bridge are named by their subnets.
//! - Both ways, and also what others begin: the reference accepts only answers on the way to a pod, which keeps ports of
//!   the host and pods of other nodes cut off behind docker. Who may begin is the policy's business, below.
//! - Rules are known by their comments, so they are put in once, put back by ADD and `Network::repair` when somebody
//!   flushed them, and taken out with the last attachment: by their handles, which no other rule ever had.
//! - They are written as iptables-nft itself writes rules: a table in which it finds an expression that it does not
//!   know is of no use to it any more.
//! - A chain of our own name for each network: the reference's `CNI-FORWARD` belongs to the reference, which may run
//!   beside us.
//!
//! ## Limiting ([`ingress`])
//!
//! `ingressPolicy` drops, so tables of our own are the place for it. See there for what the words mean.
//!
//! ## What cannot be had
//!
//! - iptables-legacy: its rules are not nftables', and no accept in nftables saves a packet from them.
//! - Chains of other names, such as those of an administrator's own `inet filter`: whether and where an accept would be
//!   right there nobody can tell. firewalld is not asked either; the zone of a bridge is set by `firewall-cmd`, and
//!   `"backend": "firewalld"` is refused rather than taken for something else.
//! - A table that another program owns (`flags owner`) refuses every change, and ADD fails with that refusal: a pod that
//!   nothing reaches would be worse.
//! - A drop that stands before our rule, because another tool put its own in front of it, is final.

mod forward;
mod ingress;

use std::collections::HashSet;

use berth_sys::nft::Nft;
use ipnetwork::IpNetwork;

use self::forward::{Forward, Way};
use self::ingress::Policy;
use super::bridge::bridge_of;
use super::own_table::OwnTable;
use crate::Error;
use crate::cache::Record;
use crate::call::Call;
use crate::host::Host;
use crate::site::Site;
use crate::spec::fields::Fields;
use crate::spec::result::AddResult;

/// The name of the tables of others that pods have to pass.
pub(crate) const FILTER: &str = forward::TABLE;
/// The reference plugin's name for the chain of the administrator's own rules.
const ADMIN_CHAIN_DEFAULT: &str = "CNI-ADMIN";
/// Longest name of a chain that iptables can show (`XT_EXTENSION_MAXNAMELEN` less its zero byte).
const CHAIN_NAME_BYTES_MAX: usize = 28;

/// What the configuration says, and the bridge of the same list, if it is built in.
#[derive(Debug, Clone)]
pub(crate) struct Firewall {
    admin_chain: String,
    policy: Policy,
    /// The policy's place in the configuration.
    policy_field: String,
    bridge: Option<String>,
    /// The subnets of that bridge.
    subnets: Vec<IpNetwork>,
}

impl Firewall {
    pub(crate) fn parse(fields: &Fields<'_>, bridge: Option<String>, subnets: Vec<IpNetwork>) -> Result<Self, Error> {
        match fields.text("backend")? {
            // Rules of iptables-nft are nftables': these words mean the same place.
            None | Some("iptables" | "nftables") => {}
            Some("firewalld") => {
                return Err(fields.error("backend", "firewalld is not supported by the built-in firewall"));
            }
            Some(other) => return Err(fields.error("backend", format!("{other:?} is not known; use \"iptables\""))),
        }
        if fields.text("firewalldZone")?.is_some() {
            return Err(fields.error("firewalldZone", "is not supported by the built-in firewall"));
        }
        let policy = Policy::parse(fields)?;
        let (admin_chain, policy_field) = (admin_chain(fields)?, fields.path("ingressPolicy"));
        Ok(Self { admin_chain, policy, policy_field, bridge, subnets })
    }

    pub(crate) fn add(&self, call: &Call<'_>, previous: Option<AddResult>) -> Result<AddResult, Error> {
        let result = previous.unwrap_or_default();
        self.ensure(call.site, &result)?;
        Ok(result)
    }

    /// What stands for those who are attached.
    pub(crate) fn repair(&self, site: Site<'_>, records: &[Record]) -> Result<(), Error> {
        let mut told = HashSet::new();
        for record in records {
            let first = record.result.interfaces.iter().find(|interface| interface.sandbox.is_empty());
            // Those that are on one bridge and in the same subnets need the same.
            if told.insert((first.map(|first| &first.name), record.result.subnets())) {
                self.ensure(site, &record.result)?;
            }
        }
        Ok(())
    }

    fn ensure(&self, site: Site<'_>, result: &AddResult) -> Result<(), Error> {
        let bridge = bridge_of(self.bridge.as_deref(), result)?;
        let forward = self.forward(site, result, bridge.as_deref());
        let tables = self.tables(site, result, bridge.as_deref())?;
        site.nft(|nft| {
            self.limit(nft, site, &tables)?;
            if forward.stands(nft)? {
                return Ok(());
            }
            let _lock = Host::new(site).lock()?;
            forward.ensure(nft)
        })
    }

    /// Makes the tables of the policy, and takes away those of a policy that was configured before.
    fn limit(&self, nft: &mut Nft, site: Site<'_>, tables: &[OwnTable]) -> Result<(), Error> {
        for table in tables {
            table.ensure_whole(nft, site)?;
        }
        ingress::remove_others(nft, site.network, tables)
    }

    pub(crate) fn check(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        let bridge = bridge_of(self.bridge.as_deref(), result)?;
        let forward = self.forward(call.site, result, bridge.as_deref());
        let tables = self.tables(call.site, result, bridge.as_deref())?;
        call.site.nft(|nft| {
            if !forward.stands(nft)? {
                return Err(call.mismatch("it is not let through by the filter of another tool".to_owned()));
            }
            for table in &tables {
                if !table.stands_whole(nft)? {
                    return Err(call.mismatch(format!("the nft table {} is gone or changed", table.name)));
                }
            }
            Ok(())
        })
    }

    /// Nobody is attached any more, nor about to be: takes away all that is ours.
    pub(crate) fn rest(&self, site: Site<'_>) -> Result<(), Error> {
        let _lock = Host::new(site).lock()?;
        site.nft(|nft| {
            let outcome = Forward::remove(nft, site.network);
            outcome.and(ingress::remove_others(nft, site.network, &[]))
        })
    }

    /// The tables of the policy.
    fn tables(&self, site: Site<'_>, result: &AddResult, bridge: Option<&str>) -> Result<Vec<OwnTable>, Error> {
        if self.policy == Policy::Open {
            return Ok(Vec::new());
        }
        let Some(bridge) = bridge else {
            let problem = "needs a bridge, and no plugin before this one tells of any".to_owned();
            return Err(Error::Config { field: self.policy_field.clone(), problem });
        };
        let subnets = if self.subnets.is_empty() { result.subnets() } else { self.subnets.clone() };
        let gateways: Vec<_> = result.ips.iter().filter_map(|ip| ip.gateway).collect();
        Ok(self.policy.tables(site.network, bridge, &subnets, &gateways))
    }

    fn forward(&self, site: Site<'_>, result: &AddResult, bridge: Option<&str>) -> Forward {
        let ways = match bridge {
            Some(bridge) => vec![Way::Bridge(bridge.to_owned())],
            None => result.subnets().into_iter().map(Way::Subnet).collect(),
        };
        let versions = [false, true].map(|v6| result.addresses().any(|address| address.is_ipv6() == v6));
        Forward::new(site.network, &self.admin_chain, ways, versions)
    }
}

/// The name of the chain of the administrator's rules: it becomes the target of a rule.
fn admin_chain(fields: &Fields<'_>) -> Result<String, Error> {
    const FIELD: &str = "iptablesAdminChainName";
    let name = fields.text(FIELD)?.unwrap_or(ADMIN_CHAIN_DEFAULT);
    let is_plain = name.chars().all(|c| c.is_ascii_graphic()) && !name.starts_with(['-', '!']);
    if !is_plain || name.len() > CHAIN_NAME_BYTES_MAX {
        let problem = format!("{name:?} is no name for a chain: at most {CHAIN_NAME_BYTES_MAX} bytes without spaces");
        return Err(fields.error(FIELD, problem));
    }
    if name.starts_with(forward::CHAIN_PREFIX) || name == forward::HOOKED {
        return Err(fields.error(FIELD, format!("{name:?} is the name of a chain that leads there")));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(value: Value) -> Result<Firewall, Error> {
        Firewall::parse(&Fields::at("plugins[3]".into(), &value).unwrap(), None, vec![])
    }

    #[test]
    fn what_the_reference_is_configured_with_is_understood() {
        let plain = parse(json!({"type": "firewall"})).unwrap();
        assert_eq!((plain.admin_chain.as_str(), plain.policy), ("CNI-ADMIN", Policy::Open));
        let full = json!({"backend": "iptables", "iptablesAdminChainName": "MINE", "ingressPolicy": "same-bridge"});
        let full = parse(full).unwrap();
        assert_eq!((full.admin_chain.as_str(), full.policy), ("MINE", Policy::SameBridge));
        assert_eq!(parse(json!({"ingressPolicy": "isolated"})).unwrap().policy, Policy::Isolated);
    }

    #[test]
    fn nonsense_is_refused_by_its_field() {
        for (value, expected) in [
            (json!({"backend": "firewalld"}), "plugins[3].backend: firewalld is not supported"),
            (json!({"backend": "ipfw"}), "plugins[3].backend: \"ipfw\" is not known"),
            (json!({"backend": 3}), "plugins[3].backend: must be text"),
            (json!({"firewalldZone": "trusted"}), "plugins[3].firewalldZone: is not supported"),
            (json!({"ingressPolicy": "closed"}), "plugins[3].ingressPolicy: \"closed\" is not known"),
            (json!({"iptablesAdminChainName": "a b"}), "plugins[3].iptablesAdminChainName: \"a b\" is no name"),
            (json!({"iptablesAdminChainName": "A".repeat(29)}), "plugins[3].iptablesAdminChainName: \"AAAA"),
            (
                json!({"iptablesAdminChainName": "FORWARD"}),
                "plugins[3].iptablesAdminChainName: \"FORWARD\" is the name",
            ),
            (
                json!({"iptablesAdminChainName": "BERTH-x"}),
                "plugins[3].iptablesAdminChainName: \"BERTH-x\" is the name",
            ),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.code() == 7 && error.to_string().contains(expected), "{error}");
        }
    }
}
