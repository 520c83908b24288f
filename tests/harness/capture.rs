// SPDX-License-Identifier: Apache-2.0
//! Listening on the wire between the nodes with a packet socket of our own (tcpdump refuses to work in a user namespace).

use std::{
    collections::BTreeMap,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use nix::sys::{
    socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, recvfrom, setsockopt, socket,
        sockopt,
    },
    time::TimeVal,
};

use socket2::{SockFilter, SockRef};

use crate::netns::Netns;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Result<Caught>>,
}

/// What was seen on the wire.
#[derive(Debug, Default)]
pub struct Caught {
    /// TCP segments with payload, per flow and direction, joined in the order of arrival.
    flows: BTreeMap<Flow, Vec<u8>>,
    /// Number of TCP packets, with or without payload.
    pub packets: usize,
    /// Bytes of TCP payload.
    pub bytes: usize,
}

/// One direction of a TCP connection: addresses and ports as they are in the packets.
type Flow = (Vec<u8>, u16, Vec<u8>, u16);

impl Capture {
    /// Starts to listen on interface `interface` of `netns`.
    pub fn start(netns: &Netns, interface: &str) -> Result<Self> {
        Self::listen(netns, interface, None)
    }

    /// The same, deaf to TCP from and to `port`. The kernel leaves that out, so what is to be heard is not lost among much that is not.
    pub fn start_beside(netns: &Netns, interface: &str, port: u16) -> Result<Self> {
        Self::listen(netns, interface, Some(port))
    }

    fn listen(netns: &Netns, interface: &str, deaf_to: Option<u16>) -> Result<Self> {
        let (index, fd) = netns
            .run(|| {
                let index = nix::net::if_::if_nametoindex(interface)? as usize;
                let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
                setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000))?;
                // Best effort: above the machine's limit the kernel takes the limit.
                let _ = setsockopt(&fd, sockopt::RcvBuf, &(32 << 20));
                if let Some(port) = deaf_to {
                    SockRef::from(&fd).attach_filter(&beside(port))?;
                    // What came before the filter stood.
                    while recv(fd.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT).is_ok() {}
                }
                Ok((index, fd))
            })
            .context("open a packet socket")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            let mut caught = Caught::default();
            let mut buffer = vec![0; 128 << 10];
            loop {
                match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer) {
                    Ok((length, from)) if from.is_some_and(|from| from.ifindex() == index) => {
                        caught.take(&buffer[..length]);
                    }
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    // Only when nothing is waiting any more is a stop obeyed: what was on the wire before it has been seen.
                    Err(nix::errno::Errno::EAGAIN) if stopped.load(Ordering::Acquire) => return Ok(caught),
                    Err(nix::errno::Errno::EAGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        Ok(Self { stop, reader })
    }

    /// Stops, and returns what was seen.
    pub fn stop(self) -> Result<Caught> {
        self.stop.store(true, Ordering::Release);
        self.reader.join().map_err(|_| anyhow!("the capture panicked"))?
    }
}

impl Caught {
    /// Whether any direction of any connection carried these bytes in the clear.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.flows.values().any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    }

    /// The ports connections went to or came from that are below the ephemeral range, each with its bytes of payload.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<u16, usize> {
        let mut ports = BTreeMap::new();
        for ((_, from, _, to), bytes) in &self.flows {
            *ports.entry(*from.min(to)).or_default() += bytes.len();
        }
        ports
    }

    /// Bytes of payload that came from or went to `port`.
    #[must_use]
    pub fn bytes_on(&self, port: u16) -> usize {
        self.flows
            .iter()
            .filter(|((_, from, _, to), _)| *from == port || *to == port)
            .map(|(_, bytes)| bytes.len())
            .sum()
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let ports: Vec<String> =
            self.ports().iter().map(|(port, bytes)| format!("port {port}: {bytes} bytes")).collect();
        format!(
            "{} TCP packets, {}",
            self.packets,
            if ports.is_empty() { "no payload".to_owned() } else { ports.join(", ") }
        )
    }

    fn take(&mut self, frame: &[u8]) {
        if let Some((flow, payload)) = tcp(frame) {
            self.packets += 1;
            self.bytes += payload.len();
            if !payload.is_empty() {
                self.flows.entry(flow).or_default().extend_from_slice(payload);
            }
        }
    }
}

/// TCP over IPv4 or IPv6 in Ethernet frames, neither from nor to `port`, in the language of the kernel's packet filter. Headers of IPv6 have one size: nobody
/// here sends extensions.
fn beside(port: u16) -> [SockFilter; 18] {
    const HALF: u16 = 0x28;
    const BYTE: u16 = 0x30;
    const HALF_BEHIND_HEADER: u16 = 0x48;
    const MEASURE_HEADER: u16 = 0xb1;
    const EQUAL: u16 = 0x15;
    const TAKE: u16 = 0x06;
    let port = u32::from(port);
    let load = |code, at| SockFilter::new(code, 0, 0, at);
    // How many lines to leave out if it is equal, and if it is not.
    let equal = |value, is, not| SockFilter::new(EQUAL, is, not, value);
    [
        load(HALF, 12),
        equal(0x0800, 0, 7),
        load(BYTE, 23),
        equal(6, 0, 13),
        load(MEASURE_HEADER, 14),
        load(HALF_BEHIND_HEADER, 14),
        equal(port, 10, 0),
        load(HALF_BEHIND_HEADER, 16),
        equal(port, 8, 7),
        equal(0x86dd, 0, 7),
        load(BYTE, 20),
        equal(6, 0, 5),
        load(HALF, 54),
        equal(port, 3, 0),
        load(HALF, 56),
        equal(port, 1, 0),
        load(TAKE, u32::MAX),
        load(TAKE, 0),
    ]
}

/// The flow and payload of an Ethernet frame with TCP over IPv4 or IPv6.
fn tcp(frame: &[u8]) -> Option<(Flow, &[u8])> {
    let packet = frame.get(14..)?;
    let (source, destination, segment) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
            if *packet.get(9)? != 6 {
                return None;
            }
            // Zero: a segment larger than the field can say, put together by the kernel.
            let end = if total == 0 { packet.len() } else { total.min(packet.len()) };
            (packet.get(12..16)?, packet.get(16..20)?, packet.get(header..end)?)
        }
        [0x86, 0xdd] => {
            if *packet.get(6)? != 6 {
                return None;
            }
            let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
            let end = if length == 0 { packet.len() } else { (40 + length).min(packet.len()) };
            (packet.get(8..24)?, packet.get(24..40)?, packet.get(40..end)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
    let data = usize::from(segment.get(12)? >> 4) * 4;
    Some(((source.to_vec(), port(0)?, destination.to_vec(), port(2)?), segment.get(data..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame with a TCP segment from port 8080 to 40000.
    fn frame(is_v6: bool, payload: &[u8]) -> Vec<u8> {
        let mut segment = [8080_u16.to_be_bytes(), 40000_u16.to_be_bytes()].concat();
        segment.extend([0; 8]);
        segment.extend([0x50, 0x18, 0, 0, 0, 0, 0, 0]);
        segment.extend_from_slice(payload);
        let length = u16::try_from(segment.len()).unwrap();
        let mut frame = vec![0; 12];
        if is_v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([6, 64]);
            frame.extend([0xfd; 32]);
        } else {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        frame.extend(segment);
        frame
    }

    #[test]
    fn text_is_found_in_both_families_and_across_packets() {
        for is_v6 in [false, true] {
            let mut caught = Caught::default();
            for part in [&b"the sec"[..], b"ret"] {
                let mut padded = frame(is_v6, part);
                padded.extend([0; 9]);
                caught.take(&padded);
            }
            assert!(caught.contains(b"the secret") && !caught.contains(b"secret\0"));
            assert_eq!((caught.packets, caught.bytes, caught.bytes_on(8080), caught.bytes_on(15008)), (2, 10, 10, 0));
            assert_eq!(caught.ports(), BTreeMap::from([(8080, 10)]));
        }
    }

    #[test]
    fn frames_that_are_cut_off_or_carry_something_else_are_passed_over() {
        let mut caught = Caught::default();
        for length in 0..50 {
            caught.take(&frame(false, b"")[..length]);
        }
        let mut udp = frame(false, b"x");
        udp[23] = 17;
        caught.take(&udp);
        assert_eq!(caught.packets, 0);
    }
}
