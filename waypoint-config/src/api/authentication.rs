// SPDX-License-Identifier: Apache-2.0
//! `security.istio.io/v1 RequestAuthentication`, field by field. `object` reads it, `envoy` translates it.

use std::{fmt, str::FromStr as _, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    policy::TargetReference,
    selector::{WorkloadSelector, narrowing},
};

/// Which tokens requests may carry. A token that is there must be good; none is needed unless an AuthorizationPolicy asks for one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestAuthentication {
    /// `security.istio.io/v1` or `v1beta1`.
    pub api_version: String,
    /// `RequestAuthentication`.
    pub kind: String,
    /// Name, namespace.
    pub metadata: ObjectMeta,
    /// What it asks for.
    pub spec: RequestAuthenticationSpec,
    /// What controllers reported; never read.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub status: Value,
}

/// The wish of a [`RequestAuthentication`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthenticationSpec {
    /// The workloads it is for; means nothing to a waypoint.
    pub selector: Option<WorkloadSelector>,
    /// The waypoint, gateway or service it is for (older, single form).
    pub target_ref: Option<TargetReference>,
    /// The waypoints, gateways or services it is for.
    pub target_refs: Vec<TargetReference>,
    /// The issuers.
    pub jwt_rules: Vec<JwtRule>,
}

impl RequestAuthenticationSpec {
    /// The selector, if it narrows anything.
    pub fn narrowing_selector(&self) -> Option<&WorkloadSelector> {
        narrowing(self.selector.as_ref())
    }

    /// What it is attached to.
    pub fn targets(&self) -> impl Iterator<Item = &TargetReference> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}

/// One issuer and where its tokens are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtRule {
    /// The `iss` claim.
    pub issuer: String,
    /// The `aud` claims that are accepted; any when empty.
    pub audiences: Vec<String>,
    /// Where the issuer's keys are fetched.
    pub jwks_uri: String,
    /// The issuer's keys themselves.
    pub jwks: String,
    /// Headers with a token.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters with a token.
    pub from_params: Vec<String>,
    /// Cookies with a token.
    pub from_cookies: Vec<String>,
    /// Header that gets the payload, base64url.
    pub output_payload_to_header: String,
    /// Whether the token goes on to the workload.
    pub forward_original_token: bool,
    /// Headers that get single claims.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// How long a fetch of keys may take, as a duration like `5s`.
    pub timeout: String,
    /// Claims that are lists of words separated by spaces, beside `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
}

/// Where the keys of an issuer come from, when they are not given themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySource {
    /// From this URL.
    Url(String),
    /// From the URL that this issuer's own configuration names (OpenID Connect Discovery 1.0 §4).
    Issuer(String),
}

impl JwtRule {
    /// The keys themselves, when they are given.
    pub fn keys(&self) -> Option<&str> {
        (!self.jwks.is_empty()).then_some(self.jwks.as_str())
    }

    /// How long a fetch of the keys may take: what is written, within bounds, else five seconds as in Istio.
    pub fn patience(&self) -> Duration {
        let usual = Duration::from_secs(5);
        let written = gateway_api::Duration::from_str(&self.timeout).ok();
        let written = written.map(|written| Duration::new(written.as_secs(), written.subsec_nanos()));
        written.map_or(usual, |written| written.clamp(Duration::from_millis(100), Duration::from_secs(10)))
    }

    /// Where the keys are to be fetched; `None` when they are given, or when nothing says where they are.
    pub fn key_source(&self) -> Option<KeySource> {
        let is_url = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        match (self.keys(), self.jwks_uri.as_str(), self.issuer.as_str()) {
            (Some(_), _, _) => None,
            (None, "", issuer) => is_url(issuer).then(|| KeySource::Issuer(issuer.to_owned())),
            (None, url, _) => Some(KeySource::Url(url.to_owned())),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Issuer(issuer) => write!(f, "the configuration of issuer {issuer}"),
        }
    }
}

/// A header with a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JwtHeader {
    /// Name.
    pub name: String,
    /// What stands before the token, with its blank.
    pub prefix: String,
}

/// A header that gets a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimToHeader {
    /// The header.
    pub header: String,
    /// The claim; parts of nested claims are separated by dots.
    pub claim: String,
}
