// SPDX-License-Identifier: Apache-2.0
//! A netlink socket in the namespace of the thread that opens it: transactions, single requests and dumps.
//!
//! The kernel answers netlink while it takes the message, so nothing here waits: what is not there to be read after a send was never answered.

use std::io;

use netlink_sys::Socket;

use super::attributes::text;
use super::batch::{Batch, message};
use super::codec::Fields;
use super::error::{RulesError, advice};

/// One socket, for one piece of work.
pub(super) struct Netlink {
    socket: Socket,
}

/// One message of an answer, without its header.
pub(super) struct Answer {
    pub(super) kind: u16,
    flags: u16,
    sequence: u32,
    pub(super) payload: Vec<u8>,
}

impl Netlink {
    /// Opens a socket of a netlink protocol (`NETLINK_*`) in the calling thread's network namespace.
    pub(super) fn open(protocol: i32) -> Result<Self, RulesError> {
        let opened = || {
            let mut socket = Socket::new(protocol as isize)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            // Errors come with the kernel's own words, and without a copy of the message.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = opened().map_err(|source| RulesError::Socket { operation: "open a socket in the pod", source })?;
        Ok(Self { socket })
    }

    /// Sends a transaction. Either all of it has happened when this returns, or none.
    pub(super) fn transact(&self, batch: Batch) -> Result<(), RulesError> {
        let (bytes, purposes) = batch.finish();
        self.send(&bytes)?;
        let mut open: Vec<bool> = purposes.iter().enumerate().map(|(index, _)| index > 0).collect();
        let mut failure: Option<(usize, RulesError)> = None;
        for answer in self.answers()? {
            let index = answer.sequence as usize;
            let Some(waits) = open.get_mut(index) else { continue };
            *waits = false;
            // Several parts may be refused, one because of the other: the first is the reason.
            if let Err(error) = answer.outcome(&purposes[index])
                && failure.as_ref().is_none_or(|(earlier, _)| index < *earlier)
            {
                failure = Some((index, error));
            }
        }
        if let Some((_, error)) = failure {
            return Err(error);
        }
        match open.iter().filter(|waits| **waits).count() {
            0 => Ok(()),
            missing => Err(RulesError::Unanswered { missing, sent: purposes.len() }),
        }
    }

    /// Sends one message and waits for its acknowledgement.
    pub(super) fn request(&self, kind: u16, flags: u16, payload: &[u8], purpose: &str) -> Result<(), RulesError> {
        self.send(&message(kind, flags | libc::NLM_F_ACK as u16, 1, payload))?;
        match self.answers()?.iter().find(|answer| answer.kind == ERROR) {
            Some(answer) => answer.outcome(purpose),
            None => Err(RulesError::Unanswered { missing: 1, sent: 1 }),
        }
    }

    /// Sends one question that has one answer.
    pub(super) fn ask(&self, kind: u16, payload: &[u8], purpose: &str) -> Result<Answer, RulesError> {
        self.send(&message(kind, 0, 1, payload))?;
        let answer = self.answers()?.into_iter().next().ok_or(RulesError::Unanswered { missing: 1, sent: 1 })?;
        if answer.kind == ERROR {
            answer.outcome(purpose)?;
        }
        Ok(answer)
    }

    /// Reads a whole list. `None` when the list changed meanwhile and has to be read again.
    pub(super) fn dump(&self, kind: u16, payload: &[u8], purpose: &str) -> Result<Option<Vec<Answer>>, RulesError> {
        self.send(&message(kind, libc::NLM_F_DUMP as u16, 1, payload))?;
        let mut found = Vec::new();
        let mut whole = true;
        let mut done = false;
        for answer in self.answers()? {
            whole &= answer.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
            match answer.kind {
                ERROR => answer.outcome(purpose)?,
                DONE => {
                    // A dump that broke off says so here.
                    answer.outcome(purpose)?;
                    done = true;
                }
                _ => found.push(answer),
            }
        }
        if !done {
            return Err(RulesError::Unanswered { missing: 1, sent: 1 });
        }
        Ok(whole.then_some(found))
    }

    /// Reads a whole list, again and again until it holds still.
    pub(super) fn list(&self, kind: u16, payload: &[u8], purpose: &str) -> Result<Vec<Answer>, RulesError> {
        for _ in 0..READINGS {
            if let Some(found) = self.dump(kind, payload, purpose)? {
                return Ok(found);
            }
        }
        Err(RulesError::Unsettled)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), RulesError> {
        let failed = |source| RulesError::Socket { operation: "send to the kernel", source };
        match self.socket.send(bytes, 0) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(failed(io::Error::from(io::ErrorKind::WriteZero))),
            Err(source) => Err(failed(source)),
        }
    }

    /// Everything the kernel has to say now.
    fn answers(&self) -> Result<Vec<Answer>, RulesError> {
        let mut answers = Vec::new();
        let mut buffer = Vec::with_capacity(RECEIVE);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, libc::MSG_TRUNC) {
                Ok(length) if length > buffer.len() => {
                    return Err(RulesError::Malformed { what: "a datagram larger than 64 KiB" });
                }
                Ok(_) => split(&buffer, &mut answers)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(RulesError::Socket { operation: "read the kernel's answer", source }),
            }
        }
    }
}

impl Answer {
    /// An acknowledgement, or the kernel's reason against it.
    pub(super) fn outcome(&self, purpose: &str) -> Result<(), RulesError> {
        let Some((code, rest)) = self.payload.split_first_chunk::<4>() else {
            return Err(RulesError::Malformed { what: "an acknowledgement" });
        };
        let code = i32::from_ne_bytes(*code);
        if code == 0 {
            return Ok(());
        }
        let source = io::Error::from_raw_os_error(code.wrapping_neg());
        let advice = advice(&source);
        Err(RulesError::Refused { what: purpose.to_owned(), source, said: self.said(rest), advice })
    }

    /// The extended acknowledgement's text, which stands behind the header of the message it is about.
    fn said(&self, rest: &[u8]) -> Option<String> {
        if self.flags & libc::NLM_F_ACK_TLVS as u16 == 0 {
            return None;
        }
        let skipped = if self.flags & libc::NLM_F_CAPPED as u16 == 0 {
            let length = rest.first_chunk::<4>()?;
            (u32::from_ne_bytes(*length) as usize).next_multiple_of(4)
        } else {
            HEADER
        };
        Fields::read(rest.get(skipped..)?).ok()?.bytes(EXTENDED_TEXT).map(text)
    }
}

/// Takes a datagram apart.
pub(super) fn split(datagram: &[u8], answers: &mut Vec<Answer>) -> Result<(), RulesError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let broken = RulesError::Malformed { what: "a message's length" };
        let Some((header, _)) = rest.split_first_chunk::<HEADER>() else { return Err(broken) };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(payload) = rest.get(HEADER..length) else { return Err(broken) };
        answers.push(Answer {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            payload: payload.to_vec(),
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

const HEADER: usize = 16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
/// `NLMSGERR_ATTR_MSG`
const EXTENDED_TEXT: u16 = 1;
/// How often a reading is begun anew when somebody writes meanwhile.
pub(super) const READINGS: usize = 8;
const RECEIVE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attributes::Attributes;
    use super::*;

    #[test]
    fn a_refusal_quotes_the_kernel_and_says_what_to_check() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        payload.extend_from_slice(Attributes::default().text(EXTENDED_TEXT, "chain has another type").as_bytes());
        let flags = (libc::NLM_F_ACK_TLVS | libc::NLM_F_CAPPED) as u16;
        let answer = Answer { kind: ERROR, flags, sequence: 3, payload };
        let said = answer.outcome("add chain output").unwrap_err().to_string();
        assert!(said.starts_with("the kernel refused to add chain output: File exists"), "{said}");
        assert!(said.contains("(chain has another type); a chain or table of the same name"), "{said}");
    }

    proptest! {
        #[test]
        fn any_datagram_ends_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..96), flags in any::<u16>()) {
            let mut answers = Vec::new();
            let _ = split(&bytes, &mut answers);
            for answer in answers {
                let _ = answer.outcome("try");
            }
            let answer = Answer { kind: ERROR, flags, sequence: 0, payload: bytes };
            let _ = answer.outcome("try");
        }
    }
}
