// SPDX-License-Identifier: Apache-2.0
//! Issuers of the tokens that clients show to services.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use serde_json::{Value, json};
use x509_parser::{prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};

/// An issuer with a key of its own.
pub(crate) struct Issuer {
    name: String,
    key: KeyPair,
    algorithm: Algorithm,
}

impl Issuer {
    /// One with an elliptic key.
    pub(crate) fn elliptic(name: &str) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { name: name.to_owned(), key, algorithm: Algorithm::ES256 })
    }

    /// One with an RSA key.
    pub(crate) fn rsa(name: &str) -> Result<Self> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        Ok(Self { name: name.to_owned(), key, algorithm: Algorithm::RS256 })
    }

    /// The same key under another name.
    pub(crate) fn renamed(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The public key as a JSON Web Key Set.
    pub(crate) fn key_set(&self) -> Result<Value> {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let der = self.key.subject_public_key_info();
        let (_, info) = SubjectPublicKeyInfo::from_der(&der)?;
        let key = match info.parsed()? {
            PublicKey::RSA(key) => {
                // With a leading zero in DER, without one here.
                let modulus = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
                json!({ "kty": "RSA", "alg": "RS256", "kid": "k", "n": text(modulus), "e": text(key.exponent) })
            }
            PublicKey::EC(point) => {
                let point = point.data();
                ensure!(point.len() == 65 && point[0] == 4, "not an uncompressed P-256 point");
                json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": text(&point[1..33]), "y": text(&point[33..]) })
            }
            _ => bail!("another kind of key"),
        };
        Ok(json!({ "keys": [key] }))
    }

    /// A token with these claims, which may overrule the usual ones.
    pub(crate) fn token(&self, claims: Value) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let mut all = json!({ "iss": self.name, "sub": "alice", "exp": (now + Duration::from_secs(3600)).as_secs() });
        let (Some(all), Value::Object(claims)) = (all.as_object_mut(), claims) else { bail!("claims are a mapping") };
        all.extend(claims);
        let header = Header { kid: Some("k".to_owned()), ..Header::new(self.algorithm) };
        let pem = self.key.serialize_pem();
        let key = match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            _ => EncodingKey::from_ec_pem(pem.as_bytes()),
        };
        encode(&header, all, &key.context("the issuer's key")?).context("sign a token")
    }
}
