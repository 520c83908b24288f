// SPDX-License-Identifier: Apache-2.0
//! How the services of the control plane are reached, from what was said about each.

use std::path::{Path, PathBuf};

use mesh_proto::contract;
use rustls::pki_types::ServerName;
use tonic::transport::Uri;

use super::args::Args;
use super::mistakes::Mistakes;
use super::resolve::World;
use crate::control_plane::{self, Roots, Token};

/// What the two services of the control plane have in common.
pub(super) struct Planes<'a> {
    pub(super) args: &'a Args,
    pub(super) world: &'a World<'a>,
    pub(super) cluster_id: &'a str,
}

/// What was said about one of them.
pub(super) struct Said<'a> {
    pub(super) names: [&'static str; 2],
    pub(super) address: Option<&'a str>,
    pub(super) roots: &'a Option<String>,
    pub(super) alternative: &'a Option<String>,
    pub(super) headers: &'a [(String, String)],
}

impl Planes<'_> {
    pub(super) fn options(&self, said: &Said<'_>, mistakes: &mut Mistakes) -> control_plane::Options {
        let default = match self.args.kubernetes_service_host {
            Some(_) => contract::default::CONTROL_PLANE,
            None => contract::default::CONTROL_PLANE_LOCAL,
        };
        let [address_name, alternative_name] = said.names;
        let roots = said.roots.as_deref().filter(|text| !text.is_empty());
        control_plane::Options {
            address: mistakes.read(address_name, said.address.unwrap_or(default), address),
            roots: match roots {
                None => Roots::File(PathBuf::from(contract::path::ROOT_CERT)),
                Some("SYSTEM") => Roots::System,
                Some(text) if (self.world.exists)(Path::new(text)) || !text.contains("-----BEGIN") => {
                    Roots::File(PathBuf::from(text))
                }
                Some(text) => Roots::Pem(text.to_owned()),
            },
            alternative_name: mistakes.read_some(alternative_name, said.alternative, |name| {
                ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} is no host name"))
            }),
            token: self.token(),
            cluster_id: self.cluster_id.to_owned(),
            headers: said.headers.to_vec(),
            tls12: self.args.tls12_enabled.as_deref() == Some("true"),
        }
    }

    fn token(&self) -> Token {
        let default = Path::new(contract::path::TOKEN);
        match self.args.auth_token.as_deref().filter(|text| !text.is_empty()) {
            Some(text) if (self.world.exists)(Path::new(text)) || text.starts_with('/') => {
                Token::File(PathBuf::from(text))
            }
            Some(text) => Token::Literal(text.to_owned()),
            None if (self.world.exists)(default) => Token::File(default.to_owned()),
            None => Token::None,
        }
    }
}

fn address(text: &str) -> Result<Uri, String> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = whole.parse().map_err(|error| format!("{text:?} is no address: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(uri),
        (Some("https"), None) => Err(format!("{text:?} names no host")),
        _ => Err(format!("{text:?} is not https; the control plane is never spoken to in plaintext")),
    }
}

pub(super) const XDS_NAMES: [&str; 2] = ["XDS_ADDRESS", "ALT_XDS_HOSTNAME"];
pub(super) const CA_NAMES: [&str; 2] = ["CA_ADDRESS", "ALT_CA_HOSTNAME"];
