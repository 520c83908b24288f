// SPDX-License-Identifier: Apache-2.0
//! The other end of a connection: what TLS has shown of it, and whether it has proved who it is since.
//!
//! A peer that has proved nothing counts against its address and has little time; one that has counts against the caller
//! it proved to be. So neither a stranger nor a caller can take the connections that others need.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use mesh_proto::spiffe::Identity;
use rustls_pki_types::CertificateDer;

use super::authenticator::Caller;
use super::share::{Share, Shares};

/// What tells callers apart: the identity, and the pod of its token or else the address it calls from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallerKey {
    identity: Identity,
    place: String,
}

/// The other end of a connection. Clones are the same.
#[derive(Debug, Clone)]
pub struct Peer {
    address: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    standing: Arc<Mutex<Standing>>,
    callers: Arc<Shares<CallerKey>>,
}

/// Against whom the connection counts.
#[derive(Debug)]
enum Standing {
    Stranger { _share: Share<IpAddr> },
    Caller { key: CallerKey, _share: Share<CallerKey> },
}

impl Peer {
    /// A peer at `address` that showed `certificate`, **already verified by TLS**, or none. It counts as `stranger`
    /// until it is [admitted](Self::admit) and gets one of `callers`.
    #[must_use]
    pub fn new(
        address: SocketAddr,
        certificate: Option<CertificateDer<'static>>,
        stranger: Share<IpAddr>,
        callers: Arc<Shares<CallerKey>>,
    ) -> Self {
        Self { address, certificate, standing: Arc::new(Mutex::new(Standing::Stranger { _share: stranger })), callers }
    }

    /// Where it connected from.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its leaf certificate.
    #[must_use]
    pub const fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// The connection is `caller`'s from now on. False if that one has all the connections it may.
    pub fn admit(&self, caller: &Caller) -> bool {
        let key = caller.key(self.address.ip());
        // Every change is a single step, so a poisoned standing is whole.
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*standing, Standing::Caller { key: known, .. } if *known == key) {
            return true;
        }
        let Some(share) = self.callers.take(key.clone()) else { return false };
        *standing = Standing::Caller { key, _share: share };
        true
    }

    /// How many connections a caller may have.
    #[must_use]
    pub fn most_connections(&self) -> usize {
        self.callers.most()
    }

    /// Has it proved who it is?
    #[must_use]
    pub fn is_known(&self) -> bool {
        matches!(*self.standing.lock().unwrap_or_else(PoisonError::into_inner), Standing::Caller { .. })
    }
}

impl Caller {
    /// What tells it from others, as it calls from `address`.
    #[must_use]
    pub fn key(&self, address: IpAddr) -> CallerKey {
        let place = self.pod().map_or_else(|| address.to_string(), |pod| pod.uid.clone());
        CallerKey { identity: self.identity().clone(), place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::PodReference;

    fn caller(pod: &str) -> Caller {
        let identity = "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap();
        Caller::assumed(identity, Some(PodReference { name: pod.into(), uid: format!("uid-{pod}") }))
    }

    #[test]
    fn a_stranger_counts_against_its_address_and_a_caller_against_itself() {
        let (strangers, callers) = (Shares::new(2), Shares::new(1));
        let address: SocketAddr = "10.0.0.1:4000".parse().unwrap();
        let arrive = || {
            let share = strangers.take(address.ip())?;
            Some(Peer::new(address, None, share, Arc::clone(&callers)))
        };
        let (first, second) = (arrive().unwrap(), arrive().unwrap());
        assert!(arrive().is_none());
        assert!(!first.is_known() && first.admit(&caller("a")) && first.is_known());
        assert!(first.admit(&caller("a")), "the same caller on the same connection");
        let third = arrive().expect("the first one is no stranger any more");
        assert!(!second.admit(&caller("a")) && !second.is_known());
        assert!(second.admit(&caller("b")), "another pod of the same account");
        drop(first);
        assert!(third.admit(&caller("a")));
    }
}
