//! The cluster's certificates: its authority, what the master shows and is shown, and what a node needs to join.
//! Made on first start, renewed at a start when less than a third of their life is left.

mod certificate;
mod file;
mod kubeconfig;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_api::selector::is_dns_subdomain;
use rcgen::{Issuer, KeyPair};

pub use certificate::Profile;
pub(crate) use certificate::{Identity, Usage};

/// Group whose members may do everything.
pub const GROUP_MASTERS: &str = "system:masters";
/// Group of the nodes.
pub const GROUP_NODES: &str = "system:nodes";
/// What a node's user name begins with.
pub const NODE_USER_PREFIX: &str = "system:node:";
/// User name of the scheduler.
pub const USER_SCHEDULER: &str = "system:kube-scheduler";
/// User name of the controllers.
pub const USER_CONTROLLERS: &str = "system:kube-controller-manager";

/// Names by which pods know the API, whatever its address.
const SERVICE_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// Certificates or kubeconfig files that could not be read, made or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A file or folder cannot be read or written.
    #[error("cannot {step} {path}")]
    File {
        /// `read`, `write`, `make`.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key could not be made.
    #[error("cannot make the certificate of {subject}")]
    Make {
        /// Common name.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The authority's files are damaged. They are not replaced, because every node trusts them.
    #[error(
        "{path} is damaged ({detail}); restore it from a backup, or remove the whole folder to begin a new cluster"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A node cannot be called so.
    #[error(
        "{name:?} is no node name: lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
    )]
    NodeName {
        /// The name as given.
        name: String,
    },
}

/// The files that make a node a member, as [`crate::Master::issue_node`] leaves them in a folder.
#[derive(Debug, Clone)]
pub struct NodeCredentials {
    /// `kubeconfig`: the master's address, its authority and the node's client certificate, all embedded.
    pub kubeconfig: PathBuf,
    /// `ca.crt`: the authority that signs the clients that may call the node on :10250.
    pub ca: PathBuf,
    /// `client.crt`: `CN=system:node:<name>`, `O=system:nodes`.
    pub client_cert: PathBuf,
    /// `client.key`, mode 0600.
    pub client_key: PathBuf,
    /// `serving.crt`: for :10250; names the node and its addresses.
    pub serving_cert: PathBuf,
    /// `serving.key`, mode 0600.
    pub serving_key: PathBuf,
}

/// The cluster's certificate authority, with its key.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    ca_pem: String,
    ca: certificate::Facts,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Reads the authority in a folder, or makes it.
    ///
    /// # Errors
    /// When the folder cannot be used, or what is in it is damaged.
    pub fn open(folder: &Path) -> Result<Self, PkiError> {
        file::make_folder(folder)?;
        let (cert_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        let damaged = |path: &Path, detail: String| PkiError::Damaged { path: path.to_owned(), detail };
        let key = match file::read(&key_path)? {
            Some(pem) => KeyPair::from_pem(&pem).map_err(|error| damaged(&key_path, error.to_string()))?,
            None if cert_path.exists() => return Err(damaged(&key_path, "missing".to_owned())),
            None => {
                let key = certificate::new_key("the authority")?;
                file::write_secret(&key_path, &key.serialize_pem())?;
                key
            }
        };
        // A new certificate for the same key and name: all that it has signed stays good.
        let ca_pem = match file::read(&cert_path)? {
            Some(pem)
                if certificate::is_fresh_authority(&pem, &key).map_err(|detail| damaged(&cert_path, detail))? =>
            {
                pem
            }
            _ => {
                let pem = certificate::make_authority(&key)?;
                file::write_public(&cert_path, &pem)?;
                pem
            }
        };
        let ca = certificate::Facts::read(&ca_pem).map_err(|detail| damaged(&cert_path, detail))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|error| damaged(&cert_path, error.to_string()))?;
        Ok(Self { folder: folder.to_owned(), ca_pem, ca, issuer })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What the API server shows to its clients.
    pub(crate) fn server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Identity, PkiError> {
        let profile = Profile {
            common_name: "kube-apiserver".to_owned(),
            organizations: Vec::new(),
            names: SERVICE_NAMES.iter().map(|name| (*name).to_owned()).chain(names.iter().cloned()).collect(),
            addresses: addresses.to_vec(),
            usage: Usage::Server,
        };
        self.identity(&self.folder, "apiserver", &profile)
    }

    /// A client of the API (or of the kubelets), kept in the authority's folder under `stem`.
    pub(crate) fn client(&self, stem: &str, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        self.identity(&self.folder, stem, &Profile::client(user, groups))
    }

    /// The kubeconfig of one of this folder's clients.
    pub(crate) fn kubeconfig(&self, url: &str, user: &str, identity: &Identity) -> String {
        kubeconfig::write(url, &self.ca_pem, user, identity)
    }

    /// Writes the kubeconfig of the administrator.
    pub(crate) fn write_admin(&self, url: &str, path: &Path) -> Result<(), PkiError> {
        let identity = self.client("admin", "kubernetes-admin", &[GROUP_MASTERS])?;
        file::write_secret(path, &self.kubeconfig(url, "kubernetes-admin", &identity))
    }

    /// Makes (or renews) a node's credentials in `dir`, for an API at `url`.
    ///
    /// # Errors
    /// When the folder cannot be written or the name is no valid node name.
    pub fn issue_node(
        &self,
        url: &str,
        name: &str,
        addresses: &[IpAddr],
        dir: &Path,
    ) -> Result<NodeCredentials, PkiError> {
        if !is_dns_subdomain(name) {
            return Err(PkiError::NodeName { name: name.to_owned() });
        }
        file::make_folder(dir)?;
        let user = format!("{NODE_USER_PREFIX}{name}");
        let client = self.identity(dir, "client", &Profile::client(&user, &[GROUP_NODES]))?;
        let mut serving = Profile {
            common_name: user.clone(),
            organizations: vec![GROUP_NODES.to_owned()],
            names: Vec::new(),
            addresses: addresses.to_vec(),
            usage: Usage::Server,
        };
        // A node may be called by its address; certificates tell addresses from names.
        match name.parse() {
            Ok(address) => serving.addresses.push(address),
            Err(_) => serving.names.push(name.to_owned()),
        }
        self.identity(dir, "serving", &serving)?;
        let (kubeconfig, ca) = (dir.join("kubeconfig"), dir.join("ca.crt"));
        file::write_public(&ca, &self.ca_pem)?;
        file::write_secret(&kubeconfig, &self.kubeconfig(url, &user, &client))?;
        Ok(NodeCredentials {
            kubeconfig,
            ca,
            client_cert: dir.join("client.crt"),
            client_key: dir.join("client.key"),
            serving_cert: dir.join("serving.crt"),
            serving_key: dir.join("serving.key"),
        })
    }

    /// What is in `<stem>.crt` and `<stem>.key`, if it is still good for the purpose; else new ones, written there.
    fn identity(&self, dir: &Path, stem: &str, profile: &Profile) -> Result<Identity, PkiError> {
        let (cert_path, key_path) = (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")));
        if let (Some(cert_pem), Some(key_pem)) = (file::read(&cert_path)?, file::read(&key_path)?) {
            let identity = Identity { cert_pem, key_pem };
            if identity.serves(profile, &self.ca) {
                return Ok(identity);
            }
        }
        let identity = Identity::issue(profile, &self.issuer)?;
        file::write_secret(&key_path, &identity.key_pem)?;
        file::write_public(&cert_path, &identity.cert_pem)?;
        Ok(identity)
    }
}

#[cfg(test)]
mod tests;
