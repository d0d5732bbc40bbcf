//! An attachment: one interface of one container in a network, and the names that follow from it.

use std::path::PathBuf;

use berth_sys::netlink::link::{Mac, NAME_BYTES_MAX};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::limits::CONTAINER_ID_BYTES_MAX;

/// What the names of our interfaces on the host begin with; what follows is a hash.
pub(crate) const HOST_NAME_PREFIX: &str = "berth";

/// What the names of our ifbs begin with; what follows are hashes of the network and of the owner.
const IFB_NAME_PREFIX: &str = "ifb";
/// Digits of the network's hash in it.
const IFB_NETWORK_DIGITS: usize = 4;

/// One interface of one container in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The container's (for Kubernetes: the sandbox's) id.
    pub container_id: String,
    /// The path of its network namespace.
    pub netns: PathBuf,
    /// The name of the interface inside, such as `eth0`.
    pub ifname: String,
    /// `CNI_ARGS`: `K8S_POD_NAME` and so on.
    #[serde(default)]
    pub args: Vec<(String, String)>,
    /// `runtimeConfig` by capability, such as `portMappings`.
    #[serde(default)]
    pub runtime_config: Map<String, Value>,
}

impl Attachment {
    /// Refuses what the specification does not allow: these become names of files and interfaces.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |variable, problem: String| Err(Error::Attachment { variable, problem });
        if !is_id(&self.container_id) || self.container_id.len() > CONTAINER_ID_BYTES_MAX {
            let problem = format!(
                "{:?} must be letters, digits, '_', '.', '-', the first of them a letter or digit, at most {CONTAINER_ID_BYTES_MAX}",
                self.container_id
            );
            return refuse("CNI_CONTAINERID", problem);
        }
        let name = &self.ifname;
        let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name == "." || name == ".." || name.contains(forbidden) {
            let problem =
                format!("{name:?} is no name for an interface: 1 to {NAME_BYTES_MAX} bytes without '/', ':', spaces");
            return refuse("CNI_IFNAME", problem);
        }
        Ok(())
    }

    /// Who owns what this attachment takes.
    pub(crate) fn owner(&self) -> Owner {
        Owner { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}

/// Who owns an address, an interface or a cached result: the specification's key of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

impl Owner {
    /// The name of the host's end of the interface: the same whenever it is asked for, different for every other owner.
    pub(crate) fn host_name(&self) -> String {
        self.name(HOST_NAME_PREFIX)
    }

    /// The name of the link by which what the attachment sends is held back, in the same way. Unlike the other it is no
    /// port of the network's bridge, so its name has to say whose GC may delete it.
    pub(crate) fn ifb_name(&self, network: &str) -> String {
        self.name(&ifb_names(network))
    }

    fn name(&self, prefix: &str) -> String {
        let digest = digest(format!("{}\n{}", self.container_id, self.ifname).as_bytes());
        format!("{prefix}{}", &digest[..NAME_BYTES_MAX - prefix.len()])
    }

    /// The hardware address of the host's end.
    pub(crate) fn host_mac(&self) -> Mac {
        let digest: [u8; 32] = Sha256::digest(format!("{}\n{}", self.container_id, self.ifname).as_bytes()).into();
        let [a, b, c, d, e, ..] = digest;
        // Given out by nobody, and for one station.
        Mac([0x0e, a, b, c, d, e])
    }

    /// The name of the file of its cached result. A colon is in neither part.
    pub(crate) fn file_name(&self) -> String {
        format!("{}:{}.json", self.container_id, self.ifname)
    }
}

/// The group of the host's ends of a network: ports of one bridge may be of several networks, and GC is told of one.
pub(crate) fn group_of(network: &str) -> u32 {
    let digest: [u8; 32] = Sha256::digest(network.as_bytes()).into();
    let [a, b, c, d, ..] = digest;
    // The kernel's own is 0, and ip(8) reads no more than 31 bits.
    (u32::from_be_bytes([a, b, c, d]) >> 1).max(1)
}

/// What the names of all ifbs of a network begin with.
fn ifb_names(network: &str) -> String {
    format!("{IFB_NAME_PREFIX}{}", &digest(network.as_bytes())[..IFB_NETWORK_DIGITS])
}

/// Whether this is the name of an ifb of some attachment to the network.
pub(crate) fn is_ifb_of(network: &str, name: &str) -> bool {
    let owner = name.strip_prefix(&ifb_names(network));
    name.len() == NAME_BYTES_MAX
        && owner.is_some_and(|owner| owner.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// Whether a text is a name as the specification wants it: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
pub(crate) fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// A hash as lower-case hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(container_id: &str, ifname: &str) -> Attachment {
        Attachment {
            container_id: container_id.into(),
            netns: "/run/netns/x".into(),
            ifname: ifname.into(),
            args: vec![],
            runtime_config: Map::new(),
        }
    }

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for (id, ifname, variable) in [
            ("", "eth0", "CNI_CONTAINERID"),
            ("../x", "eth0", "CNI_CONTAINERID"),
            ("a/b", "eth0", "CNI_CONTAINERID"),
            ("a", "", "CNI_IFNAME"),
            ("a", "..", "CNI_IFNAME"),
            ("a", "e/0", "CNI_IFNAME"),
            ("a", "abcdefghijklmnop", "CNI_IFNAME"),
        ] {
            let error = attachment(id, ifname).validate().unwrap_err();
            assert_eq!(error.code(), 4);
            assert!(error.to_string().starts_with(variable), "{error}");
        }
        attachment("3f-_.", "abcdefghijklmno").validate().unwrap();
    }

    #[test]
    fn the_host_name_fits_and_differs() {
        let name = attachment("a", "eth0").owner().host_name();
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert_ne!(name, attachment("a", "eth1").owner().host_name());
    }

    #[test]
    fn an_ifb_is_its_owners_and_its_networks() {
        let name = attachment("a", "eth0").owner().ifb_name("pods");
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert_ne!(name, attachment("b", "eth0").owner().ifb_name("pods"));
        assert!(is_ifb_of("pods", &name) && !is_ifb_of("others", &name), "{name}");
        for other in ["ifb0", "", &name[..14], &format!("{}x", &name[..14]), "berth0123456789"] {
            assert!(!is_ifb_of("pods", other), "{other}");
        }
    }
}
