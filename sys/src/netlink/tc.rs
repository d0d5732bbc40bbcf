//! Traffic control: how fast a link may send (tbf, tc-tbf(8)), and what it receives sent on by another link that may be
//! held back in the same way (ifb). Layouts after `linux/pkt_sched.h`, `linux/pkt_cls.h` and `linux/tc_act/tc_mirred.h`.

use super::message::{Attributes, Messages, attribute, text, u32_at};
use super::{Changes, Error, Route};

/// Length of the fixed part of a message (`tcmsg`).
const FIXED_LEN: usize = 20;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// Where a discipline stands: at the link's own root, or before everything that it receives.
const AT_ROOT: u32 = 0xffff_ffff;
const AT_INGRESS: u32 = 0xffff_fff1;
const HANDLE_ROOT: u32 = 0x0001_0000;
const HANDLE_INGRESS: u32 = 0xffff_0000;

const TBF_PARAMETERS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
/// Length of `tc_tbf_qopt`, and where its parts are.
const TBF_LEN: usize = 36;
const TBF_RATE_LINK_LAYER: usize = 1;
const TBF_RATE: usize = 8;
const TBF_LIMIT: usize = 24;
const TBF_BUFFER: usize = 28;
/// `TC_LINKLAYER_ETHERNET`: the kernel reckons for itself how long a packet takes, and needs no table.
const LINK_LAYER_ETHERNET: u8 = 1;
/// The kernel's ticks (`PSCHED_SHIFT` 6) in a second, in which it keeps how long a burst takes.
const TICKS_PER_SECOND: u64 = 1_000_000_000 >> 6;

const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const MIRRED_PARAMETERS: u16 = 2;
/// One key that compares nothing: every packet matches, and no other filter is asked.
const SELECTOR_ALL: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes[2] = 1;
    bytes
};
const ACTION_STOLEN: u32 = 4;
const EGRESS_REDIRECT: u32 = 1;
/// Every protocol, at the first priority.
const FILTER_INFO: u32 = (1 << 16) | (libc::ETH_P_ALL as u16).to_be() as u32;

const NEW: i32 = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

/// How fast a link may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes in a second, on average.
    pub bytes_per_second: u64,
    /// Bytes at once after a pause.
    pub burst_bytes: u32,
    /// Bytes that wait at most; what is beyond is dropped.
    pub limit_bytes: u32,
}

impl Changes {
    /// Holds back what a link sends; an older limit is replaced.
    pub fn limit_rate(&mut self, link: u32, rate: &Rate) {
        self.messages.push(format!("limit the rate of link {link}"), libc::RTM_NEWQDISC, NEW, |message| {
            message.fixed(&fixed(link, HANDLE_ROOT, AT_ROOT, 0));
            message.put_str(KIND, "tbf");
            message.nest(OPTIONS, |options| write_rate(options, rate));
        });
    }

    /// Sends everything that a link receives on by another link, in place of giving it to this machine; the other one,
    /// an ifb, gives it back when it may be sent.
    pub fn redirect_received(&mut self, link: u32, to: u32) {
        self.messages.push(format!("take what link {link} receives"), libc::RTM_NEWQDISC, NEW, |message| {
            message.fixed(&fixed(link, HANDLE_INGRESS, AT_INGRESS, 0));
            message.put_str(KIND, "ingress");
        });
        self.messages.push(format!("redirect link {link} to {to}"), libc::RTM_NEWTFILTER, NEW, |message| {
            message.fixed(&fixed(link, 0, HANDLE_INGRESS, FILTER_INFO));
            message.put_str(KIND, "u32");
            message.nest(OPTIONS, |options| {
                options.put(U32_SELECTOR, &SELECTOR_ALL);
                options.nest(U32_ACTIONS, |actions| {
                    actions.nest(1, |action| {
                        action.put_str(ACTION_KIND, "mirred");
                        action.nest(ACTION_OPTIONS, |options| options.put(MIRRED_PARAMETERS, &redirect(to)));
                    });
                });
            });
        });
    }
}

impl Route {
    /// How fast a link may send, if that is limited by [`Changes::limit_rate`]. The limit of waiting bytes is told too.
    pub fn rate(&mut self, link: u32) -> Result<Option<Rate>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request.push(format!("read the disciplines of link {link}"), libc::RTM_GETQDISC, flags, |message| {
            message.fixed(&fixed(link, 0, 0, 0));
        });
        let found = self.socket.dump(&mut request, |message| parse_rate(message.body, link))?;
        Ok(found.into_iter().next())
    }

    /// Where what a link receives is redirected to.
    pub fn redirection(&mut self, link: u32) -> Result<Option<u32>, Error> {
        let mut request = Messages::new();
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        request.push(format!("read the filters of link {link}"), libc::RTM_GETTFILTER, flags, |message| {
            message.fixed(&fixed(link, 0, HANDLE_INGRESS, 0));
        });
        match self.socket.dump(&mut request, |message| parse_redirection(message.body, link)) {
            // It has no place for filters.
            Err(error) if error.errno() == Some(nix::errno::Errno::EINVAL) => Ok(None),
            found => Ok(found?.into_iter().next()),
        }
    }
}

fn fixed(link: u32, handle: u32, parent: u32, info: u32) -> [u8; FIXED_LEN] {
    let mut bytes = [0; FIXED_LEN];
    for (number, value) in [link, handle, parent, info].into_iter().enumerate() {
        bytes[4 + number * 4..8 + number * 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

fn write_rate(options: &mut Attributes<'_>, rate: &Rate) {
    let mut parameters = [0; TBF_LEN];
    let mut put = |at: usize, value: u32| parameters[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(TBF_RATE, u32::try_from(rate.bytes_per_second).unwrap_or(u32::MAX));
    put(TBF_LIMIT, rate.limit_bytes);
    // Told beside it in bytes, which is what counts.
    let ticks = u128::from(rate.burst_bytes) * u128::from(TICKS_PER_SECOND) / u128::from(rate.bytes_per_second.max(1));
    put(TBF_BUFFER, u32::try_from(ticks).unwrap_or(u32::MAX));
    parameters[TBF_RATE_LINK_LAYER] = LINK_LAYER_ETHERNET;
    options.put(TBF_PARAMETERS, &parameters);
    options.put_u32(TBF_BURST, rate.burst_bytes);
    if rate.bytes_per_second > u64::from(u32::MAX) {
        options.put(TBF_RATE64, &rate.bytes_per_second.to_ne_bytes());
    }
}

/// `tc_mirred`: index, capabilities, what becomes of the packet here, two counters, what is done, the link.
fn redirect(to: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    for (number, value) in [0, 0, ACTION_STOLEN, 0, 0, EGRESS_REDIRECT, to].into_iter().enumerate() {
        bytes[number * 4..number * 4 + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

fn of_kind<'a>(body: &'a [u8], link: u32, kind: &str) -> Option<&'a [u8]> {
    let attributes = body.get(FIXED_LEN..)?;
    if u32_at(body, 4)? != link || attribute(attributes, KIND).map(text).as_deref() != Some(kind) {
        return None;
    }
    attribute(attributes, OPTIONS)
}

fn parse_rate(body: &[u8], link: u32) -> Option<Rate> {
    let options = of_kind(body, link, "tbf")?;
    let parameters = attribute(options, TBF_PARAMETERS)?;
    let (rate, ticks) = (u32_at(parameters, TBF_RATE)?, u32_at(parameters, TBF_BUFFER)?);
    let wide = attribute(options, TBF_RATE64).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    let bytes_per_second = wide.unwrap_or(u64::from(rate));
    let burst = u128::from(ticks) * u128::from(bytes_per_second) / u128::from(TICKS_PER_SECOND);
    Some(Rate {
        bytes_per_second,
        burst_bytes: u32::try_from(burst).unwrap_or(u32::MAX),
        limit_bytes: u32_at(parameters, TBF_LIMIT)?,
    })
}

fn parse_redirection(body: &[u8], link: u32) -> Option<u32> {
    let options = of_kind(body, link, "u32")?;
    let action = attribute(attribute(options, U32_ACTIONS)?, 1)?;
    let parameters = attribute(attribute(action, ACTION_OPTIONS)?, MIRRED_PARAMETERS)?;
    u32_at(parameters, 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_is_told_in_bytes_and_in_ticks() {
        let rate = Rate { bytes_per_second: 1_000_000, burst_bytes: 500_000, limit_bytes: 600_000 };
        let mut changes = Changes::new();
        changes.limit_rate(7, &rate);
        let bytes = changes.messages.numbered(1).to_vec();
        let back = parse_rate(&bytes[super::super::message::HEADER_LEN..], 7).unwrap();
        assert_eq!(back, rate);
        assert_eq!(parse_rate(&bytes[super::super::message::HEADER_LEN..], 8), None);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>, link: u32) {
            let _ = (parse_rate(&bytes, link), parse_redirection(&bytes, link));
        }
    }
}
