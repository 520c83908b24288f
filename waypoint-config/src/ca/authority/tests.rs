// SPDX-License-Identifier: Apache-2.0
//! What the authority signs, read back with an independent parser and verified with webpki's rules.

use rcgen::{CertificateParams, KeyPair};
use x509_parser::prelude::*;

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn identity() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

fn csr(key: &KeyPair, subject: &str) -> String {
    let params = CertificateParams::new(vec![subject.to_owned()]).unwrap();
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn authority() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(dir.path(), "cluster.local", now()).unwrap();
    (dir, authority)
}

fn parse(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn the_request_gives_the_key_and_nothing_else() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let chain = authority.issue(&csr(&key, "evil.example"), &identity(), Duration::ZERO, now()).unwrap();
    assert_eq!(chain.len(), 2);
    assert!(chain.iter().all(|element| element.ends_with("-----END CERTIFICATE-----\n")));

    let der = parse(&chain[0]);
    let (_, leaf) = parse_x509_certificate(&der).unwrap();
    assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.der_bytes());
    assert_eq!(leaf.subject().iter().count(), 0);
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    assert!(matches!(&san.value.general_names[..], [GeneralName::URI("spiffe://cluster.local/ns/shop/sa/cart")]));
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth);
    assert!(!leaf.is_ca());

    let validity = leaf.validity();
    assert_eq!(validity.not_before.to_datetime(), now() - Duration::minutes(2));
    assert_eq!(validity.not_after.to_datetime(), now() + Duration::hours(24));

    let root = parse(&chain[1]);
    let (_, root) = parse_x509_certificate(&root).unwrap();
    assert_eq!(leaf.issuer(), root.subject());
    leaf.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn a_life_beyond_the_most_is_an_error_and_no_leaf_outlives_the_signer() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let request = csr(&key, "a");
    assert!(matches!(
        authority.issue(&request, &identity(), Duration::days(91), now()),
        Err(IssueError::Lifetime { .. })
    ));
    let late = now() + Duration::days(3649);
    let chain = authority.issue(&request, &identity(), Duration::days(30), late).unwrap();
    let der = parse(&chain[0]);
    let (_, leaf) = parse_x509_certificate(&der).unwrap();
    assert_eq!(leaf.validity().not_after.to_datetime(), now() + Duration::days(3650));
    let after = now() + Duration::days(3651);
    assert!(matches!(authority.issue(&request, &identity(), Duration::ZERO, after), Err(IssueError::Expired(_))));
}

#[test]
fn requests_that_are_not_requests_are_refused() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let good = csr(&key, "a");
    // Another key's request with this one's signature: flip a byte in the middle.
    let mut der = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap().to_vec();
    let middle = der.len() / 3;
    der[middle] ^= 1;
    use base64::Engine as _;
    let tampered = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64::engine::general_purpose::STANDARD.encode(&der)
    );
    for bad in [
        "",
        "no PEM at all",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        &tampered,
    ] {
        assert!(matches!(
            authority.issue(bad, &identity(), Duration::ZERO, now()),
            Err(IssueError::Request(_) | IssueError::Key(_))
        ));
    }
}

#[test]
fn an_operators_intermediate_signs_and_is_sent_between_leaf_and_root() {
    let dir = tempfile::tempdir().unwrap();
    let ca = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = now() + Duration::days(365);
        params
    };
    let root_key = KeyPair::generate().unwrap();
    let root = ca("root").self_signed(&root_key).unwrap();
    let root_issuer = Issuer::from_ca_cert_der(root.der(), &root_key).unwrap();
    let middle_key = KeyPair::generate().unwrap();
    let middle = ca("middle").signed_by(&middle_key, &root_issuer).unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("ca-cert.pem", &middle.pem(), 0o644);
    write("ca-key.pem", &middle_key.serialize_pem(), 0o600);
    write("cert-chain.pem", &format!("{}{}", middle.pem(), root.pem()), 0o644);
    write("root-cert.pem", &root.pem(), 0o644);

    let authority = Authority::load_or_create(dir.path(), "cluster.local", now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let chain = authority.issue(&csr(&key, "a"), &identity(), Duration::ZERO, now()).unwrap();
    assert_eq!(chain.len(), 3);
    assert_eq!(parse(&chain[1]), middle.der().to_vec());
    assert_eq!(parse(&chain[2]), root.der().to_vec());
}

#[test]
fn a_signer_that_is_no_authority_or_has_another_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Authority::load_or_create(dir.path(), "cluster.local", now()).unwrap();
    std::fs::write(dir.path().join("ca-key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let Err(KeyError::Content { reason, .. }) = Authority::load_or_create(dir.path(), "cluster.local", now()) else {
        panic!("must be refused")
    };
    assert!(reason.contains("ca-key.pem"), "{reason}");
}
