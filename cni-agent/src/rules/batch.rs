// SPDX-License-Identifier: Apache-2.0
//! A transaction of nf_tables messages, being put together: all of it happens, or nothing.
//!
//! `nft` fills it, `netlink` sends it. Each message has a sentence that says what it is for; an error quotes it.

use super::attributes::Attributes;

/// Messages between a begin and an end.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    purposes: Vec<String>,
}

/// What a message asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// An `NFT_MSG_*`.
    pub(super) message: u16,
    pub(super) flags: u16,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), purposes: Vec::new() };
        batch.append(BEGIN, 0, bounds(), &Attributes::default());
        batch.purposes.push("begin a transaction".to_owned());
        batch
    }

    /// Appends one message; `family` is an `NFPROTO_*`.
    pub(super) fn push(&mut self, command: Command, family: u8, attributes: &Attributes, purpose: String) {
        let kind = SUBSYSTEM << 8 | command.message;
        self.append(kind, command.flags | ACKNOWLEDGE, [family, 0, 0, 0], attributes);
        self.purposes.push(purpose);
    }

    /// Is there anything to do?
    pub(super) fn is_empty(&self) -> bool {
        self.purposes.len() == 1
    }

    /// The bytes to send, and what each message is for; a message's sequence number is its place in that list.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<String>) {
        self.append(END, 0, bounds(), &Attributes::default());
        (self.bytes, self.purposes)
    }

    fn append(&mut self, kind: u16, flags: u16, header: [u8; 4], attributes: &Attributes) {
        // A transaction has some dozens of messages.
        let sequence = self.purposes.len() as u32;
        self.bytes.extend_from_slice(&message(kind, flags, sequence, &[&header, attributes.as_bytes()].concat()));
    }
}

/// One netlink message.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = HEADER + payload.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    // Every payload of ours is an attribute list or shorter: far below 4 GiB.
    bytes.extend_from_slice(&(length as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Begin and end name the subsystem in the header's last field, in network byte order.
fn bounds() -> [u8; 4] {
    let [high, low] = SUBSYSTEM.to_be_bytes();
    [libc::NFPROTO_UNSPEC as u8, 0, high, low]
}

/// nf_tables among the subsystems of nfnetlink.
pub(super) const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
const END: u16 = libc::NFNL_MSG_BATCH_END as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACKNOWLEDGE: u16 = libc::NLM_F_ACK as u16;
const HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_s_length_leaves_its_padding_out() {
        let written = message(0x0a06, 0x0c04, 3, &[1, 2, 3, 4, 5]);
        let head =
            [&21_u32.to_ne_bytes()[..], &0x0a06_u16.to_ne_bytes(), &0x0c05_u16.to_ne_bytes(), &3_u32.to_ne_bytes()];
        assert_eq!(written, [&head.concat()[..], &[0; 4], &[1, 2, 3, 4, 5, 0, 0, 0]].concat());
    }
}
