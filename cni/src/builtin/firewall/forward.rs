//! The rules that stand in tables of others: what is there is read, what is missing is put in, in one transaction.
//!
//! Somebody else may change the same table between reading and committing. A transaction that relies on what is gone
//! is refused as a whole, and it is all looked at again.

use berth_sys::nft::Nft;
use berth_sys::nft::batch::Batch;
use berth_sys::nft::rule::{
    Expr, Rule, Standing, Verdict, comes_in_by, destination_bits_in, leaves_by, source_bits_in,
};
use berth_sys::nft::table::{Family, Hook, Table};
use ipnetwork::IpNetwork;
use nix::errno::Errno;

use super::CHAIN_NAME_BYTES_MAX;
use crate::Error;
use crate::attachment::digest;
use crate::limits::FILTER_RACES_MAX;

/// The table and the chain where other tools drop.
pub(super) const TABLE: &str = "filter";
pub(super) const HOOKED: &str = "FORWARD";
/// What the names of our chains begin with.
pub(super) const CHAIN_PREFIX: &str = "BERTH-";
/// The families of such tables, as versions of IP.
const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];

/// What packets of pods are known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// They come from a bridge or go to it.
    Bridge(String),
    /// They come from a subnet or go to it.
    Subnet(IpNetwork),
}

/// What should stand.
#[derive(Debug)]
pub(super) struct Forward {
    network: String,
    admin_chain: String,
    ways: Vec<Way>,
    /// Whether there are addresses of version 4, and of version 6.
    versions: [bool; 2],
}

/// What stands in one table.
#[derive(Debug)]
struct Observed {
    /// Whether packets can be dropped there; `false` without such a chain.
    drops: bool,
    /// Our rules that lead to our chain.
    jumps: Vec<Standing>,
    /// Whether our chain is there.
    has_chain: bool,
    /// What stands in it.
    rules: Vec<Standing>,
    /// Whether the administrator has a chain.
    has_admin_chain: bool,
}

impl Forward {
    pub(super) fn new(network: &str, admin_chain: &str, ways: Vec<Way>, versions: [bool; 2]) -> Self {
        Self { network: network.to_owned(), admin_chain: admin_chain.to_owned(), ways, versions }
    }

    /// Whether nothing is missing.
    pub(super) fn stands(&self, nft: &mut Nft) -> Result<bool, Error> {
        for family in self.families() {
            let observed = Observed::read(nft, family, &self.network, Some(&self.admin_chain))?;
            if !self.plan(family, &observed).is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts in what is missing.
    pub(super) fn ensure(&self, nft: &mut Nft) -> Result<(), Error> {
        for family in self.families() {
            settle(nft, family, &self.network, Some(&self.admin_chain), |observed| self.plan(family, observed))?;
        }
        Ok(())
    }

    /// Takes out all that is a network's.
    pub(super) fn remove(nft: &mut Nft, network: &str) -> Result<(), Error> {
        let mut outcome = Ok(());
        for family in FAMILIES {
            let done = match settle(nft, family, network, None, |observed| removal(family, network, observed)) {
                // Somebody leads packets into our chain, and so keeps it: it stays, and does nothing.
                Err(Error::Kernel(error)) if error.errno() == Some(Errno::EBUSY) => {
                    settle(nft, family, network, None, |observed| silencing(family, network, observed))
                }
                other => other,
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        FAMILIES.into_iter().zip(self.versions).filter_map(|(family, is_used)| is_used.then_some(family))
    }

    /// What is missing.
    fn plan(&self, family: Family, observed: &Observed) -> Batch {
        let mut batch = Batch::new();
        if !observed.drops {
            return batch;
        }
        let (table, chain) = (table(family), chain_name(&self.network));
        if !observed.has_chain {
            batch.add_chain(table, &chain, None);
        }
        let is_missing = |rule: &Rule| observed.rules.iter().all(|found| found.comment != rule.comment);
        for rule in self.accepts(family).iter().filter(|rule| is_missing(rule)) {
            batch.add_rule(table, &chain, rule);
        }
        let admin = jump(&self.admin_chain, "berth: the administrator's rules go first".to_owned());
        if observed.has_admin_chain && is_missing(&admin) {
            batch.insert_rule(table, &chain, &admin);
        }
        if observed.jumps.is_empty() {
            batch.insert_rule(table, HOOKED, &jump(&chain, mark(&self.network)));
        }
        batch
    }

    fn accepts(&self, family: Family) -> Vec<Rule> {
        let accept = |mut exprs: Vec<Expr>, comment: String| {
            exprs.push(Expr::Verdict(Verdict::Accept));
            Rule { exprs, comment: comment.into() }
        };
        let mut rules = Vec::new();
        for way in &self.ways {
            match way {
                Way::Bridge(name) => {
                    rules.push(accept(comes_in_by(name).to_vec(), format!("berth: from pods on {name}")));
                    rules.push(accept(leaves_by(name).to_vec(), format!("berth: to pods on {name}")));
                }
                Way::Subnet(subnet) if subnet.is_ipv6() == (family == Family::Ip6) => {
                    // A table of one version needs no question for it, and iptables could not show it.
                    let (from, to) = (source_bits_in(*subnet).to_vec(), destination_bits_in(*subnet).to_vec());
                    rules.push(accept(from, format!("berth: from pods of {subnet}")));
                    rules.push(accept(to, format!("berth: to pods of {subnet}")));
                }
                Way::Subnet(_) => {}
            }
        }
        rules
    }
}

fn removal(family: Family, network: &str, observed: &Observed) -> Batch {
    let mut batch = Batch::new();
    for rule in &observed.jumps {
        batch.delete_rule(table(family), HOOKED, rule);
    }
    if observed.has_chain {
        batch.delete_chain(table(family), &chain_name(network));
    }
    batch
}

fn silencing(family: Family, network: &str, observed: &Observed) -> Batch {
    let mut batch = Batch::new();
    for rule in &observed.jumps {
        batch.delete_rule(table(family), HOOKED, rule);
    }
    if !observed.rules.is_empty() {
        batch.flush_chain(table(family), &chain_name(network));
    }
    batch
}

/// Looks, plans and commits until nothing came between.
fn settle(
    nft: &mut Nft,
    family: Family,
    network: &str,
    admin_chain: Option<&str>,
    plan: impl Fn(&Observed) -> Batch,
) -> Result<(), Error> {
    for _ in 0..FILTER_RACES_MAX {
        let observed = Observed::read(nft, family, network, admin_chain)?;
        match nft.commit(plan(&observed)) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
    }
    Err(Error::Unsteady { what: format!("the rules of nft table {TABLE}") })
}

impl Observed {
    fn read(nft: &mut Nft, family: Family, network: &str, admin_chain: Option<&str>) -> Result<Self, Error> {
        let (table, ours) = (table(family), chain_name(network));
        let mut observed =
            Self { drops: false, jumps: Vec::new(), has_chain: false, rules: Vec::new(), has_admin_chain: false };
        observed.has_chain = nft.chain(table, &ours)?.is_some();
        if observed.has_chain {
            observed.rules = nft.rules(table, &ours)?;
        }
        let Some(hooked) = nft.chain(table, HOOKED)?.filter(|chain| chain.hook == Some(Hook::Forward as u32)) else {
            return Ok(observed);
        };
        let (mark, mut theirs) = (mark(network), nft.rules(table, HOOKED)?);
        observed.jumps = theirs.extract_if(.., |rule| rule.comment == mark).collect();
        // Rules that only lead to our chains drop nothing.
        let other = theirs.iter().any(|rule| !rule.comment.starts_with(MARK));
        observed.drops = hooked.drops || other;
        if let Some(name) = admin_chain.filter(|_| observed.drops) {
            observed.has_admin_chain = nft.chain(table, name)?.is_some_and(|chain| chain.hook.is_none());
        }
        Ok(observed)
    }
}

fn table(family: Family) -> Table<'static> {
    Table { family, name: TABLE }
}

/// What the comments of our rules in chains of others begin with.
const MARK: &str = "berth: pods of network ";

fn mark(network: &str) -> String {
    format!("{MARK}{network}")
}

fn jump(chain: &str, comment: String) -> Rule {
    Rule { exprs: vec![Expr::Verdict(Verdict::Jump(chain.to_owned()))], comment: comment.into() }
}

/// The name of a network's chain; that of a name which is too long has its hash.
fn chain_name(network: &str) -> String {
    let name = format!("{CHAIN_PREFIX}{network}");
    if name.len() <= CHAIN_NAME_BYTES_MAX {
        return name;
    }
    format!("{CHAIN_PREFIX}{}", &digest(network.as_bytes())[..CHAIN_NAME_BYTES_MAX - CHAIN_PREFIX.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(drops: bool, comments: &[&str]) -> Observed {
        let rules = comments.iter().enumerate();
        let rules = rules.map(|(at, comment)| Standing { handle: at as u64, comment: (*comment).to_owned() }).collect();
        Observed { drops, jumps: vec![], has_chain: !comments.is_empty(), rules, has_admin_chain: false }
    }

    #[test]
    fn nothing_is_made_where_nobody_drops_and_nothing_twice() {
        let forward = Forward::new("pods", "CNI-ADMIN", vec![Way::Bridge("berth0".into())], [true, false]);
        assert!(forward.plan(Family::Ip, &observed(false, &[])).is_empty());
        assert!(!forward.plan(Family::Ip, &observed(true, &[])).is_empty());
        let mut whole = observed(true, &["berth: from pods on berth0", "berth: to pods on berth0"]);
        assert!(!forward.plan(Family::Ip, &whole).is_empty(), "nothing leads there");
        whole.jumps.push(Standing { handle: 9, comment: mark("pods") });
        assert!(forward.plan(Family::Ip, &whole).is_empty());
        whole.has_admin_chain = true;
        assert!(!forward.plan(Family::Ip, &whole).is_empty());
        assert_eq!(forward.families().collect::<Vec<_>>(), [Family::Ip]);
    }

    #[test]
    fn names_fit_and_subnets_are_of_their_version() {
        assert_eq!(chain_name("pods"), "BERTH-pods");
        let long = chain_name(&"n".repeat(64));
        assert_eq!(long.len(), CHAIN_NAME_BYTES_MAX);
        assert_ne!(long, chain_name(&"n".repeat(63)));
        let ways = ["10.0.0.0/24", "fd00::/64"].map(|subnet| Way::Subnet(subnet.parse().unwrap()));
        let forward = Forward::new("pods", "CNI-ADMIN", ways.to_vec(), [true, true]);
        for (family, expected) in
            [(Family::Ip, "berth: from pods of 10.0.0.0/24"), (Family::Ip6, "berth: from pods of fd00::/64")]
        {
            let rules = forward.accepts(family);
            assert_eq!((rules.len(), &*rules[0].comment), (2, expected));
        }
    }
}
