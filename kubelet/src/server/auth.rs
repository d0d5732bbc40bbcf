//! Who calls, by the certificate that the TLS handshake has verified, and whether that one may.

use axum::http::StatusCode;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The groups whose members may ask a node everything: the cluster's own masters, under the two names that they have.
const MASTERS: [&str; 2] = ["system:masters", "kubeadm:cluster-admins"];

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// The certificate's common name.
    pub user: String,
    /// The certificate's organisations.
    pub groups: Vec<String>,
}

impl Caller {
    /// The subject of a verified certificate.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let texts = |attributes: Vec<&str>| attributes.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let user = texts(subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect());
        let groups = texts(subject.iter_organization().filter_map(|name| name.as_str().ok()).collect());
        Some(Self { user: user.into_iter().next().unwrap_or_default(), groups })
    }
}

/// Whether a caller may see what is not for everybody; if not, the answer.
pub(super) fn admit(caller: Option<&Caller>, has_client_ca: bool) -> Result<(), (StatusCode, String)> {
    match caller {
        Some(caller) if caller.groups.iter().any(|group| MASTERS.contains(&group.as_str())) => Ok(()),
        Some(caller) => {
            let groups = MASTERS.join(", ");
            let message =
                format!("{:?} may not do this: the certificate must be of one of the groups {groups}\n", caller.user);
            Err((StatusCode::FORBIDDEN, message))
        }
        None if has_client_ca => {
            let message = "a client certificate is needed, signed by the authority that this node was given\n";
            Err((StatusCode::UNAUTHORIZED, message.to_owned()))
        }
        None => {
            let message = "this node was given no authority whose client certificates it could believe \
                (authentication.x509.clientCAFile)\n";
            Err((StatusCode::UNAUTHORIZED, message.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_masters_may() {
        let caller = |group: &str| Caller { user: "u".to_owned(), groups: vec![group.to_owned()] };
        assert!(admit(Some(&caller("system:masters")), true).is_ok());
        assert_eq!(admit(Some(&caller("system:nodes")), true).unwrap_err().0, StatusCode::FORBIDDEN);
        assert_eq!(admit(None, true).unwrap_err().0, StatusCode::UNAUTHORIZED);
        assert!(admit(None, false).unwrap_err().1.contains("clientCAFile"));
    }

    #[test]
    fn garbage_is_nobody() {
        assert_eq!(Caller::of(b"no certificate"), None);
    }
}
