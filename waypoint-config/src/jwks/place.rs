// SPDX-License-Identifier: Apache-2.0
//! A URL keys are fetched from, in parts. Pure. Called by `fetch`.

use std::{fmt, net::IpAddr};

use hyper::Uri;
use thiserror::Error;

/// A place of HTTP or HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    is_tls: bool,
    host: String,
    port: u16,
    /// With the query.
    path: String,
}

/// Why a text is no such place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    /// No URL.
    #[error("{0:?} is no URL like https://idp.example.com/keys")]
    Syntax(String),
    /// Another scheme.
    #[error("{0:?} begins neither with https:// nor with http://")]
    Scheme(String),
    /// A name and a password.
    #[error("{0:?} has a user in it; credentials are not sent")]
    Credentials(String),
    /// A step from TLS to none.
    #[error("{0:?} would go on without TLS")]
    Downgrade(String),
}

impl Place {
    /// From a whole URL.
    ///
    /// # Errors
    /// When it is none, or none that may be asked.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let shown = || text.chars().take(200).collect::<String>();
        let uri: Uri = text.trim().parse().map_err(|_| PlaceError::Syntax(shown()))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(PlaceError::Scheme(shown())),
        };
        let authority = uri.authority().ok_or_else(|| PlaceError::Syntax(shown()))?;
        if authority.as_str().contains('@') {
            return Err(PlaceError::Credentials(shown()));
        }
        // What looks like a port and is none.
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str() != authority.host() => return Err(PlaceError::Syntax(shown())),
            None => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
        };
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() || port == 0 {
            return Err(PlaceError::Syntax(shown()));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_tls, host, port, path })
    }

    /// Where an answer sends to, as seen from here.
    ///
    /// # Errors
    /// As [`Self::parse`], and when it would leave TLS.
    pub fn follow(&self, location: &str) -> Result<Self, PlaceError> {
        let scheme = if self.is_tls { "https" } else { "http" };
        let next = match location.trim() {
            text if text.starts_with("//") => Self::parse(&format!("{scheme}:{text}"))?,
            text if text.starts_with('/') => Self::parse(&format!("{scheme}://{}{text}", self.authority()))?,
            text if text.contains("://") => Self::parse(text)?,
            text => {
                let folder =
                    self.path.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(at, _)| at);
                Self::parse(&format!("{scheme}://{}{folder}/{text}", self.authority()))?
            }
        };
        match self.is_tls && !next.is_tls {
            true => Err(PlaceError::Downgrade(next.to_string())),
            false => Ok(next),
        }
    }

    /// Where an issuer says what it has (OpenID Connect Discovery 1.0 §4).
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of_issuer(issuer: &str) -> Result<Self, PlaceError> {
        Self::parse(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')))
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The address, when the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// For the `host` header.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_url_of_http_without_credentials() {
        let place = Place::parse("https://IDP.example.com/keys?a=b").unwrap();
        assert_eq!((place.host(), place.port(), place.path()), ("idp.example.com", 443, "/keys?a=b"));
        let place = Place::parse("http://[::1]:8080").unwrap();
        assert_eq!((place.host(), place.address(), place.path()), ("::1", "::1".parse().ok(), "/"));
        for bad in [
            "",
            "idp/keys",
            "ftp://a/b",
            "file:///etc/passwd",
            "http://",
            "http:///a",
            "http://a:0/",
            "http://a:99999/",
            "http://a b/",
            "http://u:p@a/",
            "https://a@127.0.0.1/",
        ] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_sends_elsewhere_but_never_out_of_tls() {
        let from = Place::parse("https://a:8443/x/y?z").unwrap();
        let to = |location: &str| from.follow(location).map(|place| place.to_string());
        assert_eq!(to("/k").as_deref(), Ok("https://a:8443/k"));
        assert_eq!(to("k").as_deref(), Ok("https://a:8443/x/k"));
        assert_eq!(to("//b/k").as_deref(), Ok("https://b/k"));
        assert_eq!(to("https://b/k").as_deref(), Ok("https://b/k"));
        assert!(matches!(to("http://a/k"), Err(PlaceError::Downgrade(_))));
        assert!(to("file:///etc/passwd").is_err());
        assert!(Place::parse("http://a/").unwrap().follow("https://a/").is_ok());
    }

    #[test]
    fn an_issuer_says_what_it_has_below_its_own_path() {
        let place = Place::of_issuer("https://idp.example.com/realms/shop/").unwrap();
        assert_eq!(place.to_string(), "https://idp.example.com/realms/shop/.well-known/openid-configuration");
    }
}
