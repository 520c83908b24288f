// SPDX-License-Identifier: Apache-2.0
//! The `traceparent` header: names one tunnelled connection in the logs of both nodes.

use std::fmt;

/// `00-<32 hex>-<16 hex>-<2 hex>` (W3C Trace Context). Made per connection, never taken from user traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace, the same at both ends.
    pub trace_id: u128,
    /// The sender's span.
    pub span_id: u64,
    /// Flags; HBONE sends 0, not sampled.
    pub flags: u8,
}

impl TraceParent {
    /// The form to send, from random numbers of the caller.
    pub fn new(trace_id: u128, span_id: u64) -> Self {
        Self { trace_id, span_id, flags: 0 }
    }

    /// The form on the wire.
    pub(crate) fn to_bytes(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text[3..19], (self.trace_id >> 64) as u64);
        put_hex(&mut text[19..35], self.trace_id as u64);
        put_hex(&mut text[36..52], self.span_id);
        put_hex(&mut text[53..], u64::from(self.flags));
        text
    }

    /// Reads a header value. Anything but the exact form is `None`; so are the all-zero ids the standard forbids.
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() != LENGTH || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
            return None;
        }
        if !value[..2].iter().all(u8::is_ascii_hexdigit) || value[..2].eq_ignore_ascii_case(b"ff") {
            return None;
        }
        let trace_id = hex(&value[3..35])?;
        let span_id = hex(&value[36..52])?;
        let flags = hex(&value[53..])?;
        // 16 and 2 digits fit by their number; the casts cannot cut anything off.
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id: span_id as u64, flags: flags as u8 })
    }
}

/// Bytes of the header's value.
const LENGTH: usize = 55;

/// As many digits as there is room for, the last ones of `value`.
fn put_hex(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 0xf) as usize];
        value >>= 4;
    }
}

fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |value, &b| Some(value << 4 | u128::from(char::from(b).to_digit(16)?)))
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|&b| fmt::Write::write_char(f, char::from(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_one_reads_and_writes_back_the_same() {
        let text = "00-d4bef22868ae20d4600b9766e0939bb8-4b9f1adeb1edf0f6-00";
        let trace = TraceParent::parse(text.as_bytes()).unwrap();
        assert_eq!(trace, TraceParent::new(0xd4bef22868ae20d4600b9766e0939bb8, 0x4b9f1adeb1edf0f6));
        assert_eq!(trace.to_string(), text);
    }

    #[test]
    fn fifty_five_bytes_of_anything_do_no_harm() {
        for byte in 0..=255u8 {
            assert_eq!(TraceParent::parse(&[byte; 55]), None);
        }
        assert_eq!(TraceParent::parse(&[b'0'; 54]), None);
        assert_eq!(TraceParent::parse(b"00-00000000000000000000000000000000-4b9f1adeb1edf0f6-00"), None);
        assert_eq!(TraceParent::parse(b"00-d4bef22868ae20d4600b9766e0939bb8-4b9f1adeb1edf0+6-00"), None);
        assert_eq!(TraceParent::parse(b"ff-d4bef22868ae20d4600b9766e0939bb8-4b9f1adeb1edf0f6-00"), None);
    }
}
