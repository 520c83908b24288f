// SPDX-License-Identifier: Apache-2.0
//! Frames from a peer with a good certificate that should not be, or not that many of them.

use anyhow::{Result, ensure};

use crate::siege::Siege;

/// Name, what comes back, what the proxy logs (nothing: a stream fault that the access log need not know).
const FAULTS: [(&str, &str, &str); 37] = [
    ("frame-over-the-limit", "goaway FRAME_SIZE_ERROR", "the size is not allowed for it"),
    ("short-ping", "goaway FRAME_SIZE_ERROR", "the size is not allowed for it"),
    ("long-reset", "goaway FRAME_SIZE_ERROR", "the size is not allowed for it"),
    ("short-window-update", "goaway FRAME_SIZE_ERROR", "the size is not allowed for it"),
    ("odd-settings", "goaway FRAME_SIZE_ERROR", "the size is not allowed for it"),
    ("settings-ack-with-content", "goaway FRAME_SIZE_ERROR", "the size is not allowed for it"),
    ("short-priority", "goaway FRAME_SIZE_ERROR", "the size is not allowed for it"),
    ("padding-longer-than-the-frame", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("data-on-the-connection", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("headers-on-the-connection", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("settings-on-a-stream", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("ping-on-a-stream", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("goaway-on-a-stream", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("push-promise", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("continuation-of-nothing", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("ping-amid-headers", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("even-stream", "goaway PROTOCOL_ERROR", "HEADERS on a stream the peer cannot open"),
    ("stream-out-of-order", "goaway PROTOCOL_ERROR", "a stream number lower than one used before"),
    ("stream-again", "goaway STREAM_CLOSED", "went on with stream 1 after it had ended"),
    ("data-on-an-idle-stream", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("reset-of-an-idle-stream", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("window-update-of-an-idle-stream", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("data-behind-the-end", "reset STREAM_CLOSED", "data behind END_STREAM"),
    ("second-header-list", "reset PROTOCOL_ERROR", "a second header list"),
    ("window-update-of-nothing", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("window-update-of-nothing-on-a-stream", "reset PROTOCOL_ERROR", "h2 failed: the peer broke the protocol"),
    ("window-of-the-connection-too-large", "goaway FLOW_CONTROL_ERROR", "flow control violated by the peer"),
    ("window-of-a-stream-too-large", "reset FLOW_CONTROL_ERROR", "h2 failed: the peer broke the protocol"),
    ("first-window-too-large", "goaway FLOW_CONTROL_ERROR", "flow control violated by the peer"),
    ("first-window-raised-too-far", "goaway FLOW_CONTROL_ERROR", "flow control violated by the peer"),
    ("frame-size-too-small", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("frame-size-too-large", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("push-neither-on-nor-off", "goaway PROTOCOL_ERROR", "protocol error by the peer"),
    ("headers-without-sense", "goaway COMPRESSION_ERROR", "header block cannot be decoded"),
    ("headers-cut-off", "goaway COMPRESSION_ERROR", "header block cannot be decoded"),
    ("index-of-nothing", "goaway COMPRESSION_ERROR", "header block cannot be decoded"),
    ("huffman-of-nothing", "goaway COMPRESSION_ERROR", "header block cannot be decoded"),
];

const PREFACES: [(&str, &str, &str); 4] = [
    ("no-preface", "goaway PROTOCOL_ERROR", "the peer does not speak HTTP/2 here"),
    ("preface-with-a-typo", "goaway PROTOCOL_ERROR", "the peer does not speak HTTP/2 here"),
    ("ping-before-settings", "goaway PROTOCOL_ERROR", "the first frame is not SETTINGS"),
    ("headers-before-settings", "goaway PROTOCOL_ERROR", "the first frame is not SETTINGS"),
];

/// Name, how many there may be at once, how many more per second, what the proxy logs.
const FLOODS: [(&str, u64, u64, &str); 15] = [
    ("resets", 512, 256, "streams reset before their answer"),
    ("pings", 512, 128, "too many PING frames"),
    ("pongs", 1024, 128, "frames without content"),
    ("settings", 64, 8, "too many SETTINGS"),
    ("settings-acks", 64, 8, "too many SETTINGS"),
    ("window-updates", 8192, 1024, "WINDOW_UPDATE frames"),
    ("window-updates-of-a-stream", 8192, 1024, "WINDOW_UPDATE frames"),
    ("empty-data", 1024, 128, "frames without content"),
    ("priorities", 1024, 128, "frames without content"),
    ("unknown-frames", 1024, 128, "frames without content"),
    ("faults", 128, 16, "too many stream faults"),
    ("continuations", 16, 0, "header block over"),
    ("large-continuations", 16, 0, "header block over"),
    ("empty-continuations", 16, 0, "header block over"),
    ("header-bombs", 0, 0, ""),
];

pub(crate) fn faults(siege: &mut Siege) -> Result<()> {
    provoke(siege, "frames", &FAULTS)
}

pub(crate) fn prefaces(siege: &mut Siege) -> Result<()> {
    provoke(siege, "preface", &PREFACES)
}

fn provoke(siege: &mut Siege, how: &str, attacks: &[(&str, &str, &str)]) -> Result<()> {
    let mark = siege.mark("n2")?;
    let how: Vec<&str> = std::iter::once(how).chain(attacks.iter().map(|(name, _, _)| *name)).collect();
    let words = siege.words("demo/server", &siege.tunnel("demo/server")?, &how)?;
    let report = siege.endure("plain/attacker", &words)?;
    report.all(&attacks.iter().map(|(name, fate, _)| (*name, *fate)).collect::<Vec<_>>())?;
    let reasons: Vec<&str> = attacks.iter().map(|(_, _, reason)| *reason).collect();
    siege.logged("n2", mark, &reasons)
}

/// The work done for a flood is counted in frames, not in time: as many as are allowed at once, and little more, are looked at before the connection ends.
pub(crate) fn floods(siege: &mut Siege) -> Result<()> {
    for (name, at_once, per_second, reason) in FLOODS {
        let mark = siege.mark("n2")?;
        let words = siege.words("demo/server", &siege.tunnel("demo/server")?, &["flood", name])?;
        let report = siege.endure("plain/attacker", &words)?;
        report.all(&[(name, "goaway ENHANCE_YOUR_CALM")])?;
        siege.logged("n2", mark, &[reason])?;
        for (frames, seconds) in report.taken {
            // They are counted in steps of at most 64; some streams earn a little besides.
            let most = at_once + per_second * seconds + 128;
            ensure!(
                frames + 64 >= at_once && frames <= most,
                "{name}: {frames} frames were looked at, {at_once} to {most} are allowed within {seconds} s"
            );
        }
    }
    Ok(())
}
