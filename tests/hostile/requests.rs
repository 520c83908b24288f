// SPDX-License-Identifier: Apache-2.0
//! Requests from a peer with a good certificate for what it may not have, or that are hardly requests.

use anyhow::Result;

use crate::siege::Siege;

/// Name, what comes back, what the proxy logs (nothing: it served).
const ANSWERED: [(&str, &str, &str); 36] = [
    ("honest", "status 200", ""),
    ("another-pod", "status 400", "ip mismatch: "),
    ("outside", "status 400", "!= 192.0.2.1"),
    ("loopback", "status 400", "!= 127.0.0.1"),
    ("loopback6", "status 400", "!= ::1"),
    ("mapped-loopback", "status 400", "!= 127.0.0.1"),
    ("unspecified", "status 400", "!= 0.0.0.0"),
    ("multicast", "status 400", "!= 224.0.0.1"),
    ("broadcast", "status 400", "!= 255.255.255.255"),
    ("metadata-service", "status 400", "!= 169.254.169.254"),
    ("unknown-name", "status 503", "no service or workload for hostname nobody.nowhere"),
    ("name-of-the-loopback", "status 503", "no service or workload for hostname localhost"),
    ("port-15001", "status 503", "attempted recursive call to ourselves"),
    ("port-15006", "status 503", "attempted recursive call to ourselves"),
    ("port-15008", "status 503", "attempted recursive call to ourselves"),
    ("closed-port", "status 503", "connection failed: Connection refused"),
    ("no-port", "status 400", "the authority has no port from 1 to 65535"),
    ("port-0", "status 400", "the authority has no port from 1 to 65535"),
    ("port-65536", "status 400", "the authority has no port from 1 to 65535"),
    ("port-with-a-sign", "status 400", "the authority has no port from 1 to 65535"),
    ("empty-authority", "status 400", "the authority"),
    ("user-in-the-authority", "status 400", "neither an address nor a host name"),
    ("url-as-authority", "status 400", "the authority"),
    ("spaces-in-the-authority", "status 400", "neither an address nor a host name"),
    ("binary-authority", "status 400", "neither an address nor a host name"),
    ("long-authority", "status 400", "neither an address nor a host name"),
    ("get", "status 400", "the method is not CONNECT"),
    ("post", "status 400", "the method is not CONNECT"),
    ("long-method", "status 400", "the method is not CONNECT"),
    ("hundred-headers", "status 431", "the header list is over the limit"),
    ("odd-baggage", "status 200", ""),
    ("forged-baggage", "status 200", ""),
    ("odd-forwarded", "status 200", ""),
    ("odd-traceparent", "status 200", ""),
    ("traceparent-without-dashes", "status 200", ""),
    ("long-traceparent", "status 200", ""),
];

/// The same for those that are refused without an answer.
const MALFORMED: [(&str, &str, &str); 17] = [
    ("no-authority", "reset PROTOCOL_ERROR", "CONNECT without :authority"),
    ("nul-in-the-authority", "reset PROTOCOL_ERROR", "header value with forbidden characters"),
    ("line-feed-in-the-authority", "reset PROTOCOL_ERROR", "header value with forbidden characters"),
    ("two-authorities", "reset PROTOCOL_ERROR", "pseudo-header that is unknown, empty or repeated"),
    ("no-method", "reset PROTOCOL_ERROR", "request without :method"),
    ("connect-with-a-path", "reset PROTOCOL_ERROR", "CONNECT with :scheme or :path"),
    ("websocket", "reset PROTOCOL_ERROR", "pseudo-header that is unknown, empty or repeated"),
    ("method-behind-others", "reset PROTOCOL_ERROR", "pseudo-header behind ordinary ones"),
    ("upper-case-header", "reset PROTOCOL_ERROR", "header name with upper case"),
    ("header-without-a-name", "reset PROTOCOL_ERROR", "header name with upper case"),
    ("connection-header", "reset PROTOCOL_ERROR", "header about an HTTP/1 connection"),
    ("transfer-encoding", "reset PROTOCOL_ERROR", "header about an HTTP/1 connection"),
    ("line-feed-in-a-header", "reset PROTOCOL_ERROR", "header value with forbidden characters"),
    ("unknown-pseudo-header", "reset PROTOCOL_ERROR", "pseudo-header that is unknown, empty or repeated"),
    ("wide-headers", "status 200", ""),
    ("too-many-bytes", "goaway ENHANCE_YOUR_CALM", "header block over"),
    ("honest", "status 200", ""),
];

pub(crate) fn answered(siege: &mut Siege) -> Result<()> {
    ask(siege, &ANSWERED)
}

pub(crate) fn malformed(siege: &mut Siege) -> Result<()> {
    ask(siege, &MALFORMED)
}

fn ask(siege: &mut Siege, requests: &[(&str, &str, &str)]) -> Result<()> {
    let mark = siege.mark("n2")?;
    let how: Vec<&str> = std::iter::once("ask").chain(requests.iter().map(|(name, _, _)| *name)).collect();
    let words = siege.words("demo/server", &siege.tunnel("demo/server")?, &how)?;
    let report = siege.endure("plain/attacker", &words)?;
    report.all(&requests.iter().map(|(name, fate, _)| (*name, *fate)).collect::<Vec<_>>())?;
    let reasons: Vec<&str> = requests.iter().map(|(_, _, reason)| *reason).collect();
    siege.logged("n2", mark, &reasons)
}
