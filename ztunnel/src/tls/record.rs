// SPDX-License-Identifier: Apache-2.0
//! Application data after the handshake, behind a trait: rustls itself here, a record layer of our own under the same trait later.
//!
//! The engine owns one implementation per tunnel. Everything is in memory.

use super::TlsError;
use super::session::{Session, Step};
use crate::net::Buffer;

/// Protects and opens application data of one session, in order.
pub trait Records {
    /// Appends the bytes of an unfinished record to `input`: call it before what arrives is put behind them.
    fn resume(&mut self, input: &mut Buffer);

    /// Opens every complete record of `input` and appends the plaintext to `plain`, contiguous across records; the unfinished rest is
    /// kept here. Replies the protocol demands (key updates, alerts) go to `output`, also when this fails.
    fn open(&mut self, input: &mut Buffer, plain: &mut Buffer, output: &mut Buffer) -> Result<Opened, TlsError>;

    /// Appends the records that carry `plain` to `output`, and rotates keys when it is time.
    fn seal(&mut self, plain: &[u8], output: &mut Buffer) -> Result<(), TlsError>;

    /// Appends the announcement that no more data follows.
    fn close(&mut self, output: &mut Buffer) -> Result<(), TlsError>;
}

/// What [`Records::open`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// Everything complete was opened; more may come.
    More,
    /// The peer announced that nothing more comes.
    Closed,
}

/// rustls' own record layer.
pub(super) struct RustlsRecords {
    session: Session,
}

impl RustlsRecords {
    pub(super) fn new(session: Session) -> Self {
        Self { session }
    }
}

impl Records for RustlsRecords {
    fn resume(&mut self, input: &mut Buffer) {
        self.session.resume(input);
    }

    fn open(&mut self, input: &mut Buffer, plain: &mut Buffer, output: &mut Buffer) -> Result<Opened, TlsError> {
        match self.session.open(input, output, plain)? {
            Step::Closed => Ok(Opened::Closed),
            Step::Again | Step::Ready | Step::Blocked => Ok(Opened::More),
        }
    }

    fn seal(&mut self, plain: &[u8], output: &mut Buffer) -> Result<(), TlsError> {
        // Records in the sizes below leave room for rustls to notice that keys must be rotated.
        for part in plain.chunks(SEAL_AT_ONCE) {
            self.session.write(Some(part), output)?;
        }
        Ok(())
    }

    fn close(&mut self, output: &mut Buffer) -> Result<(), TlsError> {
        self.session.write(None, output)
    }
}

/// Sixteen full records.
const SEAL_AT_ONCE: usize = 16 * 16 * 1024;
