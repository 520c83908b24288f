// SPDX-License-Identifier: Apache-2.0
//! The Huffman code of RFC 7541, appendix B. It is canonical, so the lengths of its codes say everything.

use super::decode::HeaderError;
use super::encode::{begin_string, end_string};

/// Appends the string `coded` stands for, in the form of a literal without Huffman code.
pub(super) fn decode_into(out: &mut Vec<u8>, coded: &[u8]) -> Result<(), HeaderError> {
    let start = begin_string(out);
    let mut rest = coded.iter();
    // The next `have` bits, left-aligned; below them zeros.
    let (mut bits, mut have) = (0u64, 0u32);
    loop {
        while have <= 56 {
            let Some(&byte) = rest.next() else { break };
            bits |= u64::from(byte) << (56 - have);
            have += 8;
        }
        if have < 8 && bits.leading_ones() == have {
            // Nothing left, or the padding of up to seven ones.
            break;
        }
        let (symbol, length) = symbol(bits).filter(|&(_, length)| length <= have).ok_or(HeaderError::Huffman)?;
        out.push(symbol);
        bits <<= length;
        have -= length;
    }
    end_string(out, start);
    Ok(())
}

/// The symbol whose code the bits begin with, and the code's length. The end-of-string symbol is none.
fn symbol(bits: u64) -> Option<(u8, u32)> {
    let (symbol, length) = SHORT[(bits >> (64 - SHORT_BITS)) as usize];
    if length != 0 {
        return Some((symbol, u32::from(length)));
    }
    for length in SHORT_BITS + 1..=LONGEST {
        let code = (bits >> (64 - length)) as u32;
        let row = ROWS[length as usize];
        let place = code.wrapping_sub(row.first);
        if place < row.count {
            return Some((u8::try_from(SORTED[(row.offset + place) as usize]).ok()?, length));
        }
    }
    None
}

const LONGEST: u32 = 30;
const SHORT_BITS: u32 = 8;
const SYMBOLS: usize = 257;

/// The codes of one length: numbers from `first` on, for the symbols from `offset` on in [`SORTED`].
#[derive(Clone, Copy)]
struct Row {
    first: u32,
    count: u32,
    offset: u32,
}

/// The symbols by length of their code, then by value.
static SORTED: [u16; SYMBOLS] = sorted();
static ROWS: [Row; LONGEST as usize + 1] = rows();
/// For every eight bits the symbol they begin with and the length of its code; 0 if that is longer.
static SHORT: [(u8, u8); 1 << SHORT_BITS] = short();

const fn sorted() -> [u16; SYMBOLS] {
    let mut table = [0; SYMBOLS];
    let (mut length, mut at) = (0, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as u32 == length {
                table[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    table
}

const fn rows() -> [Row; LONGEST as usize + 1] {
    let mut table = [Row { first: 0, count: 0, offset: 0 }; LONGEST as usize + 1];
    let (mut length, mut code, mut offset) = (0, 0, 0);
    while length <= LONGEST as usize {
        code <<= 1;
        let mut count = 0;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                count += 1;
            }
            symbol += 1;
        }
        table[length] = Row { first: code, count, offset };
        code += count;
        offset += count;
        length += 1;
    }
    table
}

const fn short() -> [(u8, u8); 1 << SHORT_BITS] {
    let mut table = [(0, 0); 1 << SHORT_BITS];
    let rows = rows();
    let sorted = sorted();
    let mut length = 1;
    while length <= SHORT_BITS {
        let row = rows[length as usize];
        let mut place = 0;
        while place < row.count {
            let start = (row.first + place) << (SHORT_BITS - length);
            let mut n = 0;
            while n < 1 << (SHORT_BITS - length) {
                table[(start + n) as usize] = (sorted[(row.offset + place) as usize] as u8, length as u8);
                n += 1;
            }
            place += 1;
        }
        length += 1;
    }
    table
}

#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

#[cfg(test)]
mod tests {
    use loona_hpack::huffman::HuffmanDecoder;
    use proptest::prelude::*;

    use super::*;

    fn decode(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        decode_into(&mut out, coded).ok()?;
        let text = out.split_off(6);
        // A length below 127 has one byte.
        (text.len() < 128).then(|| text[1..].to_vec())
    }

    #[test]
    fn examples_of_the_standard() {
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&coded).unwrap(), b"www.example.com");
        assert_eq!(decode(&[]).unwrap(), b"");
    }

    #[test]
    fn padding_is_ones_and_shorter_than_a_byte() {
        assert_eq!(decode(&[0b0001_1111]), Some(b"a".to_vec().split_off(0)));
        assert_eq!(decode(&[0b0001_1110]), None);
        assert_eq!(decode(&[0b0001_1111, 0xff]), None);
        assert_eq!(decode(&[0xff; 4]), None);
        // A code that ends with its byte, and a whole byte of ones behind it.
        assert_eq!(decode(&[0xf8]), Some(b"&".to_vec()));
        assert_eq!(decode(&[0xf8, 0xff]), None);
    }

    proptest! {
        #[test]
        fn the_library_agrees_on_every_input(coded in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&coded), HuffmanDecoder::new().decode(&coded).ok());
        }
    }
}
