//! Which devices a cgroup may use: rules folded as the v1 controller folds them, then written to its files, or compiled
//! to a BPF program for the unified hierarchy, which has no files for it.

mod program;

use std::collections::BTreeMap;

use super::{Cgroup, Error, Version, open_folder, read, write_each};

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Block device.
    Block,
    /// Character device.
    Char,
}

/// Reading, writing, making nodes; any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    // The bits of BPF_DEVCG_ACC_*, linux/bpf.h.
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

    /// All three.
    pub const ALL: Self = Self(7);

    /// Parses letters of `rwm`; `None` for any other.
    pub fn parse(letters: &str) -> Option<Self> {
        let bit = |letter| Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
        letters.chars().try_fold(0, |all, letter| Some(all | bit(letter)?)).map(Self)
    }

    fn letters(self) -> String {
        Self::LETTERS.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(letter, _)| letter).collect()
    }
}

/// One rule, in the order that the OCI's `linux.resources.devices` lists them: a later one overrules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether to allow or to deny.
    pub allow: bool,
    /// The kind; `None` for every device there is, which forgets all rules before.
    pub kind: Option<Kind>,
    /// The major number; `None` for any.
    pub major: Option<u32>,
    /// The minor number; `None` for any.
    pub minor: Option<u32>,
    /// What is allowed or denied.
    pub access: Access,
}

type Device = (Kind, Option<u32>, Option<u32>);

/// Rules folded to a default and its exceptions. Without any rule everything is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    allow_by_default: bool,
    exceptions: BTreeMap<Device, u8>,
}

impl Policy {
    /// Folds rules, as the kernel's v1 controller does when they are written to it one after the other. A rule that would
    /// take something out of a wider one before it can be told to neither version: the error is its number.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Result<Self, usize> {
        let mut policy = Self::default();
        for (number, rule) in rules.into_iter().enumerate() {
            match rule.kind {
                None => policy = Self { allow_by_default: rule.allow, exceptions: BTreeMap::new() },
                Some(kind) => policy.fold((kind, rule.major, rule.minor), rule).ok_or(number)?,
            }
        }
        policy.exceptions.retain(|_, access| *access != 0);
        Ok(policy)
    }

    fn fold(&mut self, device: Device, rule: Rule) -> Option<()> {
        if rule.allow != self.allow_by_default {
            *self.exceptions.entry(device).or_default() |= rule.access.0;
            return Some(());
        }
        for (known, access) in self.exceptions.iter_mut().filter(|(_, access)| **access & rule.access.0 != 0) {
            if covers(&device, known) {
                *access &= !rule.access.0;
            } else if covers(known, &device) {
                return None;
            }
        }
        Some(())
    }

    /// Reads `devices.list`; `None` if the default is to allow, whose exceptions it does not tell.
    fn listed(text: &str) -> Option<Self> {
        let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
        let mut policy = Self::default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ')?;
            let (numbers, letters) = rest.split_once(' ')?;
            let (major, minor) = numbers.split_once(':')?;
            let kind = match kind {
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            *policy.exceptions.entry((kind, number(major)?, number(minor)?)).or_default() |= Access::parse(letters)?.0;
        }
        Some(policy)
    }

    /// Lines for `devices.allow` and `devices.deny` that make a cgroup keep this policy. Where that which it keeps now is
    /// known they are the difference, so that what is allowed before and after is so all the time.
    fn lines(&self, now: Option<&Self>) -> Vec<(&'static str, String)> {
        let (default, exception) =
            if self.allow_by_default { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        match now.filter(|now| now.allow_by_default == self.allow_by_default) {
            None => [(default, "a".to_owned())].into_iter().chain(self.beyond(&Self::default(), exception)).collect(),
            Some(now) => now.beyond(self, default).chain(self.beyond(now, exception)).collect(),
        }
    }

    /// A line for each exception that the other policy does not have.
    fn beyond(&self, other: &Self, file: &'static str) -> impl Iterator<Item = (&'static str, String)> {
        let number = |number: &Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        self.exceptions.iter().filter_map(move |(device @ (kind, major, minor), access)| {
            let access = access & !other.exceptions.get(device).copied().unwrap_or_default();
            let kind = if *kind == Kind::Block { 'b' } else { 'c' };
            let line = || format!("{kind} {}:{} {}", number(major), number(minor), Access(access).letters());
            (access != 0).then(|| (file, line()))
        })
    }
}

/// Whether one names every device that the other names.
fn covers(one: &Device, other: &Device) -> bool {
    let number = |one: Option<u32>, other: Option<u32>| one.is_none() || one == other;
    one.0 == other.0 && number(one.1, other.1) && number(one.2, other.2)
}

impl Cgroup {
    /// Lets this cgroup use exactly the devices of the policy, whatever it could use up to now. What may be used before and
    /// after may be meanwhile, unless on v1 either allows all that it does not deny.
    pub fn set_devices(&self, policy: &Policy) -> Result<(), Error> {
        match (self.folder("devices"), self.unified()) {
            (Some((folder, Version::V1)), _) => {
                let now = Policy::listed(&read(&folder.join("devices.list"))?);
                let lines = policy.lines(now.as_ref());
                // One opened file for all exceptions: they are a dozen for every container.
                lines.chunk_by(|(one, _), (other, _)| one == other).try_for_each(|lines| {
                    let path = folder.join(lines[0].0);
                    let texts = lines.iter().map(|(_, line)| line.as_str());
                    write_each(&path, texts)
                })
            }
            (_, Some(folder)) => {
                let replace = || program::replace(policy, &open_folder(folder)?);
                replace().map_err(Error::file("attach a device program to", folder))
            }
            _ => Err(Error::NoController { controller: "devices".to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: Option<Kind>, numbers: (Option<u32>, Option<u32>), access: &str) -> Rule {
        Rule { allow, kind, major: numbers.0, minor: numbers.1, access: Access::parse(access).unwrap() }
    }

    fn lines(rules: &[Rule]) -> Vec<String> {
        lines_after(rules, "a *:* rwm\n")
    }

    fn lines_after(rules: &[Rule], listed: &str) -> Vec<String> {
        let lines = Policy::new(rules.iter().copied()).unwrap().lines(Policy::listed(listed).as_ref());
        lines.iter().map(|(file, line)| format!("{file} {line}")).collect()
    }

    #[test]
    fn rules_fold_to_a_default_and_exceptions() {
        let null = (Some(1), Some(3));
        let char = Some(Kind::Char);
        assert_eq!(lines(&[]), ["devices.deny a"]);
        assert_eq!(
            lines(&[rule(false, None, (None, None), "rwm"), rule(true, char, null, "r"), rule(true, char, null, "w")]),
            ["devices.deny a", "devices.allow c 1:3 rw"]
        );
        assert_eq!(
            lines(&[rule(true, char, null, "rwm"), rule(false, char, null, "rwm")]),
            ["devices.deny a"],
            "a denial of what was allowed leaves nothing"
        );
        assert_eq!(
            lines(&[rule(true, None, (None, None), "rwm"), rule(false, Some(Kind::Block), (Some(8), None), "w")]),
            ["devices.allow a", "devices.deny b 8:* w"]
        );
    }

    #[test]
    fn of_what_is_listed_only_the_difference_is_written() {
        let (char, block) = (Some(Kind::Char), Some(Kind::Block));
        let rules = [rule(true, char, (Some(1), Some(3)), "rw"), rule(true, block, (None, None), "m")];
        let after = |listed| lines_after(&rules, listed);
        assert_eq!(after(""), ["devices.allow b *:* m", "devices.allow c 1:3 rw"]);
        assert_eq!(after("b *:* m\nc 1:3 rw\n"), [""; 0]);
        assert_eq!(
            after("c 1:3 rm\nc 5:* rwm\nb *:* rwm\n"),
            ["devices.deny b *:* rw", "devices.deny c 1:3 m", "devices.deny c 5:* rwm", "devices.allow c 1:3 w"]
        );
        for default in ["a *:* rwm\n", "garbage"] {
            assert_eq!(after(default)[0], "devices.deny a");
        }
        let all = [rule(true, None, (None, None), "rwm")];
        assert_eq!(lines_after(&all, "c 1:3 rw\n"), ["devices.allow a"]);
    }

    #[test]
    fn what_would_make_a_hole_in_a_wider_rule_is_refused() {
        let char = Some(Kind::Char);
        let none = rule(false, None, (None, None), "rwm");
        let all = rule(true, char, (None, None), "rwm");
        let fuse = rule(false, char, (Some(10), Some(229)), "rw");
        assert_eq!(Policy::new([none, all, fuse]), Err(2));
        assert_eq!(Policy::new([none, rule(true, char, (None, None), "m"), fuse]).map(|_| ()), Ok(()));
        let allowed = rule(true, char, (Some(10), Some(229)), "rw");
        assert_eq!(lines(&[none, allowed, rule(false, char, (Some(10), None), "rw")]), ["devices.deny a"]);
    }

    #[test]
    fn a_denied_letter_is_no_access() {
        assert_eq!(Access::parse("rwm"), Some(Access::ALL));
        assert_eq!(Access::parse("rx"), None);
        assert_eq!(Access::parse("mw").unwrap().letters(), "wm");
    }
}
