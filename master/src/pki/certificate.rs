//! One certificate: made for a profile, and read back to see whether it still fits one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::PkiError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * DAY.as_secs());
const LEAF_LIFE: Duration = Duration::from_secs(365 * DAY.as_secs());
/// Clocks of a young cluster differ; a certificate is good a little before it was made.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Which side of a connection a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    Client,
    Server,
}

/// Whom a certificate names.
#[derive(Debug, Clone)]
pub struct Profile {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) usage: Usage,
}

impl Profile {
    pub(super) fn client(user: &str, groups: &[&str]) -> Self {
        Self {
            common_name: user.to_owned(),
            organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
        }
    }

    fn alternative_names(&self) -> BTreeSet<String> {
        self.names.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect()
    }
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

pub(super) fn new_key(subject: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|source| PkiError::Make { subject: subject.to_owned(), source })
}

fn parameters(common_name: &str, organizations: &[String], life: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let mut parameters = CertificateParams::default();
    parameters.not_before = (now - CLOCK_SKEW).into();
    parameters.not_after = (now + life).into();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    for organization in organizations {
        parameters.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    parameters
}

pub(super) fn make_authority(key: &KeyPair) -> Result<String, PkiError> {
    let mut parameters = parameters("berth", &[], AUTHORITY_LIFE);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let made = parameters.self_signed(key);
    made.map(|made| made.pem()).map_err(|source| PkiError::Make { subject: "the authority".to_owned(), source })
}

/// Whether the authority's certificate has enough life left; an error when it is not one, or not for this key.
pub(super) fn is_fresh_authority(pem: &str, key: &KeyPair) -> Result<bool, String> {
    let facts = Facts::read(pem)?;
    if facts.public_key != key.der_bytes() {
        return Err("it does not belong to ca.key".to_owned());
    }
    Ok(facts.is_fresh())
}

impl Identity {
    pub(super) fn issue(profile: &Profile, issuer: &Issuer<'_, KeyPair>) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Make { subject: profile.common_name.clone(), source };
        let mut parameters = parameters(&profile.common_name, &profile.organizations, LEAF_LIFE);
        for name in &profile.names {
            parameters.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
        }
        parameters.subject_alt_names.extend(profile.addresses.iter().copied().map(SanType::IpAddress));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![match profile.usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        parameters.use_authority_key_identifier_extension = true;
        let key = new_key(&profile.common_name)?;
        let certificate = parameters.signed_by(&key, issuer).map_err(failed)?;
        Ok(Self { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Whether it names whom the profile names, belongs to its key and the authority, and has enough life left.
    pub(super) fn serves(&self, profile: &Profile, authority: &Facts) -> bool {
        let (Ok(facts), Ok(key)) = (Facts::read(&self.cert_pem), KeyPair::from_pem(&self.key_pem)) else {
            return false;
        };
        facts.is_fresh()
            && facts.public_key == key.der_bytes()
            && facts.signed_with == authority.key_id
            && facts.common_name == profile.common_name
            && facts.organizations == profile.organizations
            && facts.alternative_names == profile.alternative_names()
    }
}

/// What a certificate says.
#[derive(Debug)]
pub(super) struct Facts {
    common_name: String,
    organizations: Vec<String>,
    alternative_names: BTreeSet<String>,
    public_key: Vec<u8>,
    key_id: Option<Vec<u8>>,
    signed_with: Option<Vec<u8>>,
    not_before: i64,
    not_after: i64,
}

impl Facts {
    pub(super) fn read(pem: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let subject = parsed.subject();
        let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned).ok();
        let mut facts = Self {
            common_name: subject.iter_common_name().find_map(text).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            alternative_names: BTreeSet::new(),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            key_id: None,
            signed_with: None,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
        };
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.signed_with = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    facts.alternative_names = names.general_names.iter().filter_map(alternative_name).collect();
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// More than a third of its life is left.
    fn is_fresh(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let life = self.not_after.saturating_sub(self.not_before);
        self.not_before <= now && self.not_after.saturating_sub(now) > life / 3
    }
}

fn alternative_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|address| address.to_string()),
        _ => None,
    }
}
