//! One call of a verb for one attachment: what every plugin in the chain needs to know, opened once.

use std::cell::{OnceCell, RefCell, RefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::namespace;
use berth_sys::netlink::Route;

use crate::Error;
use crate::attachment::{Attachment, Owner};
use crate::site::Site;

/// One call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) site: Site<'a>,
    pub(crate) attachment: &'a Attachment,
    netns: OnceCell<OwnedFd>,
    inside: OnceCell<RefCell<Route>>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(site: Site<'a>, attachment: &'a Attachment) -> Self {
        Self { site, attachment, netns: OnceCell::new(), inside: OnceCell::new() }
    }

    pub(crate) fn owner(&self) -> Owner {
        self.attachment.owner()
    }

    /// The container's network namespace.
    pub(crate) fn netns(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(fd) = self.netns.get() {
            return Ok(fd.as_fd());
        }
        let fd = namespace::open(&self.attachment.netns)?;
        Ok(self.netns.get_or_init(|| fd).as_fd())
    }

    /// A conversation with the kernel inside the container's network namespace.
    pub(crate) fn inside(&self) -> Result<RefMut<'_, Route>, Error> {
        if let Some(cell) = self.inside.get() {
            return Ok(cell.borrow_mut());
        }
        let route = namespace::in_netns(self.netns()?, Route::open)??;
        Ok(self.inside.get_or_init(|| RefCell::new(route)).borrow_mut())
    }

    /// For CHECK: something is not as ADD made it.
    pub(crate) fn mismatch(&self, what: String) -> Error {
        Error::Mismatch { container_id: self.attachment.container_id.clone(), what }
    }
}
