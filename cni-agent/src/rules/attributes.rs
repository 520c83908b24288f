// SPDX-License-Identifier: Apache-2.0
//! Netlink attributes: type, length and value, padded to four bytes, nested at will.
//!
//! Used by everything here that speaks netlink. Reading trusts no length: a list that does not add up is an error and never a panic.

use super::error::RulesError;

/// Attributes to be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.append(kind, value);
        self
    }

    /// With the closing zero byte the kernel expects.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// nf_tables has its numbers in network byte order.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn long(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nested(self, kind: u16, inside: &Self) -> Self {
        self.bytes(kind | NESTED, &inside.0)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn append(&mut self, kind: u16, value: &[u8]) {
        // Longest of all is a rule's list of expressions, some hundred bytes; interface names and chain names are bounded where they come in.
        let length = u16::try_from(HEADER + value.len()).expect("an attribute of ours is far below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// The attributes of a list, as `(kind, value)`.
pub(super) fn read(list: &[u8]) -> Reader<'_> {
    Reader { rest: list }
}

/// See [`read`].
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u16, &'a [u8]), RulesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let list = std::mem::take(&mut self.rest);
        let [low, high, kind_low, kind_high, ..] = *list else { return Some(Err(BROKEN)) };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let kind = u16::from_ne_bytes([kind_low, kind_high]) & KIND;
        let Some(value) = list.get(HEADER..length) else { return Some(Err(BROKEN)) };
        // The last one's padding may be missing.
        self.rest = list.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Ok((kind, value)))
    }
}

/// A number as nf_tables sends it.
pub(super) fn number(value: &[u8]) -> Result<u32, RulesError> {
    value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| RulesError::Malformed { what: "a number that is not four bytes long" })
}

pub(super) fn long(value: &[u8]) -> Result<u64, RulesError> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| RulesError::Malformed { what: "a number that is not eight bytes long" })
}

/// A text up to its closing zero byte.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

const BROKEN: RulesError = RulesError::Malformed { what: "an attribute's length" };
const HEADER: usize = 4;
const ALIGNMENT: usize = 4;
const NESTED: u16 = libc::NLA_F_NESTED as u16;
const KIND: u16 = libc::NLA_TYPE_MASK as u16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec((1..100_u16, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let written = values.iter().fold(Attributes::default(), |list, (kind, value)| list.bytes(*kind, value));
            let outer = Attributes::default().nested(7, &written);
            let (kind, inside) = read(outer.as_bytes()).next().unwrap().unwrap();
            prop_assert_eq!(kind, 7);
            let found: Vec<_> = read(inside).map(|one| one.map(|(kind, value)| (kind, value.to_vec())).unwrap()).collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(read(&bytes).count() <= bytes.len());
        }
    }
}
