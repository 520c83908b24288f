// SPDX-License-Identifier: Apache-2.0
//! The handshake, through rustls' unbuffered API: bytes in, bytes out, and at the end records and a [`PeerIdentity`].
//!
//! The engine feeds it what a socket gave. It never reads, writes or waits.

use std::ops::Deref;
use std::sync::Arc;

use mesh_proto::spiffe::Identity;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};

use super::TlsError;
use super::record::{Records, RustlsRecords};
use super::verify::{ServerVerifier, in_trust_domain};
use crate::net::Buffer;

/// Who the other end of a session proved to be. Only a finished handshake makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerIdentity(Identity);

impl PeerIdentity {
    /// The identity.
    pub fn identity(&self) -> &Identity {
        &self.0
    }
}

impl Deref for PeerIdentity {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

/// A handshake on its way.
pub struct Handshake {
    session: Session,
    check: Check,
}

/// How far a handshake got with the bytes it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It needs more bytes.
    More,
    /// Finished: call [`Handshake::finish`].
    Done,
}

/// A finished handshake.
pub struct Established {
    /// Application data from now on.
    pub records: Box<dyn Records>,
    /// Who is there.
    pub peer: PeerIdentity,
}

enum Check {
    Server(Arc<ServerVerifier>),
    Client { trust_domain: String },
}

impl Handshake {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        check: Arc<ServerVerifier>,
    ) -> Result<Self, TlsError> {
        let tls = Tls::Client(Box::new(UnbufferedClientConnection::new(config, name)?));
        Ok(Self { session: Session { tls, unopened: Buffer::default() }, check: Check::Server(check) })
    }

    pub(super) fn server(config: Arc<ServerConfig>, trust_domain: &str) -> Result<Self, TlsError> {
        let tls = Tls::Server(Box::new(UnbufferedServerConnection::new(config)?));
        Ok(Self {
            session: Session { tls, unopened: Buffer::default() },
            check: Check::Client { trust_domain: trust_domain.to_owned() },
        })
    }

    /// Takes what arrived, appends what must be sent to `output`, and data that came right behind the handshake to `plain`. After an
    /// error `output` may hold an alert worth sending.
    pub fn advance(&mut self, arrived: &[u8], output: &mut Buffer, plain: &mut Buffer) -> Result<Progress, TlsError> {
        self.session.unopened.put(arrived);
        loop {
            match self.session.step(None, output, plain)? {
                Step::Again => {}
                Step::Ready if !self.session.common().is_handshaking() => return Ok(Progress::Done),
                Step::Ready | Step::Blocked if self.session.unopened.len() <= LONGEST_HANDSHAKE => {
                    return Ok(Progress::More);
                }
                Step::Ready | Step::Blocked => return Err(TlsError::TooLong(self.session.unopened.len())),
                Step::Closed => return Err(TlsError::Protocol(rustls::Error::HandshakeNotComplete)),
            }
        }
    }

    /// Checks once more who is there, and hands the session over to its records.
    pub fn finish(self) -> Result<Established, TlsError> {
        let common = self.session.common();
        if common.is_handshaking() {
            return Err(TlsError::Protocol(rustls::Error::HandshakeNotComplete));
        }
        let leaf = common
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or(TlsError::Protocol(rustls::Error::NoCertificatesPresented))?;
        let identity = match &self.check {
            Check::Server(verifier) => verifier.matching(leaf),
            Check::Client { trust_domain } => in_trust_domain(leaf, trust_domain),
        };
        let peer = PeerIdentity(identity.map_err(TlsError::Identity)?);
        Ok(Established { records: Box::new(RustlsRecords::new(self.session)), peer })
    }
}

/// One rustls session of either role, with the bytes it could not open yet.
///
/// rustls remembers where in those bytes a half-received handshake message lies and must be shown the same bytes at every call, writes
/// included: given a shorter buffer it panics.
pub(super) struct Session {
    tls: Tls,
    unopened: Buffer,
}

enum Tls {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What one call into rustls did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Something; call again.
    Again,
    /// Waits for bytes, handshake under way.
    Blocked,
    /// Waits for bytes, may send application data.
    Ready,
    /// The peer said it will send nothing more.
    Closed,
}

impl Session {
    fn common(&self) -> &CommonState {
        match &self.tls {
            Tls::Client(session) => session,
            Tls::Server(session) => session,
        }
    }

    /// One call into rustls, on `input` or else on the bytes of its own.
    fn step(&mut self, input: Option<&mut Buffer>, output: &mut Buffer, plain: &mut Buffer) -> Result<Step, TlsError> {
        let input = input.unwrap_or(&mut self.unopened);
        let (used, step) = match &mut self.tls {
            Tls::Client(session) => settle(session.process_tls_records(input.filled_mut()), output, plain),
            Tls::Server(session) => settle(session.process_tls_records(input.filled_mut()), output, plain),
        };
        input.take(used);
        if step.is_err() {
            self.alert(output, plain);
        }
        Ok(step?)
    }

    /// What rustls wants to say to the peer about an error. While it has something to say it does not look at input.
    fn alert(&mut self, output: &mut Buffer, plain: &mut Buffer) {
        for _ in 0..QUEUED_STEPS {
            if !self.common().wants_write() {
                return;
            }
            let _ = match &mut self.tls {
                Tls::Client(session) => settle(session.process_tls_records(&mut []), output, plain),
                Tls::Server(session) => settle(session.process_tls_records(&mut []), output, plain),
            };
        }
    }

    /// Puts the bytes not opened yet in front of what is about to arrive.
    pub(super) fn resume(&mut self, input: &mut Buffer) {
        input.put(self.unopened.filled());
    }

    /// Opens all that can be opened of `input`, which began with [`Session::resume`], and keeps the rest.
    pub(super) fn open(
        &mut self,
        input: &mut Buffer,
        output: &mut Buffer,
        plain: &mut Buffer,
    ) -> Result<Step, TlsError> {
        let step = loop {
            match self.step(Some(input), output, plain)? {
                Step::Again => {}
                done => break done,
            }
        };
        if input.len() > LONGEST_FLIGHT {
            return Err(TlsError::TooLong(input.len()));
        }
        self.unopened = Buffer::default();
        self.unopened.put(input.filled());
        input.clear();
        Ok(step)
    }

    /// Encrypts `plain` behind what is in `output`; `None` means "say goodbye".
    pub(super) fn write(&mut self, plain: Option<&[u8]>, output: &mut Buffer) -> Result<(), TlsError> {
        // What rustls has queued itself goes first; it comes in a few steps at most.
        for _ in 0..QUEUED_STEPS {
            let unopened = self.unopened.filled_mut();
            let written = match &mut self.tls {
                Tls::Client(session) => emit(session.process_tls_records(unopened), plain, output),
                Tls::Server(session) => emit(session.process_tls_records(unopened), plain, output),
            }?;
            if written {
                return Ok(());
            }
        }
        Err(TlsError::Exhausted)
    }
}

fn settle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    output: &mut Buffer,
    plain: &mut Buffer,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.put(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let mut written = data.encode(output.room_mut());
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = written {
                output.reserve(required_size);
                written = data.encode(output.room_mut());
            }
            match written {
                Ok(count) => {
                    output.fill(count);
                    Ok(Step::Again)
                }
                Err(error) => Err(rustls::Error::General(error.to_string())),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // `output` is sent in order, so from rustls' point of view it is sent.
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Ready),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
        // Early data is not enabled; a state of a later rustls is not one we can serve.
        Ok(_) => Err(rustls::Error::General("unexpected TLS state".to_owned())),
    };
    (discard, step)
}

/// Whether `plain` was encrypted; otherwise something else was done first.
fn emit<D>(
    mut status: UnbufferedStatus<'_, '_, D>,
    plain: Option<&[u8]>,
    output: &mut Buffer,
) -> Result<bool, TlsError> {
    if let Ok(ConnectionState::WriteTraffic(traffic)) = &mut status.state {
        let mut encrypt = |room: &mut [u8]| match plain {
            Some(plain) => traffic.encrypt(plain, room),
            None => traffic.queue_close_notify(room),
        };
        let mut written = encrypt(output.room_mut());
        if let Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) = written {
            output.reserve(required_size);
            written = encrypt(output.room_mut());
        }
        output.fill(written.map_err(|_| TlsError::Exhausted)?);
        return Ok(true);
    }
    // `open` went as far as it could with the same bytes, so none is used up and no plaintext comes out.
    let (_, step) = settle(status, output, &mut Buffer::default());
    match step? {
        Step::Blocked => Err(TlsError::Protocol(rustls::Error::HandshakeNotComplete)),
        Step::Again | Step::Ready | Step::Closed => Ok(false),
    }
}

/// A certificate chain of a few intermediates fits several times over. Thousands of peers may be at this point at once, and nothing is known
/// of any of them.
const LONGEST_HANDSHAKE: usize = 32 * 1024;
/// Whole records, and what belongs to one that is not whole yet.
const LONGEST_FLIGHT: usize = 96 * 1024;
/// Key updates, answers to them, tickets and an alert at once would still be fewer.
const QUEUED_STEPS: usize = 16;
