// SPDX-License-Identifier: Apache-2.0
//! Reads frames as they arrive, whatever the cuts between reads. DATA is handed on piece by piece and never gathered, so the
//! size of the peer's frames does not matter; a header block is gathered within a cap; everything else has a few bytes.
//!
//! What is checked here is what one frame says about itself: length, stream zero or not, padding, and that nothing comes
//! between HEADERS and its CONTINUATIONs. The rest is the connection's.

use std::borrow::Cow;

use super::{HEADER, PREFACE, flag, kind};
use crate::error::{ConnectionError, ErrorCode};

/// Pieces of a header block we take; a legitimate 64 KiB block of smallest-maximum frames has five.
const MAX_BLOCK_FRAMES: u8 = 16;
/// Entries of one SETTINGS frame we look at. RFC 9113 defines six.
const MAX_SETTINGS: u32 = 64;

/// What the bytes say, in the order they say it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'i> {
    /// One entry of a SETTINGS frame.
    Setting {
        id: u16,
        value: u32,
    },
    /// All entries of a SETTINGS frame have been handed out.
    SettingsEnd,
    SettingsAck,
    Ping {
        ack: bool,
        payload: [u8; 8],
    },
    GoAway {
        last: u32,
        code: ErrorCode,
    },
    Reset {
        stream: u32,
        code: ErrorCode,
    },
    WindowUpdate {
        stream: u32,
        increment: u32,
    },
    /// The first bytes of a header block have come; the block follows when it is whole.
    HeadersStart,
    /// A whole header block.
    Headers {
        stream: u32,
        end: bool,
        block: Cow<'i, [u8]>,
    },
    /// A DATA frame begins. `length` is all of its payload, padding included: what flow control counts.
    DataStart {
        stream: u32,
        length: u32,
    },
    /// Payload of the DATA frame begun last. Never empty.
    Data(&'i [u8]),
    /// So many bytes of padding (and of its length field) of the DATA frame begun last.
    Padding(u32),
    /// The DATA frame begun last is complete.
    DataEnd {
        end: bool,
    },
    /// A frame without meaning for us: PRIORITY or an unknown type.
    Ignored,
}

/// The reading side of one connection.
#[derive(Debug)]
pub(crate) struct Reader {
    state: State,
    /// Bytes of a preface-sized or smaller thing that is not complete yet.
    scratch: [u8; HEADER],
    have: u8,
    block_frames: u8,
    max_frame_size: u32,
    max_block: u32,
    block: Vec<u8>,
    /// The stream and END_STREAM flag of a header block that still needs CONTINUATION.
    unfinished: Option<(u32, bool)>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes of the client's preface have been seen.
    Preface { seen: u8 },
    /// Between frames.
    Header,
    /// A payload of fixed size is being gathered.
    Small { kind: u8, flags: u8, stream: u32, length: u8 },
    /// In the fixed part of a GOAWAY; so many bytes of text follow it.
    GoAway { text: u32 },
    /// Inside a SETTINGS frame.
    Settings { left: u32 },
    /// Before the padding length of a DATA frame.
    PadLength { left: u32, end: bool },
    /// Inside a DATA frame.
    Data { left: u32, padding: u8, end: bool },
    /// Before the fields that stand before a HEADERS frame's block.
    BlockPrefix { left: u32, flags: u8, length: u8 },
    /// Inside a fragment of a header block.
    Block { left: u32, padding: u8, last: bool },
    /// Bytes nobody wants.
    Skip { left: u32 },
}

/// A frame header.
#[derive(Debug, Clone, Copy)]
struct Head {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn new(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = bytes;
        // The reserved bit before the identifier is ignored (RFC 9113 §4.1).
        let stream = u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff;
        Self { length: u32::from_be_bytes([0, a, b, c]), kind, flags, stream }
    }

    fn wrong_size(self) -> ConnectionError {
        ConnectionError::FrameSize { kind: self.kind, length: self.length }
    }
}

impl Reader {
    /// Whether the DATA frame of which a piece was handed out last, or an empty one right behind it in `input`, ends `stream`.
    pub(crate) fn end_follows(&self, stream: u32, input: &[u8]) -> bool {
        match self.state {
            State::Data { left: 0, padding, end: true } => input.len() >= usize::from(padding),
            State::Data { left: 0, padding: 0, end: false } => input.first_chunk().is_some_and(|&next| {
                let head = Head::new(next);
                head.kind == kind::DATA
                    && head.length == 0
                    && head.stream == stream
                    && head.flags & flag::END_STREAM != 0
            }),
            _ => false,
        }
    }

    /// Whether a DATA frame of `stream` with something in it comes next in `input`.
    pub(crate) fn data_follows(&self, stream: u32, input: &[u8]) -> bool {
        matches!(self.state, State::Header)
            && self.have == 0
            && input.first_chunk().is_some_and(|&next| {
                let head = Head::new(next);
                head.kind == kind::DATA && head.length > 0 && head.stream == stream
            })
    }

    /// A reader that expects the client's preface first (`server`), or frames at once.
    pub(crate) fn new(server: bool, max_frame_size: u32, max_block: u32) -> Self {
        Self {
            state: if server { State::Preface { seen: 0 } } else { State::Header },
            scratch: [0; HEADER],
            have: 0,
            block_frames: 0,
            max_frame_size,
            max_block,
            block: Vec::new(),
            unfinished: None,
        }
    }

    /// The next piece, or `None` when all input is used up.
    pub(crate) fn next<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'i>>, ConnectionError> {
        loop {
            match self.state {
                State::Preface { seen } => {
                    if !self.preface(input, seen)? {
                        return Ok(None);
                    }
                }
                State::Header => {
                    let Some(bytes) = self.gather::<HEADER>(input) else { return Ok(None) };
                    if let Some(piece) = self.begin(Head::new(bytes))? {
                        return Ok(Some(piece));
                    }
                }
                State::Small { kind, flags, stream, length } => {
                    if !self.fill(input, length) {
                        return Ok(None);
                    }
                    return Ok(Some(self.small(kind, flags, stream)));
                }
                State::GoAway { text } => {
                    let Some([a, b, c, d, e, f, g, h]) = self.gather::<8>(input) else { return Ok(None) };
                    self.state = State::Skip { left: text };
                    let last = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
                    return Ok(Some(Piece::GoAway { last, code: ErrorCode(u32::from_be_bytes([e, f, g, h])) }));
                }
                State::Settings { left: 0 } => {
                    self.state = State::Header;
                    return Ok(Some(Piece::SettingsEnd));
                }
                State::Settings { left } => {
                    let Some([a, b, c, d, e, f]) = self.gather::<6>(input) else { return Ok(None) };
                    self.state = State::Settings { left: left - 6 };
                    return Ok(Some(Piece::Setting {
                        id: u16::from_be_bytes([a, b]),
                        value: u32::from_be_bytes([c, d, e, f]),
                    }));
                }
                State::PadLength { left, end } => {
                    let Some([padding]) = self.gather::<1>(input) else { return Ok(None) };
                    self.state = State::Data { left: past_padding(left - 1, padding)?, padding, end };
                    return Ok(Some(Piece::Padding(1)));
                }
                State::Data { left, padding, end } => {
                    return Ok(self.data(input, left, padding, end));
                }
                State::BlockPrefix { left, flags, length } => {
                    if !self.fill(input, length) {
                        return Ok(None);
                    }
                    self.block_prefix(left, flags, length)?;
                    return Ok(Some(Piece::HeadersStart));
                }
                State::Block { left, padding, last } => {
                    if let Some(piece) = self.fragment(input, left, padding, last)? {
                        return Ok(Some(piece));
                    }
                    if matches!(self.state, State::Block { .. }) {
                        return Ok(None);
                    }
                }
                State::Skip { left: 0 } => self.state = State::Header,
                State::Skip { left } => {
                    let taken = take(input, left).len() as u32;
                    if taken == 0 {
                        return Ok(None);
                    }
                    self.state = State::Skip { left: left - taken };
                }
            }
        }
    }

    fn preface(&mut self, input: &mut &[u8], seen: u8) -> Result<bool, ConnectionError> {
        let expected = &PREFACE[usize::from(seen)..];
        let got = take(input, expected.len() as u32);
        if !expected.starts_with(got) {
            return Err(ConnectionError::NotHttp2);
        }
        let whole = got.len() == expected.len();
        self.state = if whole { State::Header } else { State::Preface { seen: seen + got.len() as u8 } };
        Ok(whole)
    }

    /// Decides by a frame's header how to read on.
    fn begin<'i>(&mut self, head: Head) -> Result<Option<Piece<'i>>, ConnectionError> {
        if head.length > self.max_frame_size {
            return Err(head.wrong_size());
        }
        if self.unfinished.is_some() && head.kind != kind::CONTINUATION {
            return Err(ConnectionError::Protocol("another frame inside a header block"));
        }
        self.check_stream(head)?;
        let exactly = |length: u8| if head.length == u32::from(length) { Ok(length) } else { Err(head.wrong_size()) };
        let small = |length: u8| State::Small { kind: head.kind, flags: head.flags, stream: head.stream, length };
        match head.kind {
            kind::DATA => return self.begin_data(head).map(Some),
            kind::HEADERS => return self.begin_headers(head),
            kind::CONTINUATION => self.begin_continuation(head)?,
            kind::PRIORITY => {
                exactly(5)?;
                self.state = State::Skip { left: head.length };
                return Ok(Some(Piece::Ignored));
            }
            kind::RST_STREAM | kind::WINDOW_UPDATE => self.state = small(exactly(4)?),
            kind::PING => self.state = small(exactly(8)?),
            kind::SETTINGS if head.flags & flag::ACK != 0 => {
                exactly(0)?;
                return Ok(Some(Piece::SettingsAck));
            }
            kind::SETTINGS => {
                if !head.length.is_multiple_of(6) {
                    return Err(head.wrong_size());
                }
                if head.length > MAX_SETTINGS * 6 {
                    return Err(ConnectionError::Flood(crate::flood::Kind::Settings));
                }
                self.state = State::Settings { left: head.length };
            }
            kind::GOAWAY => {
                if head.length < 8 {
                    return Err(head.wrong_size());
                }
                self.state = State::GoAway { text: head.length - 8 };
            }
            kind::PUSH_PROMISE => return Err(ConnectionError::Protocol("PUSH_PROMISE, which nobody may send here")),
            _ => {
                self.state = State::Skip { left: head.length };
                return Ok(Some(Piece::Ignored));
            }
        }
        Ok(None)
    }

    /// Some frames belong to a stream, some to the connection.
    fn check_stream(&self, head: Head) -> Result<(), ConnectionError> {
        let on_connection = match head.kind {
            kind::SETTINGS | kind::PING | kind::GOAWAY => true,
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM | kind::CONTINUATION => false,
            _ => return Ok(()),
        };
        match (on_connection, head.stream == 0) {
            (true, false) => Err(ConnectionError::Protocol("SETTINGS, PING or GOAWAY on a stream")),
            (false, true) => Err(ConnectionError::Protocol("a stream's frame on stream 0")),
            _ => Ok(()),
        }
    }

    fn begin_data<'i>(&mut self, head: Head) -> Result<Piece<'i>, ConnectionError> {
        let end = head.flags & flag::END_STREAM != 0;
        self.state = if head.flags & flag::PADDED == 0 {
            State::Data { left: head.length, padding: 0, end }
        } else if head.length == 0 {
            return Err(head.wrong_size());
        } else {
            State::PadLength { left: head.length, end }
        };
        Ok(Piece::DataStart { stream: head.stream, length: head.length })
    }

    fn begin_headers<'i>(&mut self, head: Head) -> Result<Option<Piece<'i>>, ConnectionError> {
        self.unfinished = Some((head.stream, head.flags & flag::END_STREAM != 0));
        self.block_frames = 1;
        let mut prefix = 0;
        if head.flags & flag::PADDED != 0 {
            prefix += 1;
        }
        if head.flags & flag::PRIORITY != 0 {
            prefix += 5;
        }
        if head.length < u32::from(prefix) {
            return Err(head.wrong_size());
        }
        if prefix > 0 {
            self.state = State::BlockPrefix { left: head.length, flags: head.flags, length: prefix };
            return Ok(None);
        }
        self.state = State::Block { left: head.length, padding: 0, last: head.flags & flag::END_HEADERS != 0 };
        Ok(Some(Piece::HeadersStart))
    }

    fn block_prefix(&mut self, left: u32, flags: u8, length: u8) -> Result<(), ConnectionError> {
        // The five bytes of priority, if there, are ignored (RFC 9113 §5.3.2).
        let padding = if flags & flag::PADDED != 0 { self.scratch[0] } else { 0 };
        let left = past_padding(left - u32::from(length), padding)?;
        self.state = State::Block { left, padding, last: flags & flag::END_HEADERS != 0 };
        Ok(())
    }

    fn begin_continuation(&mut self, head: Head) -> Result<(), ConnectionError> {
        if self.unfinished.is_none_or(|(stream, _)| stream != head.stream) {
            return Err(ConnectionError::Protocol("CONTINUATION without a header block of its stream to continue"));
        }
        self.block_frames += 1;
        if self.block_frames > MAX_BLOCK_FRAMES {
            return Err(self.block_too_large());
        }
        self.state = State::Block { left: head.length, padding: 0, last: head.flags & flag::END_HEADERS != 0 };
        Ok(())
    }

    /// Reads on in a fragment of a header block; a block that lies whole in the input is not copied.
    fn fragment<'i>(
        &mut self,
        input: &mut &'i [u8],
        left: u32,
        padding: u8,
        last: bool,
    ) -> Result<Option<Piece<'i>>, ConnectionError> {
        if self.block.len() as u64 + u64::from(left) > u64::from(self.max_block) {
            return Err(self.block_too_large());
        }
        let bytes = take(input, left);
        let left = left - bytes.len() as u32;
        if left > 0 || !last {
            self.block.extend_from_slice(bytes);
        }
        if left > 0 {
            self.state = State::Block { left, padding, last };
            return Ok(None);
        }
        self.state = match padding {
            0 => State::Header,
            padding => State::Skip { left: u32::from(padding) },
        };
        if !last {
            return Ok(None);
        }
        let Some((stream, end)) = self.unfinished.take() else {
            // A Block state is only entered with a block begun; say so rather than panic.
            return Err(ConnectionError::Protocol("a header block that never began"));
        };
        let block = if self.block.is_empty() {
            Cow::Borrowed(bytes)
        } else {
            self.block.extend_from_slice(bytes);
            Cow::Owned(std::mem::take(&mut self.block))
        };
        Ok(Some(Piece::Headers { stream, end, block }))
    }

    fn block_too_large(&self) -> ConnectionError {
        ConnectionError::HeaderBlock { limit: self.max_block as usize }
    }

    fn data<'i>(&mut self, input: &mut &'i [u8], left: u32, padding: u8, end: bool) -> Option<Piece<'i>> {
        if left > 0 {
            let bytes = take(input, left);
            self.state = State::Data { left: left - bytes.len() as u32, padding, end };
            return (!bytes.is_empty()).then_some(Piece::Data(bytes));
        }
        if padding > 0 {
            // At most 255 bytes, so the cast holds.
            let passed = take(input, u32::from(padding)).len() as u8;
            self.state = State::Data { left, padding: padding - passed, end };
            return (passed > 0).then_some(Piece::Padding(u32::from(passed)));
        }
        self.state = State::Header;
        Some(Piece::DataEnd { end })
    }

    fn small<'i>(&mut self, kind: u8, flags: u8, stream: u32) -> Piece<'i> {
        let [a, b, c, d, e, f, g, h, _] = self.scratch;
        let number = u32::from_be_bytes([a, b, c, d]);
        self.state = State::Header;
        match kind {
            kind::PING => Piece::Ping { ack: flags & flag::ACK != 0, payload: [a, b, c, d, e, f, g, h] },
            kind::RST_STREAM => Piece::Reset { stream, code: ErrorCode(number) },
            _ => Piece::WindowUpdate { stream, increment: number & 0x7fff_ffff },
        }
    }

    /// `N` bytes at once, or the start of them into the scratch for the next time.
    fn gather<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        if self.have == 0
            && let Some((bytes, rest)) = input.split_first_chunk::<N>()
        {
            *input = rest;
            return Some(*bytes);
        }
        if !self.fill(input, N as u8) {
            return None;
        }
        self.scratch.first_chunk::<N>().copied()
    }

    /// Gathers `length` bytes (at most nine) in the scratch; true once they are all there.
    fn fill(&mut self, input: &mut &[u8], length: u8) -> bool {
        let bytes = take(input, u32::from(length - self.have));
        let have = usize::from(self.have);
        self.scratch[have..have + bytes.len()].copy_from_slice(bytes);
        self.have += bytes.len() as u8;
        let whole = self.have == length;
        if whole {
            self.have = 0;
        }
        whole
    }
}

/// Up to `most` bytes off the front of the input.
fn take<'i>(input: &mut &'i [u8], most: u32) -> &'i [u8] {
    let (bytes, rest) = input.split_at(input.len().min(most as usize));
    *input = rest;
    bytes
}

fn past_padding(left: u32, padding: u8) -> Result<u32, ConnectionError> {
    left.checked_sub(u32::from(padding)).ok_or(ConnectionError::Protocol("padding longer than its frame"))
}

#[cfg(test)]
mod tests;
