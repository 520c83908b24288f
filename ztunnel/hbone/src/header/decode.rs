// SPDX-License-Identifier: Apache-2.0
//! Reads header blocks. The dynamic table and the forms of a field are the library's; what a block may cost is ours: its fields are
//! counted and measured before anything is kept, and Huffman-coded strings are decoded here, because the library
//! builds its code table anew for every string, which a peer could make us do thousands of times per block.

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

/// How a header list compares to what it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Within,
    /// Over the limits; it has been read to its end.
    Over,
    /// So far over them that it was not read to its end, and no further block can be.
    Absurd,
}

/// The reading half of header compression.
pub(crate) struct Decoder(loona_hpack::Decoder<'static>);

/// Our SETTINGS_HEADER_TABLE_SIZE, which is the default and so never announced.
const TABLE_SIZE: usize = 4096;
/// Table size updates a block may begin with (RFC 7541 §4.2).
const MAX_UPDATES: usize = 2;

impl Decoder {
    pub(crate) fn new() -> Self {
        let mut decoder = loona_hpack::Decoder::new();
        decoder.set_max_allowed_table_size(TABLE_SIZE);
        Self(decoder)
    }

    /// Hands the fields to `field`, up to the limits. What is over them is still read, so that the next block can be, until that
    /// costs out of all proportion.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        limits: Limits,
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<Size, HeaderError> {
        const PER_FIELD: usize = 32;
        let most = limits.bytes as usize;
        let (mut bytes, mut fields) = (0, 0);
        let mut within = true;
        let mut plain = Vec::new();
        let mut at = size_updates(block)?;
        // Size updates go to the library together with the field behind them: it takes none at the end of a block.
        let mut start = 0;
        while start < block.len() {
            let end = one_field(block, at, &mut plain)?;
            let literal =
                if plain.is_empty() { &block[start..end] } else { with_prefix(&mut plain, &block[start..at]) };
            self.0.decode_with_cb(literal, |name, value| {
                fields += 1;
                bytes += name.len() + value.len() + PER_FIELD;
                within = within && fields <= limits.fields && bytes <= most;
                if within {
                    field(&name, &value);
                }
            })?;
            if bytes > most.saturating_mul(PATIENCE) {
                return Ok(Size::Absurd);
            }
            plain.clear();
            (start, at) = (end, end);
        }
        Ok(if within { Size::Within } else { Size::Over })
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

/// How many times the limit a header list is read before the connection is given up with it. Two bytes of a block can stand for a
/// field of 4,096, so a block within its limit can cost two thousand times its size.
const PATIENCE: usize = 4;

/// Where the table size updates at the beginning of a block end.
fn size_updates(block: &[u8]) -> Result<usize, HeaderError> {
    let mut at = 0;
    for _ in 0..MAX_UPDATES {
        if !is_size_update(block, at) {
            break;
        }
        at = integer(block, at, 0x1f)?.1;
    }
    Ok(at)
}

/// Where the field at `at` ends. If it has Huffman-coded strings, `plain` gets the same field without them.
fn one_field(block: &[u8], at: usize, plain: &mut Vec<u8>) -> Result<usize, HeaderError> {
    let Some(&first) = block.get(at) else {
        // Size updates and nothing behind them: the library says what that is.
        return Ok(at);
    };
    if is_size_update(block, at) {
        return Err(HeaderError::SizeUpdate);
    }
    if first & 0x80 != 0 {
        return Ok(integer(block, at, 0x7f)?.1);
    }
    let (index, mut end) = integer(block, at, if first & 0x40 != 0 { 0x3f } else { 0x0f })?;
    let mut copied = at;
    for _ in 0..if index == 0 { 2 } else { 1 } {
        let start = end;
        let (length, after) = integer(block, start, 0x7f)?;
        let string = block.get(after..).and_then(|rest| rest.get(..length)).ok_or(HeaderError::Cut)?;
        end = after + length;
        if block[start] & 0x80 != 0 {
            plain.extend_from_slice(&block[copied..start]);
            huffman::decode_into(plain, string)?;
            copied = end;
        }
    }
    if copied != at {
        plain.extend_from_slice(&block[copied..end]);
    }
    Ok(end)
}

fn is_size_update(block: &[u8], at: usize) -> bool {
    matches!(block.get(at), Some(0x20..0x40))
}

/// Puts the bytes that stand before a field in front of its plain form.
fn with_prefix<'p>(plain: &'p mut Vec<u8>, prefix: &[u8]) -> &'p [u8] {
    if !prefix.is_empty() {
        plain.splice(..0, prefix.iter().copied());
    }
    plain
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(block: &[u8], limits: Limits) -> (Vec<String>, Size) {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let size = Decoder::new()
            .decode(block, limits, |name, value| fields.push(format!("{}: {}", text(name), text(value))))
            .unwrap();
        (fields, size)
    }

    fn fields(block: &[u8]) -> Vec<String> {
        decoded(block, Limits { bytes: 1000, fields: 10 }).0
    }

    #[test]
    fn every_form_of_a_literal_is_read() {
        // Never indexed, not indexed and indexed; with a new name and with one of the table, whose number fits the byte or does not.
        for form in [0x10, 0x00, 0x40] {
            assert_eq!(fields(&[form, 1, b'a', 1, b'b']), ["a: b"], "{form:x}");
            assert_eq!(fields(&[form | 4, 1, b'/']), [":path: /"], "{form:x}");
        }
        for block in [&[0x0f, 1, 1, b'x'][..], &[0x1f, 1, 1, b'x'], &[0x50, 1, b'x']] {
            assert_eq!(fields(block), ["accept-encoding: x"], "{block:x?}");
        }
        assert_eq!(fields(&[0x82, 0x84]), [":method: GET", ":path: /"]);
    }

    #[test]
    fn huffman_is_undone_wherever_it_stands() {
        // `a` is 00011, and ones behind it.
        let (plain, coded) = ([1, b'a'], [0x81, 0x1f]);
        for name in [plain, coded] {
            for value in [plain, coded] {
                let field = [&[0][..], &name, &value].concat();
                assert_eq!(fields(&field), ["a: a"]);
                assert_eq!(fields(&[&field[..], &field].concat()), ["a: a", "a: a"]);
                assert_eq!(fields(&[&[0x20][..], &field].concat()), ["a: a"], "behind a change of the table's size");
            }
        }
    }

    #[test]
    fn a_table_that_is_emptied_before_a_coded_field_is_empty() {
        let mut decoder = Decoder::new();
        let mut read = |block: &[u8]| decoder.decode(block, Limits { bytes: 1000, fields: 10 }, |_, _| {}).is_ok();
        assert!(read(&[0x40, 1, b'a', 1, b'b']) && read(&[0xbe]), "the first entry of the table");
        assert!(read(&[0x20, 0, 0x81, 0x1f, 1, b'b']));
        assert!(!read(&[0xbe]));
    }

    #[test]
    fn the_size_of_a_list_is_that_of_the_standard_to_the_byte() {
        let block = [0, 3, b'a', b'b', b'c', 4, b'd', b'e', b'f', b'g'].repeat(8);
        let most = 8 * (3 + 4 + 32);
        let size = |bytes| decoded(&block, Limits { bytes, fields: 8 }).1;
        assert!(matches!(size(most), Size::Within));
        assert!(matches!(size(most - 1), Size::Over));
        assert!(matches!(size(most / 4), Size::Over));
        assert!(matches!(size(most / 4 - 1), Size::Absurd));
        assert!(matches!(decoded(&block, Limits { bytes: most, fields: 7 }).1, Size::Over));
    }
}
