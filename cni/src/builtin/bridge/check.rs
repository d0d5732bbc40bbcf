//! CHECK: whether everything that ADD made stands.

use berth_sys::netlink::Route as Netlink;

use super::Bridge;
use crate::Error;
use crate::call::Call;
use crate::spec::result::{AddResult, Route};

impl Bridge {
    pub(crate) fn check(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        self.check_outside(call, result)?;
        check_inside(call, result)?;
        self.ipam.check(call, result)
    }

    fn check_outside(&self, call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
        let mut outside = Netlink::open()?;
        let name = call.owner().host_name();
        let bridge = outside.link(&self.name)?.ok_or_else(|| call.mismatch(format!("bridge {} is gone", self.name)))?;
        if !bridge.up {
            return Err(call.mismatch(format!("bridge {} is down", self.name)));
        }
        match outside.link(&name)? {
            Some(link) if link.master != Some(bridge.index) => {
                return Err(call.mismatch(format!("{name} is no port of {}", self.name)));
            }
            Some(link) if !link.up => return Err(call.mismatch(format!("{name} is down"))),
            Some(link) if link.hairpin != self.hairpin => {
                return Err(call.mismatch(format!("hairpin mode of {name} is not as configured")));
            }
            Some(link) if link.isolated != self.isolated => {
                return Err(call.mismatch(format!("isolation of {name} is not as configured")));
            }
            Some(_) => {}
            None => return Err(call.mismatch(format!("{name} is gone"))),
        }
        let addresses = outside.addresses(bridge.index)?;
        if let Some(gateway) = self.gateways(result).iter().find(|gateway| !addresses.contains(gateway)) {
            return Err(call.mismatch(format!("{} has lost its address {gateway}", self.name)));
        }
        if self.promiscuous && !bridge.promiscuous {
            return Err(call.mismatch(format!("{} is not promiscuous any more", self.name)));
        }
        if !self.sources_stand(call.site, &call.owner(), result)? {
            return Err(call.mismatch("the nft table that checks hardware addresses is gone or changed".to_owned()));
        }
        if self.masquerade {
            let table = self.masquerades(call.site, result)?;
            if !call.site.nft(|nft| table.stands_whole(nft))? {
                return Err(call.mismatch("the nft table that masquerades is gone or changed".to_owned()));
            }
        }
        Ok(())
    }
}

fn check_inside(call: &Call<'_>, result: &AddResult) -> Result<(), Error> {
    let mut inside = call.inside()?;
    let name = &call.attachment.ifname;
    let link = inside.link(name)?.filter(|link| link.up).ok_or_else(|| call.mismatch(format!("{name} is not up")))?;
    let addresses = inside.addresses(link.index)?;
    if let Some(ip) = result.ips.iter().find(|ip| !addresses.contains(&ip.address)) {
        return Err(call.mismatch(format!("{name} has lost its address {}", ip.address)));
    }
    let routes = inside.routes()?;
    let stands = |route: &Route| routes.iter().any(|found| found.to == route.dst && found.via == route.gw);
    match result.routes.iter().find(|route| !stands(route)) {
        Some(lost) => Err(call.mismatch(format!("the route to {} is gone", lost.dst))),
        None => Ok(()),
    }
}
