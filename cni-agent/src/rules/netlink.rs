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
        settle(&purposes, &self.answers()?)
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
        whole(self.answers()?, purpose)
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

/// What became of a transaction, by the answers to its messages.
fn settle(purposes: &[String], answers: &[Answer]) -> Result<(), RulesError> {
    // Its begin is not answered.
    let mut open: Vec<bool> = purposes.iter().enumerate().map(|(index, _)| index > 0).collect();
    let mut failure: Option<(usize, RulesError)> = None;
    for answer in answers {
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

/// The list of a dump; `None` when it changed while the kernel went through it.
fn whole(answers: Vec<Answer>, purpose: &str) -> Result<Option<Vec<Answer>>, RulesError> {
    let mut found = Vec::new();
    let mut whole = true;
    let mut done = false;
    for answer in answers {
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

    fn answer(kind: u16, flags: i32, sequence: u32, code: i32) -> Answer {
        Answer { kind, flags: flags as u16, sequence, payload: code.to_ne_bytes().to_vec() }
    }

    #[test]
    fn a_transaction_has_happened_when_every_message_but_the_begin_is_acknowledged() {
        let purposes = ["begin", "one", "two"].map(str::to_owned);
        let acknowledged = |sequences: &[u32]| {
            let answers: Vec<_> = sequences.iter().map(|sequence| answer(ERROR, 0, *sequence, 0)).collect();
            settle(&purposes, &answers)
        };
        // One with a number nobody gave is not ours.
        assert!(acknowledged(&[1, 2, 7]).is_ok());
        for missing in [&[1][..], &[2], &[0, 1]] {
            let error = acknowledged(missing).unwrap_err();
            assert!(matches!(error, RulesError::Unanswered { missing: 1, sent: 3 }), "{error}");
        }
        assert!(matches!(acknowledged(&[]), Err(RulesError::Unanswered { missing: 2, sent: 3 })));
    }

    #[test]
    fn of_several_refusals_the_first_message_s_first_one_is_the_reason() {
        let purposes = ["begin", "one", "two", "three"].map(str::to_owned);
        let acknowledged = || answer(ERROR, 0, 1, 0);
        let refused = |sequence, code: i32| answer(ERROR, 0, sequence, -code);
        for answers in [
            [acknowledged(), refused(2, libc::EEXIST), refused(3, libc::ENOENT), refused(2, libc::EBUSY)],
            [refused(3, libc::ENOENT), acknowledged(), refused(2, libc::EEXIST), refused(2, libc::EBUSY)],
        ] {
            let said = settle(&purposes, &answers).unwrap_err().to_string();
            assert!(said.starts_with("the kernel refused to two: File exists"), "{said}");
        }
        // A refusal of the whole bears the number of its begin.
        let said = settle(&purposes, &[refused(0, libc::EPERM)]).unwrap_err().to_string();
        assert!(said.starts_with("the kernel refused to begin: Operation not permitted"), "{said}");
    }

    #[test]
    fn a_list_that_changed_was_refused_or_broke_off_is_no_list() {
        const PART: u16 = 99;
        let (part, done) = (|flags| answer(PART, flags, 1, 5), |flags, code| answer(DONE, flags, 1, code));
        assert_eq!(whole(vec![part(0), part(0), done(0, 0)], "list").unwrap().map(|list| list.len()), Some(2));
        for changed in [
            vec![part(libc::NLM_F_DUMP_INTR), part(0), done(0, 0)],
            vec![part(0), part(libc::NLM_F_DUMP_INTR), done(0, 0)],
            vec![part(0), done(libc::NLM_F_DUMP_INTR, 0)],
        ] {
            assert!(whole(changed, "list").unwrap().is_none());
        }
        assert!(matches!(whole(vec![part(0)], "list"), Err(RulesError::Unanswered { .. })), "the end is missing");
        for broken in [vec![answer(ERROR, 0, 1, -libc::EPERM), done(0, 0)], vec![part(0), done(0, -libc::EPERM)]] {
            assert!(matches!(whole(broken, "list"), Err(RulesError::Refused { .. })));
        }
    }

    #[test]
    fn the_kernel_s_own_words_are_found_with_and_without_a_copy_of_the_message() {
        let words = Attributes::default().text(EXTENDED_TEXT, "why");
        // The message it is about: by its header alone, or whole and padded.
        let mut copy = (HEADER as u32 + 6).to_ne_bytes().to_vec();
        copy.resize(HEADER + 8, 0);
        let said = |flags: i32, before: &[u8]| answer(ERROR, flags, 1, -1).said(&[before, words.as_bytes()].concat());
        let why = Some("why".to_owned());
        assert_eq!(said(libc::NLM_F_ACK_TLVS | libc::NLM_F_CAPPED, &copy[..HEADER]), why);
        assert_eq!(said(libc::NLM_F_ACK_TLVS, &copy), why);
        assert_eq!(said(libc::NLM_F_CAPPED, &copy[..HEADER]), None, "there are none");
        assert_eq!(said(0, &copy), None, "there are none");
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
