//! Kubeconfig files with everything embedded, so that they can be carried to another machine.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Identity;

/// One cluster, one user, one context. `url` and `user` are made by this program and hold nothing to be escaped.
pub(super) fn write(url: &str, ca_pem: &str, user: &str, identity: &Identity) -> String {
    let (ca, cert, key) =
        (STANDARD.encode(ca_pem), STANDARD.encode(&identity.cert_pem), STANDARD.encode(&identity.key_pem));
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: berth
  cluster:
    server: {url}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: {user}@berth
  context:
    cluster: berth
    user: {user}
current-context: {user}@berth
"
    )
}
