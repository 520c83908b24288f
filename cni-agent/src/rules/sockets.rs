// SPDX-License-Identifier: Apache-2.0
//! Counts the connections in a pod that go through the proxy, by asking the kernel for its TCP sockets (sock_diag).
//!
//! A release waits for this to become zero before it takes away what those connections live on.

use super::codec::Fields;
use super::error::RulesError;
use super::netlink::Netlink;
use super::plan::{Marked, Plan, Ports};

/// Connections that a removal of the rules would end. Tunnels between proxies are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxiedConnections {
    /// The pod's programs opened them and the proxy took them.
    pub outbound: usize,
    /// Others opened them in plaintext and the proxy took them.
    pub inbound: usize,
    /// The proxy opened them: to the application, or past the mesh.
    pub opened: usize,
}

impl ProxiedConnections {
    /// How many sockets of the proxy that is.
    #[must_use]
    pub fn total(&self) -> usize {
        self.outbound + self.inbound + self.opened
    }
}

/// Counts in the calling thread's network namespace.
pub(super) fn count(plan: &Plan) -> Result<ProxiedConnections, RulesError> {
    let netlink = Netlink::open(libc::NETLINK_SOCK_DIAG)?;
    let mut counted = ProxiedConnections::default();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = vec![0; REQUEST];
        request[0] = family;
        request[1] = libc::IPPROTO_TCP as u8;
        request[4..8].copy_from_slice(&OPEN.to_ne_bytes());
        let answers = netlink.list(BY_FAMILY, &request, "list the TCP sockets")?;
        for answer in answers {
            let socket = Socket::parse(&answer.payload)?;
            socket.classify(plan.ports, plan.proxy_mark, &mut counted);
        }
    }
    Ok(counted)
}

pub(super) struct Socket {
    local_port: u16,
    remote_port: u16,
    mark: u32,
}

impl Socket {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, RulesError> {
        let incomplete = RulesError::Malformed { what: "a description of a socket" };
        let Some((fixed, list)) = payload.split_first_chunk::<DESCRIPTION>() else { return Err(incomplete) };
        let port = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let mark = match Fields::read(list)?.bytes(MARK) {
            Some(bytes) => u32::from_ne_bytes(bytes.try_into().map_err(|_| incomplete)?),
            None => 0,
        };
        Ok(Self { local_port: port(4), remote_port: port(6), mark })
    }

    fn classify(&self, ports: Ports, proxy: Marked, counted: &mut ProxiedConnections) {
        if self.local_port == ports.outbound {
            counted.outbound += 1;
        } else if self.local_port == ports.inbound {
            counted.inbound += 1;
        } else if self.mark & proxy.mask == proxy.value && ![self.local_port, self.remote_port].contains(&ports.hbone) {
            counted.opened += 1;
        }
    }
}

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`
const REQUEST: usize = 56;
/// `struct inet_diag_msg`
const DESCRIPTION: usize = 72;
/// `INET_DIAG_MARK`
const MARK: u16 = 15;
/// Every TCP state but TIME_WAIT (6), CLOSE (7) and LISTEN (10).
const OPEN: u32 = 0x1ffe & !(1 << 6 | 1 << 7 | 1 << 10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attributes::Attributes;
    use super::super::plan::Options;
    use super::*;

    fn counted(local: u16, remote: u16, mark: Option<u32>) -> (usize, usize, usize) {
        let mut bytes = vec![0; DESCRIPTION];
        bytes[4..6].copy_from_slice(&local.to_be_bytes());
        bytes[6..8].copy_from_slice(&remote.to_be_bytes());
        if let Some(mark) = mark {
            bytes.extend_from_slice(Attributes::default().bytes(MARK, &mark.to_ne_bytes()).as_bytes());
        }
        let (options, mut counted) = (Options::default(), ProxiedConnections::default());
        Socket::parse(&bytes).unwrap().classify(options.ports, options.proxy_mark, &mut counted);
        (counted.outbound, counted.inbound, counted.opened)
    }

    #[test]
    fn sockets_are_told_apart_by_port_and_mark() {
        assert_eq!(
            counted(15001, 40000, Some(0x539)),
            (1, 0, 0),
            "taken from the application, with the listener's mark"
        );
        assert_eq!(counted(15006, 40000, None), (0, 1, 0));
        assert_eq!(counted(40000, 8080, Some(0x539)), (0, 0, 1));
        assert_eq!(counted(40000, 8080, Some(0xabc0_0539)), (0, 0, 1), "bits beyond the mask are somebody else's");
        assert_eq!(counted(40000, 15008, Some(0x539)), (0, 0, 0), "a tunnel to another proxy");
        assert_eq!(counted(15008, 40000, Some(0x539)), (0, 0, 0), "a tunnel from another proxy");
        assert_eq!(counted(8080, 40000, None), (0, 0, 0), "the application's own");
        assert_eq!(counted(8080, 15001, Some(0x111)), (0, 0, 0), "a server on the proxy's port elsewhere");
    }

    #[test]
    fn all_that_the_proxy_has_counts() {
        assert_eq!(ProxiedConnections { outbound: 2, inbound: 3, opened: 5 }.total(), 10);
    }

    #[test]
    fn only_connections_are_asked_for() {
        let [time_wait, close, listen] = [6, 7, 10];
        // From ESTABLISHED to NEW_SYN_RECV.
        let asked: Vec<u32> = (0..32).filter(|state| OPEN & 1 << state != 0).collect();
        let states: Vec<u32> = (1..=12).filter(|state| ![time_wait, close, listen].contains(state)).collect();
        assert_eq!(asked, states);
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Socket::parse(&bytes);
        }
    }
}
