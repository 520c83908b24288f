// SPDX-License-Identifier: Apache-2.0
//! A certificate authority for unit tests.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Credential, Material};

pub(crate) struct Ca {
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).unwrap().der().clone();
    Ca { certificate, issuer: Issuer::new(params, key) }
}

pub(crate) fn issue(ca: &Ca, names: &[&str]) -> (PrivateKeyDer<'static>, Vec<CertificateDer<'static>>) {
    issue_for(ca, names, |_| {})
}

/// A certificate with something changed.
pub(crate) fn issue_for(
    ca: &Ca,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (PrivateKeyDer<'static>, Vec<CertificateDer<'static>>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    let certificate = params.signed_by(&key, &ca.issuer).unwrap().der().clone();
    (PrivateKeyDer::try_from(key.serialize_der()).unwrap(), vec![certificate])
}

pub(crate) fn credential(ca: &Ca, name: &str) -> Credential {
    let (key, chain) = issue(ca, &[name]);
    Credential::new(Material { identity: name.parse().unwrap(), key, chain, roots: vec![ca.certificate.clone()] })
        .unwrap()
}
