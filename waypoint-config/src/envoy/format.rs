// SPDX-License-Identifier: Apache-2.0
//! Which format strings of access logs Envoy takes: one that it does not take makes it refuse every listener. Called by whoever reads an operator's settings.
//!
//! Only what is listed here passes; Envoy knows more, for places where nothing of it means anything.

/// What is wrong with a format string, if anything is.
///
/// # Errors
/// Says which part, and what to write instead.
pub fn check(format: &str) -> Result<(), String> {
    let mut rest = format;
    while let Some((_, from)) = rest.split_once('%') {
        if let Some(behind) = from.strip_prefix('%') {
            rest = behind;
            continue;
        }
        rest = operator(from)?;
    }
    Ok(())
}

/// What stands behind the operator that begins here.
fn operator(text: &str) -> Result<&str, String> {
    let shown = || text.chars().take(40).collect::<String>();
    let end = text.find(|letter: char| !(letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'));
    let end =
        end.ok_or_else(|| format!("`%{}` has no end: close it with %, or write %% for the sign itself", shown()))?;
    let (name, rest) = text.split_at(end);
    let Some((_, takes)) = OPERATORS.iter().find(|(known, _)| *known == name) else {
        return Err(format!("`%{}`: there is no operator {name:?}; write %% for the sign itself", shown()));
    };
    let (argument, rest) = match rest.strip_prefix('(') {
        None => (None, rest),
        Some(inside) => {
            let (argument, rest) = inside.split_once(")").ok_or_else(|| format!("`%{}` lacks a `)`", shown()))?;
            (Some(argument), rest)
        }
    };
    let fits = match (takes, argument) {
        (Takes::Nothing | Takes::Time, None) => true,
        (Takes::Header, Some(argument)) => {
            let names: Vec<&str> = argument.split('?').collect();
            names.len() <= 2 && names.iter().all(|name| is_header(name))
        }
        (Takes::Place | Takes::WholePlace, Some(argument)) => {
            argument.split(':').all(|part| !part.is_empty() && is_plain(part))
        }
        (Takes::State, Some(argument)) => {
            let (key, how) = argument.rsplit_once(':').unwrap_or((argument, "TYPED"));
            !key.is_empty() && is_plain(key) && !key.contains(':') && matches!(how, "PLAIN" | "TYPED")
        }
        (Takes::Time, Some(argument)) => is_time(argument),
        (Takes::Nothing, Some(_)) | (Takes::Header | Takes::Place | Takes::WholePlace | Takes::State, None) => false,
    };
    if !fits {
        return Err(format!("`%{}`: {name} {}", shown(), takes.words()));
    }
    let rest = match rest.strip_prefix(':') {
        None => rest,
        Some(length) => {
            let digits = length.len() - length.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
            let is_number = (1..=6).contains(&digits) && matches!(takes, Takes::Header | Takes::Place | Takes::State);
            match is_number {
                true => &length[digits..],
                false => return Err(format!("`%{}`: no length can stand here", shown())),
            }
        }
    };
    rest.strip_prefix('%').ok_or_else(|| format!("`%{}` has no end: close it with %", shown()))
}

fn is_header(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./|".contains(&byte))
}

/// Of `strftime` what every system knows and what is no end of a line, and Envoy's fractions of seconds (`%f`, `%3f`).
fn is_time(text: &str) -> bool {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let fits = match letter {
            '%' => match letters.next() {
                Some('1'..='9') => letters.next() == Some('f'),
                Some(letter) => "YmdHMSsfFTzZbBaAjy".contains(letter),
                None => false,
            },
            letter => letter.is_ascii_alphanumeric() || " -:./,_+".contains(letter),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// What an operator takes in brackets.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    /// The name of a header, and one to look at when it is not there.
    Header,
    /// A namespace and keys.
    Place,
    /// The same; what stands there cannot be cut.
    WholePlace,
    /// The key of a filter state.
    State,
    /// A format of `strftime`, or nothing.
    Time,
}

impl Takes {
    const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "takes nothing in brackets",
            Self::Header => "takes the name of a header, or two with a question mark between: REQ(X-REQUEST-ID)",
            Self::Place | Self::WholePlace => {
                "takes a namespace and keys with colons between: DYNAMIC_METADATA(envoy.filters.http.rbac:shadow)"
            }
            Self::State => "takes a key, and PLAIN or TYPED behind a colon",
            Self::Time => "takes a format of strftime, or nothing",
        }
    }
}

/// Envoy 1.40, `configuration/observability/access_log/usage`.
const OPERATORS: &[(&str, Takes)] = &[
    ("BYTES_RECEIVED", Takes::Nothing),
    ("BYTES_SENT", Takes::Nothing),
    ("CONNECTION_ID", Takes::Nothing),
    ("CONNECTION_TERMINATION_DETAILS", Takes::Nothing),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Takes::Nothing),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Takes::Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS", Takes::Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Takes::Nothing),
    ("DOWNSTREAM_LOCAL_PORT", Takes::Nothing),
    ("DOWNSTREAM_REMOTE_ADDRESS", Takes::Nothing),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Takes::Nothing),
    ("DURATION", Takes::Nothing),
    ("DYNAMIC_METADATA", Takes::Place),
    ("FILTER_CHAIN_NAME", Takes::Nothing),
    ("FILTER_STATE", Takes::State),
    ("GRPC_STATUS", Takes::Nothing),
    ("GRPC_STATUS_NUMBER", Takes::Nothing),
    ("HOSTNAME", Takes::Nothing),
    ("PROTOCOL", Takes::Nothing),
    ("REQ", Takes::Header),
    ("REQUESTED_SERVER_NAME", Takes::Nothing),
    ("REQUEST_DURATION", Takes::Nothing),
    ("REQUEST_HEADERS_BYTES", Takes::Nothing),
    ("RESP", Takes::Header),
    ("RESPONSE_CODE", Takes::Nothing),
    ("RESPONSE_CODE_DETAILS", Takes::Nothing),
    ("RESPONSE_DURATION", Takes::Nothing),
    ("RESPONSE_FLAGS", Takes::Nothing),
    ("RESPONSE_FLAGS_LONG", Takes::Nothing),
    ("RESPONSE_HEADERS_BYTES", Takes::Nothing),
    ("RESPONSE_TX_DURATION", Takes::Nothing),
    ("ROUTE_NAME", Takes::Nothing),
    ("START_TIME", Takes::Time),
    ("STREAM_ID", Takes::Nothing),
    ("TRACE_ID", Takes::Nothing),
    ("TRAILER", Takes::Header),
    ("UPSTREAM_CLUSTER", Takes::Nothing),
    ("UPSTREAM_CLUSTER_RAW", Takes::Nothing),
    ("UPSTREAM_CONNECTION_ID", Takes::Nothing),
    ("UPSTREAM_HOST", Takes::Nothing),
    ("UPSTREAM_LOCAL_ADDRESS", Takes::Nothing),
    ("UPSTREAM_METADATA", Takes::WholePlace),
    ("UPSTREAM_REMOTE_ADDRESS", Takes::Nothing),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Takes::Nothing),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Takes::Nothing),
    ("VIRTUAL_CLUSTER_NAME", Takes::Nothing),
];

/// One of each operator, as text: for whoever lets Envoy judge them.
pub fn specimen() -> String {
    let one = |(name, takes): &(&str, Takes)| match takes {
        Takes::Nothing => format!("%{name}%"),
        Takes::Header => format!("%{name}(X-A?:PATH)% %{name}(X-B):10%"),
        Takes::Place => format!("%{name}(a.b:c)% %{name}(a:b:c):7%"),
        Takes::WholePlace => format!("%{name}(a.b:c)% %{name}(a:b:c)%"),
        Takes::State => format!("%{name}(a.b)% %{name}(a.b:PLAIN):7%"),
        Takes::Time => format!("%{name}% %{name}(%Y-%m-%dT%H:%M:%S.%3f%z %s %b %B %a %A %j %y %F %T %Z)%"),
    };
    OPERATORS.iter().map(one).collect::<Vec<_>>().join(" ") + " 100%%\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_that_is_listed_passes_its_own_check() {
        assert_eq!(check(&specimen()), Ok(()));
        assert_eq!(check("no operator at all\n"), Ok(()));
        assert_eq!(check("%REQ(:AUTHORITY)%%BYTES_SENT%"), Ok(()));
    }

    #[test]
    fn what_envoy_would_refuse_is_refused_with_the_place() {
        let bad = [
            "%",
            "%REQ%",
            "%REQ()%",
            "%REQ(a?b?c)%",
            "%REQ(a",
            "%REQ(a)",
            "%REQ(a):%",
            "%REQ(a):x%",
            "%BYTES_SENT():1%",
            "%BYTES_SENT:1%",
            "%bytes_sent%",
            "%NO_SUCH%",
            "100 %",
            "%START_TIME(%)%",
            "%START_TIME(%E4n)%",
            "%START_TIME(%5n)%",
            "%START_TIME(%n)%",
            "%REQ(a b)%",
            "%FILTER_STATE(a:FIELD)%",
            "%DYNAMIC_METADATA(a::b)%",
            "%ENVIRONMENT(SECRET)%",
            "%REQ(ä)%",
            "%REQ(a):1234567%",
        ];
        for format in bad {
            let error = check(format).expect_err(format);
            assert!(error.contains('%') && error.len() < 300, "{error}");
        }
    }
}
