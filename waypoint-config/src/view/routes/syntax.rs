// SPDX-License-Identifier: Apache-2.0
//! What may stand in a header, a path, a host name and a duration: what the API server's checks say, because a directory of YAML has no API server.
//! Called while routes are read; every `Err` is a text for the route's author.

use std::{str::FromStr, time::Duration};

use crate::api::is_dns_subdomain;

/// The longest header value or expression.
pub(super) const MAX_VALUE: usize = 4096;
/// The longest path.
const MAX_PATH: usize = 1024;
/// The longest name of a header or query parameter.
const MAX_NAME: usize = 256;

/// A text of an author as it stands in a message: short, and of one line.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// A token of HTTP: names of headers and methods.
pub(super) fn token(text: &str) -> Result<(), String> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > MAX_NAME || !text.bytes().all(is_legal) {
        return Err(format!("{} is no name of a header: letters, digits and - are, at most {MAX_NAME}", quoted(text)));
    }
    Ok(())
}

/// The name of a query parameter.
pub(super) fn query_name(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(format!("{} is no name of a query parameter of at most {MAX_NAME} bytes", quoted(text)));
    }
    Ok(())
}

/// A value of a header.
pub(super) fn value(text: &str) -> Result<(), String> {
    if text.len() > MAX_VALUE {
        return Err(format!("the value {} has {} bytes, more than {MAX_VALUE}", quoted(text), text.len()));
    }
    if text.chars().any(|letter| letter.is_control() && letter != '\t') {
        return Err(format!("the value {} has control characters", quoted(text)));
    }
    Ok(())
}

/// A path to compare with.
pub(super) fn path(text: &str) -> Result<(), String> {
    let why = if !text.starts_with('/') {
        "it does not start with /"
    } else if text.len() > MAX_PATH {
        "it is longer than 1024 bytes"
    } else if ["//", "/./", "/../", "%2f", "%2F"].iter().any(|part| text.contains(part))
        || text.ends_with("/..")
        || text.ends_with("/.")
    {
        "it has one of // /./ /../ %2F, which never arrive so"
    } else if !has_path_characters(text) {
        "it has characters that must be written as %XX"
    } else {
        return Ok(());
    };
    Err(format!("the path {} cannot be matched: {why}", quoted(text)))
}

fn has_path_characters(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let legal = match byte {
            b'%' => {
                [bytes.next(), bytes.next()].iter().all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit()))
            }
            _ => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !legal {
            return false;
        }
    }
    true
}

/// A path to put in the place of another; empty is `/` or nothing.
pub(super) fn new_path(text: &str) -> Result<(), String> {
    let starts = text.is_empty() || text.starts_with('/');
    let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'?';
    if !starts || text.len() > MAX_PATH || !text.bytes().all(legal) {
        return Err(format!(
            "{} is no new path: it starts with /, has at most {MAX_PATH} bytes, no space, ? or #",
            quoted(text)
        ));
    }
    Ok(())
}

/// A host name without wildcard.
pub(super) fn host(text: &str) -> Result<(), String> {
    if is_dns_subdomain(text) { Ok(()) } else { Err(format!("{} is no host name", quoted(text))) }
}

/// A duration as the Gateway API writes it (GEP-2257).
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no duration; write for example 1h30m, 15s or 100ms", quoted(text));
    if text.len() > 32 {
        return Err(wrong());
    }
    let read = gateway_api::Duration::from_str(text).map_err(|_| wrong())?;
    Ok(Duration::new(read.as_secs(), read.subsec_nanos()))
}

/// A port.
pub(super) fn port(number: i32) -> Result<u16, String> {
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(|| format!("{number} is no port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_cannot_arrive_are_refused() {
        for good in ["/", "/a", "/a/", "/a.b/~c", "/%41", "/a;b=c"] {
            assert_eq!(path(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "//", "/a//b", "/a/../b", "/..", "/a/.", "/%2f", "/a b", "/a?b", "/a#b", "/%4", "/ä"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(path(&format!("/{}", "a".repeat(2000))).is_err());
    }

    #[test]
    fn a_huge_value_is_refused_with_a_short_text() {
        let error = value(&"x".repeat(5_000_000)).unwrap_err();
        assert!(error.len() < 200, "{}", error.len());
        assert!(value("a\r\nb").is_err());
        assert_eq!(value("with space and ümlaut"), Ok(()));
    }

    #[test]
    fn durations_are_those_of_the_gateway_api() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "1", "1.5s", "-1s", "1d", "s", &"1s".repeat(40)] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_headers_are_tokens() {
        assert_eq!(token("X-Some"), Ok(()));
        for bad in ["", ":path", "a b", "a\n", "ä", &"a".repeat(300)] {
            assert!(token(bad).is_err(), "{bad}");
        }
    }
}
