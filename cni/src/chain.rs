//! The plugins of a list one after the other: forth for ADD and CHECK, back for DEL. Whatever fails in ADD is taken back;
//! DEL, GC and removal go on after an error and tell the first.

use std::collections::HashSet;

use crate::attachment::{Attachment, Owner};
use crate::builtin::bridge::Interfaces;
use crate::builtin::firewall::Firewall;
use crate::builtin::wishes::Wishes;
use crate::builtin::{Plugin, loopback};
use crate::cache::{Cache, Record};
use crate::call::Call;
use crate::host::Host;
use crate::list::List;
use crate::site::{NftSockets, Site};
use crate::spec::result::AddResult;
use crate::{Dirs, Error};

/// A list at work.
pub(crate) struct Chain<'a> {
    pub(crate) list: &'a List,
    pub(crate) dirs: &'a Dirs,
    pub(crate) sockets: &'a NftSockets,
}

impl<'a> Chain<'a> {
    pub(crate) fn site(&self) -> Site<'a> {
        Site { network: &self.list.name, version: &self.list.version, dirs: self.dirs, sockets: self.sockets }
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new(self.site())
    }

    pub(crate) fn host(&self) -> Host {
        Host::new(self.site())
    }

    pub(crate) fn call(&self, attachment: &'a Attachment) -> Result<Call<'a>, Error> {
        attachment.validate()?;
        Ok(Call::new(self.site(), attachment))
    }

    /// ADD, behind plugins that gave this result.
    pub(crate) fn add(&self, attachment: &'a Attachment, previous: Option<AddResult>) -> Result<AddResult, Error> {
        let call = self.call(attachment)?;
        let using = self.host().using()?;
        let (cache, owner) = (self.cache(), call.owner());
        if cache.has(&owner) {
            let Owner { container_id, ifname } = owner;
            return Err(Error::Attached { network: self.list.name.clone(), container_id, ifname });
        }
        // Without its namespace nothing is begun, so nothing is to be taken back; nor if it wants what makes no sense.
        call.netns()?;
        self.understand(&call, previous.as_ref())?;
        let result = self.forth(&call, previous).and_then(|result| {
            cache.write(&Record { attachment: attachment.clone(), result: result.clone() })?;
            Ok(result)
        });
        if result.is_err() {
            // The error that began it is the one to tell.
            let _ = self.back(&call, None, Interfaces::Delete);
            drop(using);
            let _ = self.rest();
        }
        result
    }

    /// Refuses what an attachment wants if that makes no sense.
    pub(crate) fn understand(&self, call: &Call<'_>, previous: Option<&AddResult>) -> Result<(), Error> {
        let none = AddResult::default();
        self.list.plugins.iter().try_for_each(|plugin| plugin.understands(call, previous.unwrap_or(&none)))
    }

    fn forth(&self, call: &Call<'_>, previous: Option<AddResult>) -> Result<AddResult, Error> {
        let mut result = previous;
        for plugin in &self.list.plugins {
            let mut next = match plugin {
                Plugin::Bridge(bridge) => bridge.add(call)?,
                Plugin::Loopback => loopback::add(call, result)?,
                Plugin::Portmap(portmap) => portmap.add(call, result)?,
                Plugin::Bandwidth(bandwidth) => bandwidth.add(call, result)?,
                Plugin::Firewall(firewall) => firewall.add(call, result)?,
                Plugin::Ipam(ipam, object) => ipam.add(call, &Wishes::of(object, call)?)?,
                Plugin::Foreign(foreign) => foreign.add(call, result.as_ref())?,
            };
            next.cni_version.clone_from(&self.list.version);
            result = Some(next);
        }
        Ok(result.unwrap_or_default())
    }

    /// DEL. `told` is what ADD gave as the caller knows it.
    pub(crate) fn del(
        &self,
        attachment: &'a Attachment,
        told: Option<&AddResult>,
        interfaces: Interfaces,
    ) -> Result<(), Error> {
        let call = self.call(attachment)?;
        let using = self.host().using()?;
        let outcome = self.delete(&call, told, interfaces);
        drop(using);
        outcome.and(self.rest())
    }

    /// What stands on the host for all attachments together, in tables of others too, goes with the last of them. Whoever
    /// is in the middle of something comes here after it.
    pub(crate) fn rest(&self) -> Result<(), Error> {
        if self.firewalls().next().is_none() || !self.cache().is_empty()? {
            return Ok(());
        }
        let Some(_clearing) = self.host().clearing_if_unused()? else { return Ok(()) };
        self.rest_alone()
    }

    /// As [`Self::rest`], for who keeps everybody out already.
    fn rest_alone(&self) -> Result<(), Error> {
        if !self.cache().is_empty()? {
            return Ok(());
        }
        let mut outcome = Ok(());
        for firewall in self.firewalls() {
            outcome = outcome.and(firewall.rest(self.site()));
        }
        outcome
    }

    pub(crate) fn firewalls(&self) -> impl Iterator<Item = &Firewall> {
        self.list.plugins.iter().filter_map(|plugin| match plugin {
            Plugin::Firewall(firewall) => Some(firewall),
            _ => None,
        })
    }

    fn delete(&self, call: &Call<'_>, told: Option<&AddResult>, interfaces: Interfaces) -> Result<(), Error> {
        let (cache, owner) = (self.cache(), call.owner());
        let Some(record) = cache.read(&owner)? else {
            self.back(call, told, interfaces)?;
            return cache.remove(&owner);
        };
        // What ADD was told counts, not what DEL happens to know; but the namespace may have moved.
        let mut attachment = record.attachment;
        if !call.attachment.netns.as_os_str().is_empty() {
            attachment.netns.clone_from(&call.attachment.netns);
        }
        let call = Call::new(call.site, &attachment);
        self.back(&call, Some(&record.result), interfaces)?;
        cache.remove(&owner)
    }

    fn back(&self, call: &Call<'_>, result: Option<&AddResult>, interfaces: Interfaces) -> Result<(), Error> {
        let mut outcome = Ok(());
        for plugin in self.list.plugins.iter().rev() {
            let done = match plugin {
                Plugin::Bridge(bridge) => bridge.del(call, result, interfaces),
                Plugin::Loopback | Plugin::Firewall(_) => Ok(()),
                Plugin::Portmap(portmap) => portmap.del(call, result),
                Plugin::Bandwidth(bandwidth) => bandwidth.del(call, result.is_some()),
                Plugin::Ipam(ipam, _) => ipam.del(call, result),
                Plugin::Foreign(foreign) => foreign.del(call, result),
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    pub(crate) fn check(&self, attachment: &'a Attachment) -> Result<(), Error> {
        attachment.validate()?;
        if !self.list.check {
            return Ok(());
        }
        let Some(record) = self.cache().read(&attachment.owner())? else {
            let Owner { container_id, ifname } = attachment.owner();
            return Err(Error::Unknown { network: self.list.name.clone(), container_id, ifname });
        };
        self.check_against(attachment, &record.result)
    }

    /// CHECK against what ADD gave.
    pub(crate) fn check_against(&self, attachment: &'a Attachment, result: &AddResult) -> Result<(), Error> {
        let call = self.call(attachment)?;
        let using = self.host().using()?;
        let outcome = self.check_each(&call, result);
        drop(using);
        outcome.and(self.rest())
    }

    fn check_each(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        for plugin in &self.list.plugins {
            match plugin {
                Plugin::Bridge(bridge) => bridge.check(call, result),
                Plugin::Loopback => loopback::check(call),
                Plugin::Portmap(portmap) => portmap.check(call, result),
                Plugin::Bandwidth(bandwidth) => bandwidth.check(call),
                Plugin::Firewall(firewall) => firewall.check(call, result),
                Plugin::Ipam(ipam, _) => ipam.check(call, result),
                Plugin::Foreign(foreign) => foreign.check(call, result),
            }?;
        }
        Ok(())
    }

    pub(crate) fn gc(&self, valid: &[(String, String)]) -> Result<(), Error> {
        if !self.list.gc {
            return Ok(());
        }
        let _clearing = self.host().clearing()?;
        let own = |(id, name): &(String, String)| Owner { container_id: id.clone(), ifname: name.clone() };
        let valid: HashSet<Owner> = valid.iter().map(own).collect();
        let mut outcome = self.cache().remove_unfinished();
        for record in self.cache().all()? {
            if !valid.contains(&record.attachment.owner()) {
                let call = Call::new(self.site(), &record.attachment);
                outcome = outcome.and(self.delete(&call, None, Interfaces::Leave));
            }
        }
        outcome.and(self.sweep(&valid)).and(self.rest_alone())
    }

    /// What no record tells about: the leftovers of an ADD that was killed.
    fn sweep(&self, valid: &HashSet<Owner>) -> Result<(), Error> {
        let site = self.site();
        let owners: Vec<Owner> = valid.iter().cloned().collect();
        let mut outcome = Ok(());
        for plugin in &self.list.plugins {
            let done = match plugin {
                Plugin::Bridge(bridge) => bridge.gc(site, valid),
                Plugin::Ipam(ipam, _) => ipam.gc(site, valid),
                Plugin::Foreign(foreign) => foreign.gc(site, &owners),
                Plugin::Portmap(portmap) => portmap.gc(site, valid),
                Plugin::Bandwidth(bandwidth) => bandwidth.gc(site, valid),
                Plugin::Loopback | Plugin::Firewall(_) => Ok(()),
            };
            outcome = outcome.and(done);
        }
        outcome
    }

    pub(crate) fn status(&self) -> Result<(), Error> {
        let site = self.site();
        let unavailable = |error: &dyn std::error::Error| Error::Unavailable {
            network: site.network.to_owned(),
            why: with_causes(error),
        };
        self.host().using().map_err(|error| unavailable(&error))?;
        for plugin in &self.list.plugins {
            match plugin {
                Plugin::Bridge(bridge) => bridge.status(site).map_err(|error| unavailable(&error)),
                Plugin::Ipam(ipam, _) => ipam.status(site).map_err(|error| unavailable(&error)),
                Plugin::Foreign(foreign) => foreign.status(site),
                Plugin::Loopback | Plugin::Portmap(_) | Plugin::Bandwidth(_) | Plugin::Firewall(_) => Ok(()),
            }?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<(), Error> {
        let host = self.host();
        let _clearing = host.clearing()?;
        let attachments = self.cache().all()?.len();
        if attachments > 0 {
            return Err(Error::Busy { network: self.list.name.clone(), attachments });
        }
        for plugin in &self.list.plugins {
            match plugin {
                Plugin::Bridge(bridge) => bridge.remove(self.site()),
                Plugin::Portmap(portmap) => portmap.remove(self.site()),
                Plugin::Ipam(ipam, _) => ipam.remove(self.site()),
                Plugin::Firewall(firewall) => firewall.rest(self.site()),
                Plugin::Loopback | Plugin::Bandwidth(_) | Plugin::Foreign(_) => Ok(()),
            }?;
        }
        host.restore()?;
        self.cache().remove_all()
    }
}

/// An error with what caused it, in one sentence.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
