// SPDX-License-Identifier: Apache-2.0
//! Tokens as a Kubernetes API server signs them, good and bad; certificates of this mesh and of others.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};

use super::*;

struct Issuer {
    key: EncodingKey,
    jwk: Value,
}

fn issuer(kid: &str) -> Issuer {
    let pair = KeyPair::generate().unwrap();
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some(kid.to_owned());
    Issuer { key, jwk: serde_json::to_value(jwk).unwrap() }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({
        "iss": "https://kubernetes.default.svc", "aud": ["istio-ca"], "sub": "system:serviceaccount:shop:cart",
        "exp": seconds() + 600, "nbf": seconds() - 5,
        "kubernetes.io": { "namespace": "shop", "pod": {"name": "cart-0", "uid": "u-1"}, "serviceaccount": {"name": "cart", "uid": "s-1"} }
    })
}

fn sign(issuer: &Issuer, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = issuer.jwk["kid"].as_str().map(str::to_owned);
    format!("Bearer {}", jsonwebtoken::encode(&header, claims, &issuer.key).unwrap())
}

fn authenticator(keys: &[&Issuer]) -> (tempfile::TempDir, Authenticator) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let set = json!({ "keys": keys.iter().map(|issuer| issuer.jwk.clone()).collect::<Vec<_>>() });
    std::fs::write(&path, set.to_string()).unwrap();
    let issuer = Some("https://kubernetes.default.svc".to_owned());
    (dir, Authenticator::new("cluster.local".into(), vec!["istio-ca".into()], issuer, KeySet::new(path)))
}

#[test]
fn a_service_account_token_names_its_account_and_pod() {
    let issuer = issuer("a");
    let (_dir, authenticator) = authenticator(&[&issuer]);
    let caller = authenticator.authenticate(None, Some(&sign(&issuer, &claims()))).unwrap();
    assert_eq!(caller.identity().to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(caller.pod().unwrap(), &PodReference { name: "cart-0".into(), uid: "u-1".into() });
}

#[test]
fn a_token_must_be_for_us_from_our_issuer_and_in_its_time() {
    let issuer = issuer("a");
    let (_dir, authenticator) = authenticator(&[&issuer]);
    let changed = |field: &str, value: Value| {
        let mut claims = claims();
        claims[field] = value;
        sign(&issuer, &claims)
    };
    let mut unlimited = claims();
    unlimited.as_object_mut().unwrap().remove("exp");
    for bad in [
        changed("aud", json!(["api"])),
        changed("iss", json!("https://elsewhere")),
        changed("exp", json!(seconds() - 60)),
        changed("nbf", json!(seconds() + 600)),
        sign(&issuer, &unlimited),
    ] {
        assert!(matches!(authenticator.authenticate(None, Some(&bad)), Err(AuthenticationError::Refused(_))), "{bad}");
    }
    for subject in ["alice", "system:serviceaccount:shop", "system:serviceaccount:shop:a/b", "system:serviceaccount::x"]
    {
        let token = changed("sub", json!(subject));
        assert!(
            matches!(authenticator.authenticate(None, Some(&token)), Err(AuthenticationError::Subject(_))),
            "{subject}"
        );
    }
}

#[test]
fn a_signature_of_another_key_is_worth_nothing_whatever_name_it_gives() {
    let ours = issuer("a");
    let impostor = issuer("a");
    let stranger = issuer("b");
    let (_dir, authenticator) = authenticator(&[&ours]);
    let refused = authenticator.authenticate(None, Some(&sign(&impostor, &claims())));
    assert!(matches!(refused, Err(AuthenticationError::Refused(_))));
    let unknown = authenticator.authenticate(None, Some(&sign(&stranger, &claims())));
    assert!(matches!(unknown, Err(AuthenticationError::NoKey { .. })));
}

/// The classic confusion: a token signed with HMAC, the public key's text as the secret.
#[test]
fn a_shared_secret_never_signs() {
    let issuer = issuer("a");
    let (dir, authenticator) = authenticator(&[&issuer]);
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("a".to_owned());
    let secret = EncodingKey::from_secret(issuer.jwk.to_string().as_bytes());
    let token = format!("Bearer {}", jsonwebtoken::encode(&header, &claims(), &secret).unwrap());
    assert!(authenticator.authenticate(None, Some(&token)).is_err());
    let oct = json!({"keys": [{"kty": "oct", "kid": "a", "k": "c2VjcmV0"}]});
    std::fs::write(dir.path().join("jwks.json"), oct.to_string()).unwrap();
    let token =
        format!("Bearer {}", jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap());
    assert!(matches!(authenticator.authenticate(None, Some(&token)), Err(AuthenticationError::NoKey { .. })));
}

#[test]
fn a_changed_key_set_is_read_again_and_a_broken_one_leaves_the_last_in_force() {
    let old = issuer("a");
    let new = issuer("b");
    let (dir, authenticator) = authenticator(&[&old]);
    let token = sign(&old, &claims());
    authenticator.authenticate(None, Some(&token)).unwrap();
    std::fs::write(dir.path().join("jwks.json"), "{ half a key s").unwrap();
    authenticator.authenticate(None, Some(&token)).unwrap();
    std::fs::write(dir.path().join("jwks.json"), json!({"keys": [new.jwk]}).to_string()).unwrap();
    authenticator.authenticate(None, Some(&sign(&new, &claims()))).unwrap();
    assert!(authenticator.authenticate(None, Some(&token)).is_err());
}

#[test]
fn a_certificate_counts_only_with_an_identity_of_our_trust_domain() {
    let (_dir, authenticator) = authenticator(&[]);
    let certificate = |uri: &str| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    };
    let caller = authenticator.authenticate(Some(&certificate("spiffe://cluster.local/ns/a/sa/b")), None).unwrap();
    assert_eq!(caller.identity().to_string(), "spiffe://cluster.local/ns/a/sa/b");
    assert!(caller.pod().is_none());
    for uri in ["spiffe://other/ns/a/sa/b", "https://cluster.local/", "spiffe://cluster.local/a"] {
        assert!(authenticator.authenticate(Some(&certificate(uri)), None).is_err(), "{uri}");
    }
}

#[test]
fn a_call_with_nothing_is_refused() {
    let (_dir, authenticator) = authenticator(&[]);
    assert!(matches!(authenticator.authenticate(None, None), Err(AuthenticationError::Nothing)));
    assert!(matches!(authenticator.authenticate(None, Some("token")), Err(AuthenticationError::Header)));
}
