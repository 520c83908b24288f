// SPDX-License-Identifier: Apache-2.0
//! Reads header blocks. The dynamic table and the forms of a field are the library's; what a block may cost is ours: its fields are
//! counted and measured before anything is kept, and Huffman-coded strings are decoded here, because the library
//! builds its code table anew for every string, which a peer could make us do thousands of times per block.

use std::borrow::Cow;

use loona_hpack::decoder::DecoderError;

use super::huffman;

/// Why a header block cannot be read. The compression state is shared by all streams, so this ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The block ends inside a field, or a number in it is out of bounds.
    #[error("a field that is cut off or longer than the block")]
    Cut,
    /// A Huffman-coded string that is none.
    #[error("a string that is not Huffman-coded as it says")]
    Huffman,
    /// A table size update behind fields, or too many of them.
    #[error("a table size update at the wrong place")]
    SizeUpdate,
    /// What the library found.
    #[error(transparent)]
    Library(#[from] DecoderError),
}

/// What a header list may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Names and values and 32 bytes per field (RFC 9113 §6.5.2).
    pub(crate) bytes: u32,
    pub(crate) fields: u32,
}

/// The reading half of header compression.
pub(crate) struct Decoder(loona_hpack::Decoder<'static>);

/// Our SETTINGS_HEADER_TABLE_SIZE, which is the default and so never announced.
const TABLE_SIZE: usize = 4096;

impl Decoder {
    pub(crate) fn new() -> Self {
        let mut decoder = loona_hpack::Decoder::new();
        decoder.set_max_allowed_table_size(TABLE_SIZE);
        Self(decoder)
    }

    /// Hands the fields to `field`, up to the limits; false if there were more, in which case they have still been read, so
    /// that the next block can be.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        limits: Limits,
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<bool, HeaderError> {
        const PER_FIELD: usize = 32;
        let block = plain(block)?;
        let (mut bytes, mut fields) = (0, 0);
        let mut within = true;
        self.0.decode_with_cb(&block, |name, value| {
            fields += 1;
            bytes += name.len() + value.len() + PER_FIELD;
            within = within && fields <= limits.fields && bytes <= limits.bytes as usize;
            if within {
                field(&name, &value);
            }
        })?;
        Ok(within)
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

/// The same block without Huffman-coded strings.
fn plain(block: &[u8]) -> Result<Cow<'_, [u8]>, HeaderError> {
    let mut out = Vec::new();
    // Everything before `copied` is in `out` already, if `out` is used at all.
    let mut copied = 0;
    let mut at = 0;
    let mut updates = 0;
    let mut fields = false;
    while let Some(&first) = block.get(at) {
        let strings = match first {
            0x80.. => {
                at = integer(block, at, 0x7f)?.1;
                0
            }
            0x20..0x40 => {
                updates += 1;
                if fields || updates > 2 {
                    return Err(HeaderError::SizeUpdate);
                }
                at = integer(block, at, 0x1f)?.1;
                continue;
            }
            _ => {
                let (index, after) = integer(block, at, if first & 0x40 != 0 { 0x3f } else { 0x0f })?;
                at = after;
                if index == 0 { 2 } else { 1 }
            }
        };
        fields = true;
        for _ in 0..strings {
            let start = at;
            let (length, after) = integer(block, at, 0x7f)?;
            let bytes = block.get(after..).and_then(|rest| rest.get(..length)).ok_or(HeaderError::Cut)?;
            at = after + length;
            if block[start] & 0x80 != 0 {
                out.extend_from_slice(&block[copied..start]);
                huffman::decode_into(&mut out, bytes)?;
                copied = at;
            }
        }
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(block));
    }
    out.extend_from_slice(&block[copied..]);
    Ok(Cow::Owned(out))
}

/// A number with a prefix (RFC 7541 §5.1) at `at`, and where it ends. Numbers over 28 bits are refused.
fn integer(block: &[u8], at: usize, mask: u8) -> Result<(usize, usize), HeaderError> {
    let first = *block.get(at).ok_or(HeaderError::Cut)? & mask;
    if first < mask {
        return Ok((usize::from(first), at + 1));
    }
    let mut value = usize::from(mask);
    for (n, &byte) in block[at + 1..].iter().take(4).enumerate() {
        value += usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok((value, at + n + 2));
        }
    }
    Err(HeaderError::Cut)
}
