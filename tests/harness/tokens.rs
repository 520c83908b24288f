// SPDX-License-Identifier: Apache-2.0
//! Service account tokens as a cluster's API server issues them, signed with a key of the world's own, and the key set to check them with.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde_json::{Value, json};

/// The name of the key in its set.
const KEY_ID: &str = "world";
/// Who issues these tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc";

/// An issuer of tokens.
#[derive(Debug)]
pub struct Issuer {
    key: KeyPair,
}

/// Whom a token is for.
#[derive(Debug)]
pub struct Bearer<'a> {
    /// Namespace of the service account.
    pub namespace: &'a str,
    /// The service account.
    pub service_account: &'a str,
    /// The pod it is bound to.
    pub pod: &'a str,
    /// Uid of the pod.
    pub uid: &'a str,
    /// Node of the pod.
    pub node: &'a str,
}

impl Issuer {
    /// One with a new key.
    pub fn create() -> Result<Self> {
        Ok(Self { key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    /// Writes the public key as a JSON Web Key Set.
    pub fn write_key_set(&self, file: &Path) -> Result<()> {
        std::fs::write(file, self.key_set()?.to_string()).with_context(|| format!("write {}", file.display()))
    }

    /// The public key as a JSON Web Key Set.
    pub fn key_set(&self) -> Result<Value> {
        // An uncompressed point: 4, x, y.
        let point = self.key.der_bytes();
        ensure!(point.len() == 65 && point[0] == 4, "not an uncompressed P-256 point");
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": KEY_ID, "x": text(&point[1..33]), "y": text(&point[33..]),
        }] }))
    }

    /// A token with the claims Kubernetes puts into one that is projected into a pod, for the certificate authority.
    pub fn token(&self, bearer: &Bearer<'_>) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let claims = json!({
            "iss": ISSUER,
            "aud": ["istio-ca"],
            "sub": format!("system:serviceaccount:{}:{}", bearer.namespace, bearer.service_account),
            "iat": now.as_secs(),
            "nbf": now.as_secs(),
            "exp": (now + Duration::from_secs(12 * 3600)).as_secs(),
            "kubernetes.io": {
                "namespace": bearer.namespace,
                "node": { "name": bearer.node, "uid": bearer.node },
                "pod": { "name": bearer.pod, "uid": bearer.uid },
                "serviceaccount": { "name": bearer.service_account, "uid": bearer.service_account },
            },
        });
        self.encode(&claims)
    }

    /// A token with these claims that is valid for an hour.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let mut claims = claims.clone();
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 3600);
        self.encode(&claims)
    }

    fn encode(&self, claims: &Value) -> Result<String> {
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(encode(&header, claims, &EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes())?)?)
    }
}
