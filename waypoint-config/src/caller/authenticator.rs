// SPDX-License-Identifier: Apache-2.0
//! Tells who a caller is from what came with the call, and from nothing else.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mesh_proto::spiffe::Identity;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use thiserror::Error;
use x509_parser::prelude::GeneralName;

use super::keyset::KeySet;

/// A caller that has proved who it is. Only [`Authenticator`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    identity: Identity,
    pod: Option<PodReference>,
}

/// The pod a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReference {
    /// Its name, in the namespace of the caller's identity.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl Caller {
    /// The proven identity.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The pod whose token it showed; `None` for a client certificate or a token bound to no pod.
    #[must_use]
    pub const fn pod(&self) -> Option<&PodReference> {
        self.pod.as_ref()
    }

    #[cfg(test)]
    pub(crate) const fn assumed(identity: Identity, pod: Option<PodReference>) -> Self {
        Self { identity, pod }
    }
}

/// Why a caller was not accepted. The caller itself is told nothing but that it was not; this is for our log.
#[derive(Debug, Error)]
pub enum AuthenticationError {
    /// Neither certificate nor token.
    #[error("neither a client certificate nor an `authorization: Bearer` token came with the call")]
    Nothing,
    /// The header is not a bearer token.
    #[error("the authorization header is not `Bearer <token>`")]
    Header,
    /// The token is not a JWT, or of an algorithm no public key can sign.
    #[error("the token is not a signed JWT: {0}")]
    Token(jsonwebtoken::errors::Error),
    /// No key fits.
    #[error("no key of the key set {} fits the token (kid {kid:?}); is it the key set of this mesh's token issuer?", path.display())]
    NoKey {
        /// The key set's file.
        path: std::path::PathBuf,
        /// The key id the token names.
        kid: Option<String>,
    },
    /// A key fits by name, and the token is not good: signature, audience, issuer or time.
    #[error("the token was refused: {0}")]
    Refused(jsonwebtoken::errors::Error),
    /// The subject is no service account.
    #[error("the token's subject `{0}` is not system:serviceaccount:<namespace>:<name>")]
    Subject(String),
    /// The certificate carries no identity of this mesh.
    #[error("the client certificate carries no SPIFFE identity of trust domain {0}")]
    Certificate(String),
}

/// What tokens must say, beside their signature.
pub struct Authenticator {
    trust_domain: String,
    audiences: Vec<String>,
    issuer: Option<String>,
    keys: KeySet,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaims>,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    pod: Option<ObjectReference>,
}

#[derive(Deserialize)]
struct ObjectReference {
    name: String,
    uid: String,
}

/// Tokens are issued and checked by clocks this far apart at most.
const LEEWAY_SECONDS: u64 = 10;

impl Authenticator {
    /// Accepts certificates of `trust_domain` and tokens for one of `audiences`, from `issuer` if given, signed by `keys`.
    #[must_use]
    pub const fn new(trust_domain: String, audiences: Vec<String>, issuer: Option<String>, keys: KeySet) -> Self {
        Self { trust_domain, audiences, issuer, keys }
    }

    /// Tells who calls. `certificate` is the leaf of a client chain **already verified by TLS**; `authorization` the
    /// header of that name. A certificate counts first, as in Istio's order.
    ///
    /// # Errors
    /// Nothing was shown, or what was shown is not good.
    pub fn authenticate(
        &self,
        certificate: Option<&CertificateDer<'_>>,
        authorization: Option<&str>,
    ) -> Result<Caller, AuthenticationError> {
        if let Some(certificate) = certificate {
            return self.by_certificate(certificate);
        }
        let header = authorization.ok_or(AuthenticationError::Nothing)?;
        let (scheme, token) = header.split_once(' ').ok_or(AuthenticationError::Header)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthenticationError::Header);
        }
        self.by_token(token.trim())
    }

    fn by_certificate(&self, certificate: &CertificateDer<'_>) -> Result<Caller, AuthenticationError> {
        let refused = || AuthenticationError::Certificate(self.trust_domain.clone());
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| refused())?;
        let names = parsed.subject_alternative_name().ok().flatten().ok_or_else(refused)?;
        let identity = names
            .value
            .general_names
            .iter()
            .find_map(|name| match name {
                GeneralName::URI(uri) => uri.parse::<Identity>().ok(),
                _ => None,
            })
            .filter(|identity| identity.trust_domain() == self.trust_domain)
            .ok_or_else(refused)?;
        Ok(Caller { identity, pod: None })
    }

    fn by_token(&self, token: &str) -> Result<Caller, AuthenticationError> {
        let header = jsonwebtoken::decode_header(token).map_err(AuthenticationError::Token)?;
        let mut refusal = None;
        for key in self.keys.candidates(header.kid.as_deref()) {
            let Ok(key) = DecodingKey::from_jwk(&key) else { continue };
            match jsonwebtoken::decode::<Claims>(token, &key, &self.validation(header.alg)) {
                Ok(token) => return self.subject(token.claims),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.map_or_else(
            || AuthenticationError::NoKey { path: self.keys.path().to_owned(), kid: header.kid.clone() },
            AuthenticationError::Refused,
        ))
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
        }
        validation
    }

    fn subject(&self, claims: Claims) -> Result<Caller, AuthenticationError> {
        let account = claims.sub.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let identity = account.and_then(|(namespace, name)| {
            format!("spiffe://{}/ns/{namespace}/sa/{name}", self.trust_domain).parse().ok()
        });
        let identity = identity.ok_or(AuthenticationError::Subject(claims.sub))?;
        let pod = claims.kubernetes.and_then(|k| k.pod).map(|pod| PodReference { name: pod.name, uid: pod.uid });
        Ok(Caller { identity, pod })
    }
}

#[cfg(test)]
#[path = "authenticator/tests.rs"]
mod tests;
