// SPDX-License-Identifier: Apache-2.0
//! Requests for what nobody may have, or that are hardly requests.

use anyhow::{Context, Result, bail, ensure};

use super::tunnel::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Tunnel, connect, field, frame};

/// Sends one, and says what came back and whether the same connection still serves an honest request.
pub(crate) fn ask(tunnel: &mut Tunnel, name: &str, target: &str) -> Result<String> {
    let block = block(name, target)?;
    let stream = tunnel.number();
    // Frames of the size every peer takes.
    let mut pieces = block.chunks(16 << 10).peekable();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        tunnel.send(&frame(kind, flags, stream, piece))?;
        kind = CONTINUATION;
    }
    tunnel.until(|heard| {
        heard.goaway.is_some() || heard.statuses.contains_key(&stream) || heard.resets.contains_key(&stream)
    })?;
    let fate = tunnel.fate(stream);
    if tunnel.stands() {
        echo(tunnel, target).with_context(|| format!("an honest request after {fate:?}"))?;
    }
    Ok(fate)
}

/// An honest request and a line there and back.
pub(crate) fn echo(tunnel: &mut Tunnel, target: &str) -> Result<()> {
    let stream = tunnel.ask(&connect(target))?;
    ensure!(tunnel.fate(stream) == "status 200", "{}", tunnel.fate(stream));
    tunnel.send(&frame(DATA, 0, stream, b"echo\nhello\n"))?;
    tunnel.until(|heard| heard.bytes.get(&stream).is_some_and(|bytes| bytes.ends_with(b"hello\n")))?;
    ensure!(tunnel.stands(), "it ended: {}", tunnel.fate(stream));
    tunnel.send(&frame(DATA, END_STREAM, stream, &[]))?;
    Ok(())
}

fn block(name: &str, target: &str) -> Result<Vec<u8>> {
    let (host, _) = target.rsplit_once(':').context("a target without a port")?;
    let authority = |text: &str| connect(text);
    let with = |name: &[u8], value: &[u8]| [connect(target), field(name, value)].concat();
    let method = |method: &[u8]| {
        let common = [field(b":method", method), field(b":scheme", b"http"), field(b":path", b"/")].concat();
        [common, field(b":authority", target.as_bytes())].concat()
    };
    Ok(match name {
        "honest" => connect(target),
        // Where it is not.
        "another-pod" => authority("10.244.1.77:9000"),
        "outside" => authority("192.0.2.1:80"),
        "loopback" => authority("127.0.0.1:9000"),
        "loopback6" => authority("[::1]:9000"),
        "mapped-loopback" => authority("[::ffff:127.0.0.1]:9000"),
        "unspecified" => authority("0.0.0.0:9000"),
        "multicast" => authority("224.0.0.1:9000"),
        "broadcast" => authority("255.255.255.255:9000"),
        "metadata-service" => authority("169.254.169.254:80"),
        "unknown-name" => authority("nobody.nowhere.svc.cluster.local:80"),
        "name-of-the-loopback" => authority("localhost:9000"),
        "port-15001" | "port-15006" | "port-15008" => authority(&format!("{host}:{}", &name[5..])),
        "closed-port" => authority(&format!("{host}:9")),
        // Authorities that are none.
        "no-port" => authority(host),
        "port-0" => authority(&format!("{host}:0")),
        "port-65536" => authority(&format!("{host}:65536")),
        "port-with-a-sign" => authority(&format!("{host}:+9000")),
        "no-authority" => field(b":method", b"CONNECT"),
        "empty-authority" => authority(""),
        "user-in-the-authority" => authority(&format!("root@{target}")),
        "url-as-authority" => authority(&format!("http://{target}/")),
        "spaces-in-the-authority" => authority(&format!(" {target}")),
        "binary-authority" => [field(b":method", b"CONNECT"), field(b":authority", b"\xff\xfe\x80:80")].concat(),
        "nul-in-the-authority" => [field(b":method", b"CONNECT"), field(b":authority", b"a\0b:80")].concat(),
        "line-feed-in-the-authority" => authority("a\nlevel=error:80"),
        "long-authority" => authority(&format!("{}:80", "a".repeat(60_000))),
        "two-authorities" => [connect(target), field(b":authority", target.as_bytes())].concat(),
        // Methods.
        "get" => method(b"GET"),
        "post" => method(b"POST"),
        "no-method" => field(b":authority", target.as_bytes()),
        "long-method" => method(&[b'A'; 50_000]),
        "connect-with-a-path" => {
            [field(b":method", b"CONNECT"), field(b":path", b"/"), field(b":authority", target.as_bytes())].concat()
        }
        "websocket" => {
            let common = [method(b"CONNECT"), field(b":protocol", b"websocket")].concat();
            [field(b":method", b"CONNECT"), common].concat()
        }
        "method-behind-others" => [field(b"x", b"y"), connect(target)].concat(),
        // Headers.
        "upper-case-header" => with(b"Baggage", b"x=y"),
        "header-without-a-name" => with(b"", b"x"),
        "connection-header" => with(b"connection", b"keep-alive"),
        "transfer-encoding" => with(b"transfer-encoding", b"chunked"),
        "line-feed-in-a-header" => with(b"x-odd", b"a\r\nb"),
        "unknown-pseudo-header" => [field(b":odd", b"x"), connect(target)].concat(),
        "odd-baggage" => {
            with(b"baggage", &[b"k8s.namespace.name=\xff\x80,,,===,;;;%zz,".repeat(20), vec![b'='; 500]].concat())
        }
        "forged-baggage" => {
            with(b"baggage", b"k8s.namespace.name=kube-system,k8s.deployment.name=\"} 1\\n,service.name={}")
        }
        "odd-forwarded" => with(b"forwarded", b"for=;;;host=\"\x80;by=,,,for"),
        "odd-traceparent" => with(b"traceparent", &[b'-'; 55]),
        "traceparent-without-dashes" => with(b"traceparent", &[b'0'; 55]),
        "long-traceparent" => with(b"traceparent", &[b'0'; 20_000]),
        "hundred-headers" => [connect(target), field(b"x", b"y").repeat(200)].concat(),
        "wide-headers" => [connect(target), field(&[b'n'; 9_000], &[b'v'; 9_000]).repeat(3)].concat(),
        "too-many-bytes" => [connect(target), field(&[b'n'; 900], &[b'v'; 15_000]).repeat(6)].concat(),
        other => bail!("no such request: {other}"),
    })
}
