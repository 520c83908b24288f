// SPDX-License-Identifier: Apache-2.0
//! Redirects. The port of the answer is left out where the scheme implies it, as far as Envoy can: it writes no port unless it is told to, but keeps the
//! one that the client asked for when the host stays.

use envoy_types::pb::envoy::config::route::v3::{
    RedirectAction,
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
};

use super::{
    path::{self, Edit},
    values::substitute,
};
use crate::view::rule::{PathMatch, Redirect};

/// An answer on `port`, to a request whose path was matched so.
pub(super) fn action(redirect: &Redirect, matched: Option<&PathMatch>, port: u16) -> RedirectAction {
    let path = redirect.path.as_ref().map_or(Edit::Keep, |wanted| path::edit(matched, wanted));
    let path = match path {
        Edit::Keep => None,
        Edit::Full(path) => Some(PathRewriteSpecifier::PathRedirect(path)),
        Edit::Prefix(prefix) => Some(PathRewriteSpecifier::PrefixRewrite(prefix)),
        Edit::Regex(pattern, substitution) => {
            Some(PathRewriteSpecifier::RegexRewrite(substitute(pattern, substitution)))
        }
    };
    RedirectAction {
        host_redirect: redirect.host.clone().unwrap_or_default(),
        port_redirect: port_of_answer(redirect, port).unwrap_or_default().into(),
        response_code: code(redirect.status).into(),
        strip_query: false,
        scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
    }
}

/// `None`: none is written, or that of the request stays.
fn port_of_answer(redirect: &Redirect, port: u16) -> Option<u16> {
    let implied = match redirect.scheme.as_deref() {
        Some("https") => 443,
        _ => 80,
    };
    let wanted = match (redirect.port, &redirect.scheme) {
        (Some(wanted), _) => wanted,
        (None, Some(_)) => implied,
        (None, None) if redirect.host.is_some() => port,
        (None, None) => return None,
    };
    // On port 80 the authority comes without a port, so nothing stays that would be wrong.
    let nothing_stays = redirect.host.is_some() || port == 80;
    (wanted != implied || !nothing_stays).then_some(wanted)
}

fn code(status: u16) -> RedirectResponseCode {
    match status {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(scheme: Option<&str>, host: Option<&str>, wanted: Option<u16>, port: u16) -> Option<u16> {
        let redirect = Redirect {
            scheme: scheme.map(str::to_owned),
            host: host.map(str::to_owned),
            port: wanted,
            path: None,
            status: 301,
        };
        port_of_answer(&redirect, port)
    }

    #[test]
    fn the_port_that_the_scheme_implies_is_left_out() {
        assert_eq!(answer(Some("https"), Some("a"), None, 8080), None);
        assert_eq!(answer(Some("https"), Some("a"), Some(443), 8080), None);
        assert_eq!(answer(Some("http"), None, Some(80), 80), None);
        assert_eq!(answer(None, Some("a"), None, 80), None);
    }

    #[test]
    fn another_port_is_told() {
        assert_eq!(answer(Some("https"), Some("a"), Some(8443), 80), Some(8443));
        assert_eq!(answer(None, None, Some(8080), 80), Some(8080));
        assert_eq!(answer(None, Some("a"), None, 8080), Some(8080));
    }

    #[test]
    fn the_port_of_the_request_goes_when_it_would_be_wrong() {
        assert_eq!(answer(Some("https"), None, None, 8080), Some(443));
        assert_eq!(answer(None, None, None, 8080), None);
    }
}
