//! `loopback`: sets `lo` up; its addresses come by themselves.

use berth_sys::netlink::Changes;

use crate::Error;
use crate::call::Call;
use crate::spec::result::AddResult;

const NAME: &str = "lo";

pub(crate) fn add(call: &Call<'_>, previous: Option<AddResult>) -> Result<AddResult, Error> {
    let mut inside = call.inside()?;
    if let Some(link) = inside.link(NAME)? {
        let mut changes = Changes::new();
        changes.set_up(link.index);
        inside.apply(changes)?;
    }
    Ok(previous.unwrap_or_default())
}

pub(crate) fn check(call: &Call<'_>) -> Result<(), Error> {
    match call.inside()?.link(NAME)? {
        Some(link) if link.up => Ok(()),
        _ => Err(call.mismatch("lo is not up".to_owned())),
    }
}
