// SPDX-License-Identifier: Apache-2.0
//! HTTP/2 frames (RFC 9113 §4, §6): bytes to [`Piece`]s, and frames to bytes. Knows the form of each frame, nothing of streams.

mod read;
mod write;

pub(crate) use read::{Piece, Reader};
pub(crate) use write::{
    data_header, end_headers, go_away, ping, reset, settings, settings_ack, start_headers, window_update,
};

/// What a client sends first.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame header.
pub(crate) const HEADER: usize = 9;
/// The frame size everybody takes before SETTINGS say more, and the most a header block may need without CONTINUATION.
pub(crate) const MIN_FRAME_SIZE: u32 = 16_384;
/// The largest MAX_FRAME_SIZE there is.
pub(crate) const MAX_FRAME_SIZE: u32 = (1 << 24) - 1;

/// Frame types.
mod kind {
    pub(super) const DATA: u8 = 0x0;
    pub(super) const HEADERS: u8 = 0x1;
    pub(super) const PRIORITY: u8 = 0x2;
    pub(super) const RST_STREAM: u8 = 0x3;
    pub(super) const SETTINGS: u8 = 0x4;
    pub(super) const PUSH_PROMISE: u8 = 0x5;
    pub(super) const PING: u8 = 0x6;
    pub(super) const GOAWAY: u8 = 0x7;
    pub(super) const WINDOW_UPDATE: u8 = 0x8;
    pub(super) const CONTINUATION: u8 = 0x9;
}

/// Frame flags.
mod flag {
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// SETTINGS identifiers.
pub(crate) mod setting_id {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(crate) const ENABLE_PUSH: u16 = 0x2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
}
