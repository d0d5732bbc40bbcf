use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_second_start_finds_what_the_first_made() {
    let folder = tempfile::tempdir().unwrap();
    let first = Pki::open(folder.path()).unwrap();
    let address = "192.0.2.1".parse().unwrap();
    let server = first.server(&["master".to_owned()], &[address]).unwrap();
    let again = Pki::open(folder.path()).unwrap();
    assert_eq!(first.ca_pem(), again.ca_pem());
    assert_eq!(server.cert_pem, again.server(&["master".to_owned()], &[address]).unwrap().cert_pem);
    // Another name needs another certificate.
    assert_ne!(server.cert_pem, again.server(&["other".to_owned()], &[address]).unwrap().cert_pem);
    assert_eq!(mode(&folder.path().join("ca.key")), 0o600);
    assert_eq!(mode(&folder.path().join("apiserver.key")), 0o600);
}

#[test]
fn a_node_gets_all_its_files_and_only_under_a_good_name() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(&folder.path().join("pki")).unwrap();
    let dir = folder.path().join("node");
    let url = "https://192.0.2.1:6443";
    let files = pki.issue_node(url, "n1", &["192.0.2.2".parse().unwrap()], &dir).unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(&files.kubeconfig).unwrap();
    assert_eq!(kubeconfig.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some(url));
    let facts = certificate::Facts::read(&std::fs::read_to_string(&files.client_cert).unwrap()).unwrap();
    assert!(format!("{facts:?}").contains("system:node:n1"));
    for secret in [&files.kubeconfig, &files.client_key, &files.serving_key] {
        assert_eq!(mode(secret), 0o600);
    }
    for name in ["", "../n1", "N1", "a b"] {
        assert!(matches!(pki.issue_node(url, name, &[], &dir), Err(PkiError::NodeName { .. })), "{name}");
    }
}

#[test]
fn a_damaged_authority_is_told_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    drop(Pki::open(folder.path()).unwrap());
    let key = std::fs::read_to_string(folder.path().join("ca.key")).unwrap();
    std::fs::write(folder.path().join("ca.key"), "nothing").unwrap();
    assert!(matches!(Pki::open(folder.path()), Err(PkiError::Damaged { .. })));
    std::fs::remove_file(folder.path().join("ca.key")).unwrap();
    assert!(matches!(Pki::open(folder.path()), Err(PkiError::Damaged { .. })));
    // The key alone is enough: the certificate is made again, as after a crash between the two.
    std::fs::write(folder.path().join("ca.key"), key).unwrap();
    std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
    assert!(Pki::open(folder.path()).is_ok());
}

#[test]
fn half_written_leaves_are_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path()).unwrap();
    let first = pki.client("admin", "admin", &[GROUP_MASTERS]).unwrap();
    let other = pki.client("other", "other", &[]).unwrap();
    std::fs::write(folder.path().join("admin.key"), &other.key_pem).unwrap();
    let second = pki.client("admin", "admin", &[GROUP_MASTERS]).unwrap();
    assert_ne!(first.cert_pem, second.cert_pem);
    assert!(second.cert_pem.contains("BEGIN CERTIFICATE"));
}
