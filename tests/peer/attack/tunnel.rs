// SPDX-License-Identifier: Apache-2.0
//! A client of HBONE that sends whatever frames it is told to, and notes what comes back. No part of it is the mesh's own code.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Result, bail};
use rustls::ClientConfig;

use super::link::Link;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// What every client says first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = head(payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

/// A frame's header that claims any length.
pub(crate) fn head(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out
}

/// A header field, spelt out.
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        string(&mut out, text);
    }
    out
}

/// A string of a header block.
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    match u8::try_from(text.len()) {
        Ok(short @ 0..0x7f) => out.push(short),
        _ => {
            out.push(0x7f);
            let mut rest = text.len() - 0x7f;
            while rest >= 0x80 {
                out.push(rest.to_le_bytes()[0] | 0x80);
                rest >>= 7;
            }
            out.push(rest.to_le_bytes()[0]);
        }
    }
    out.extend_from_slice(text);
}

/// The header block of an honest request.
pub(crate) fn connect(authority: &str) -> Vec<u8> {
    [field(b":method", b"CONNECT"), field(b":authority", authority.as_bytes())].concat()
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Last stream and code.
    pub(crate) goaway: Option<(u32, u32)>,
    /// Codes by stream.
    pub(crate) resets: BTreeMap<u32, u32>,
    /// Statuses by stream.
    pub(crate) statuses: BTreeMap<u32, u16>,
    /// Bytes by stream.
    pub(crate) bytes: BTreeMap<u32, Vec<u8>>,
    /// Pongs, by the number in them.
    pub(crate) pongs: Vec<u64>,
    /// Acknowledgements of our settings.
    pub(crate) settled: usize,
    /// Settings of the other end.
    settings: usize,
}

/// See the module.
pub(crate) struct Tunnel {
    pub(crate) link: Link,
    pub(crate) heard: Heard,
    pings: u64,
    next: u32,
}

impl Tunnel {
    /// Opens a connection as an honest client does.
    pub(crate) fn open(to: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let mut tunnel = Self::raw(to, config)?;
        tunnel.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
        tunnel.until(|heard| heard.settings > 0)?;
        tunnel.send(&frame(SETTINGS, ACK, 0, &[]))?;
        Ok(tunnel)
    }

    /// One that has said nothing yet.
    pub(crate) fn raw(to: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let mut link = Link::dial(to, config)?;
        link.until(|link| !link.is_shaking())?;
        Ok(Self { link, heard: Heard::default(), pings: 0, next: 1 })
    }

    /// The number of the next stream.
    pub(crate) fn number(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Sends bytes, taking what comes meanwhile; whether the connection still stands.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        let stands = self.link.send(bytes)?;
        self.look()?;
        Ok(stands && self.heard.goaway.is_none())
    }

    /// Waits until something was heard, or the end.
    pub(crate) fn until(&mut self, done: impl Fn(&Heard) -> bool) -> Result<()> {
        let heard = &mut self.heard;
        let mut seen = Ok(());
        self.link.until(|link| {
            seen = take_frames(&mut link.arrived, heard);
            seen.is_err() || done(heard)
        })?;
        seen?;
        self.look()
    }

    fn look(&mut self) -> Result<()> {
        take_frames(&mut self.link.arrived, &mut self.heard)
    }

    /// A PING with a number of its own.
    pub(crate) fn ping(&mut self) -> Vec<u8> {
        self.pings += 1;
        frame(PING, 0, 0, &self.pings.to_be_bytes())
    }

    /// How many of those went out.
    pub(crate) fn pings(&self) -> u64 {
        self.pings
    }

    /// Everything sent so far has been looked at, or the connection has ended; whether it still stands.
    pub(crate) fn settle(&mut self) -> Result<bool> {
        let ping = self.ping();
        let number = self.pings;
        self.send(&ping)?;
        self.until(|heard| heard.goaway.is_some() || heard.pongs.contains(&number))?;
        Ok(self.stands())
    }

    /// Whether neither end has said goodbye.
    pub(crate) fn stands(&self) -> bool {
        self.link.ended.is_none() && self.heard.goaway.is_none()
    }

    /// Asks for a stream and waits for the answer.
    pub(crate) fn ask(&mut self, block: &[u8]) -> Result<u32> {
        let stream = self.number();
        self.send(&frame(HEADERS, END_HEADERS, stream, block))?;
        self.until(|heard| {
            heard.goaway.is_some() || heard.statuses.contains_key(&stream) || heard.resets.contains_key(&stream)
        })?;
        Ok(stream)
    }

    /// What became of a stream, or of the connection.
    pub(crate) fn fate(&self, stream: u32) -> String {
        if let Some((_, code)) = self.heard.goaway {
            return format!("goaway {}", name(code));
        }
        if let Some(why) = &self.link.ended {
            return format!("ended: {why}");
        }
        match (self.heard.statuses.get(&stream), self.heard.resets.get(&stream)) {
            // A refusal with a status is followed by a reset without a fault.
            (Some(status), None | Some(0)) => format!("status {status}"),
            (_, Some(code)) => format!("reset {}", name(*code)),
            (None, None) => "nothing".to_owned(),
        }
    }
}

/// Every whole frame: kind, flags, stream, payload.
pub(crate) fn take_raw_frames(bytes: &mut Vec<u8>) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let (mut at, mut frames) = (0, Vec::new());
    while let Some(head) = bytes[at..].first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(payload) = bytes.get(at + 9..at + 9 + length) else { break };
        frames.push((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload.to_vec()));
        at += 9 + length;
    }
    bytes.drain(..at);
    frames
}

fn take_frames(bytes: &mut Vec<u8>, heard: &mut Heard) -> Result<()> {
    take_raw_frames(bytes)
        .into_iter()
        .try_for_each(|(kind, flags, stream, payload)| take_frame(kind, flags, stream, &payload, heard))
}

fn take_frame(kind: u8, flags: u8, stream: u32, payload: &[u8], heard: &mut Heard) -> Result<()> {
    let number = |at: usize| payload.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
    match kind {
        DATA => heard.bytes.entry(stream).or_default().extend_from_slice(payload),
        HEADERS => {
            heard.statuses.insert(stream, status(payload)?);
        }
        RST_STREAM => {
            heard.resets.entry(stream).or_insert_with(|| number(0).unwrap_or(u32::MAX));
        }
        SETTINGS if flags & ACK != 0 => heard.settled += 1,
        SETTINGS => heard.settings += 1,
        PING if flags & ACK != 0 => {
            heard.pongs.push(payload.try_into().map(u64::from_be_bytes).unwrap_or_default());
        }
        GOAWAY => heard.goaway = heard.goaway.or_else(|| number(0).zip(number(4))),
        _ => {}
    }
    Ok(())
}

/// Answers begin with their status, in one of three spellings.
fn status(block: &[u8]) -> Result<u16> {
    Ok(match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        [0x08 | 0x18 | 0x48, 3, digits @ ..] if digits.len() >= 3 => std::str::from_utf8(&digits[..3])?.parse()?,
        other => bail!("an answer that begins with {:?}", other.get(..8)),
    })
}

/// The name of an error code.
pub(crate) fn name(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    usize::try_from(code).ok().and_then(|at| NAMES.get(at)).map_or_else(|| code.to_string(), |name| (*name).to_owned())
}
