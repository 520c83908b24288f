// SPDX-License-Identifier: Apache-2.0
//! Rules as the kernel knows them: a list of expressions over registers, and the translation of our rules into it.
//!
//! What is read back from the kernel has the same form, so that a plan and reality are compared expression by expression and never by text: the kernel is
//! free to print a rule differently, and tools do. `codec` puts these on the wire. Printed, they look like `nft --debug=netlink`.

use std::fmt;
use std::net::IpAddr;

use super::plan::Marked;
use super::rule::{Action, Interface, Is, Match, Rule, Transport};

/// A register number. Ours use only the first of the four that hold 16 bytes.
pub(crate) type Register = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Load {
        register: Register,
        from: Source,
    },
    /// Register = register & mask ^ xor.
    Bitwise {
        from: Register,
        to: Register,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Compare {
        register: Register,
        is: Is,
        with: Vec<u8>,
    },
    Immediate {
        register: Register,
        value: Vec<u8>,
    },
    Store {
        register: Register,
        to: Target,
    },
    Redirect {
        first_port: Register,
        last_port: Register,
        flags: u32,
    },
    /// What it has counted is not part of a rule.
    Counter,
    Verdict(Verdict),
    /// Something we never write: a foreign rule, or ours tampered with. Kept whole, so that it compares.
    Other {
        name: String,
        attributes: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Meta(u32),
    Conntrack(u32),
    Payload { base: u32, offset: u32, length: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Meta(u32),
    Conntrack(u32),
    /// Of the direction in which the connection was opened.
    ConntrackOriginal(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Return,
    Jump(String),
    /// Drop, queue, goto and whatever comes.
    Other {
        code: i32,
        chain: Option<String>,
    },
}

/// Translates a rule. The order is fixed, and what a match presupposes (the address family, the protocol) is checked once, before the first match that needs it.
pub(crate) fn lower(rule: &Rule) -> Vec<Expression> {
    let mut lowered = Lowering::default();
    for one in &rule.matches {
        lowered.add(one);
    }
    lowered.finish(&rule.action)
}

#[derive(Default)]
struct Lowering {
    expressions: Vec<Expression>,
    family: Option<u8>,
    protocol: Option<u8>,
}

impl Lowering {
    fn add(&mut self, one: &Match) {
        match one {
            Match::Protocol(transport) => self.protocol(*transport),
            Match::Source(address) => self.address(*address, Is::Equal, Side::Source),
            Match::Destination(is, address) => self.address(*address, *is, Side::Destination),
            Match::SourcePort(transport, port) => self.port(*transport, Is::Equal, *port, Side::Source),
            Match::DestinationPort(transport, is, port) => self.port(*transport, *is, *port, Side::Destination),
            Match::OpeningSegment => {
                self.protocol(Transport::Tcp);
                self.load(Source::Payload { base: TRANSPORT_HEADER, offset: TCP_FLAGS_OFFSET, length: 1 });
                self.mask(vec![FIN_SYN_RST_ACK]);
                self.compare(Is::Equal, vec![SYN]);
            }
            Match::PacketMark(is, marked) => self.mark(Source::Meta(META_MARK), *is, *marked),
            Match::ConnectionMark(is, marked) => self.mark(Source::Conntrack(CT_MARK), *is, *marked),
            Match::InInterface(interface) => self.interface(META_IN_NAME, Is::Equal, interface),
            Match::OutInterface(is, interface) => self.interface(META_OUT_NAME, *is, interface),
        }
    }

    fn finish(mut self, action: &Action) -> Vec<Expression> {
        if let Action::Jump(chain) = action {
            self.expressions.push(Expression::Verdict(Verdict::Jump((*chain).to_owned())));
            return self.expressions;
        }
        self.expressions.push(Expression::Counter);
        match action {
            Action::Jump(_) => {}
            Action::Accept => self.expressions.push(Expression::Verdict(Verdict::Accept)),
            Action::Return => self.expressions.push(Expression::Verdict(Verdict::Return)),
            Action::Redirect(port) => {
                self.expressions.push(Expression::Immediate { register: R1, value: port.to_be_bytes().to_vec() });
                self.expressions.push(Expression::Redirect { first_port: R1, last_port: R1, flags: PORT_IS_GIVEN });
            }
            Action::MarkConnection(marked) => {
                self.load(Source::Conntrack(CT_MARK));
                self.expressions.push(Expression::Bitwise {
                    from: R1,
                    to: R1,
                    mask: (!marked.mask).to_ne_bytes().to_vec(),
                    xor: marked.value.to_ne_bytes().to_vec(),
                });
                self.expressions.push(Expression::Store { register: R1, to: Target::Conntrack(CT_MARK) });
            }
            Action::RestoreMark => {
                self.load(Source::Conntrack(CT_MARK));
                self.expressions.push(Expression::Store { register: R1, to: Target::Meta(META_MARK) });
            }
            Action::Zone(zone) => self.zone(*zone, Target::Conntrack(CT_ZONE)),
            Action::ZoneOneWay(zone) => self.zone(*zone, Target::ConntrackOriginal(CT_ZONE)),
        }
        self.expressions
    }

    fn zone(&mut self, zone: u16, to: Target) {
        self.expressions.push(Expression::Immediate { register: R1, value: zone.to_ne_bytes().to_vec() });
        self.expressions.push(Expression::Store { register: R1, to });
    }

    fn family(&mut self, family: u8) {
        if self.family.replace(family) != Some(family) {
            self.load(Source::Meta(META_FAMILY));
            self.compare(Is::Equal, vec![family]);
        }
    }

    fn protocol(&mut self, transport: Transport) {
        let number = match transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        };
        if self.protocol.replace(number) != Some(number) {
            self.load(Source::Meta(META_PROTOCOL));
            self.compare(Is::Equal, vec![number]);
        }
    }

    fn address(&mut self, address: IpAddr, is: Is, side: Side) {
        let (family, offset, bytes) = match (address, side) {
            (IpAddr::V4(v4), Side::Source) => (NFPROTO_IPV4, 12, v4.octets().to_vec()),
            (IpAddr::V4(v4), Side::Destination) => (NFPROTO_IPV4, 16, v4.octets().to_vec()),
            (IpAddr::V6(v6), Side::Source) => (NFPROTO_IPV6, 8, v6.octets().to_vec()),
            (IpAddr::V6(v6), Side::Destination) => (NFPROTO_IPV6, 24, v6.octets().to_vec()),
        };
        self.family(family);
        // An address has 4 or 16 bytes: the cast loses nothing.
        self.load(Source::Payload { base: NETWORK_HEADER, offset, length: bytes.len() as u32 });
        self.compare(is, bytes);
    }

    fn port(&mut self, transport: Transport, is: Is, port: u16, side: Side) {
        self.protocol(transport);
        let offset = match side {
            Side::Source => 0,
            Side::Destination => 2,
        };
        self.load(Source::Payload { base: TRANSPORT_HEADER, offset, length: 2 });
        self.compare(is, port.to_be_bytes().to_vec());
    }

    fn mark(&mut self, from: Source, is: Is, marked: Marked) {
        self.load(from);
        self.mask(marked.mask.to_ne_bytes().to_vec());
        self.compare(is, marked.value.to_ne_bytes().to_vec());
    }

    fn interface(&mut self, key: u32, is: Is, interface: &Interface) {
        self.load(Source::Meta(key));
        let bytes = match interface {
            // Compared with the zero bytes behind it, so that nothing longer matches.
            Interface::Named(name) => {
                let mut padded = name.clone().into_bytes();
                padded.resize(libc::IFNAMSIZ, 0);
                padded
            }
            Interface::Starting(start) => start.clone().into_bytes(),
        };
        self.compare(is, bytes);
    }

    fn load(&mut self, from: Source) {
        self.expressions.push(Expression::Load { register: R1, from });
    }

    fn mask(&mut self, mask: Vec<u8>) {
        let xor = vec![0; mask.len()];
        self.expressions.push(Expression::Bitwise { from: R1, to: R1, mask, xor });
    }

    fn compare(&mut self, is: Is, with: Vec<u8>) {
        self.expressions.push(Expression::Compare { register: R1, is, with });
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Several expressions in one line.
pub(crate) struct Line<'a>(pub(crate) &'a [Expression]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, expression) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}[ {expression} ]")?;
        }
        Ok(())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { register, from: Source::Meta(key) } => {
                write!(f, "meta load {} => reg {register}", meta_name(*key))
            }
            Self::Load { register, from: Source::Conntrack(key) } => {
                write!(f, "ct load {} => reg {register}", ct_name(*key))
            }
            Self::Load { register, from: Source::Payload { base, offset, length } } => {
                write!(f, "payload load {length}b @ {} header + {offset} => reg {register}", header_name(*base))
            }
            Self::Bitwise { from, to, mask, xor } => {
                write!(f, "bitwise reg {to} = ( reg {from} & 0x{} ) ^ 0x{}", hex(mask), hex(xor))
            }
            Self::Compare { register, is: Is::Equal, with } => write!(f, "cmp eq reg {register} 0x{}", hex(with)),
            Self::Compare { register, is: Is::Unequal, with } => write!(f, "cmp neq reg {register} 0x{}", hex(with)),
            Self::Immediate { register, value } => write!(f, "immediate reg {register} 0x{}", hex(value)),
            Self::Store { register, to: Target::Meta(key) } => {
                write!(f, "meta set {} with reg {register}", meta_name(*key))
            }
            Self::Store { register, to: Target::Conntrack(key) } => {
                write!(f, "ct set {} with reg {register}", ct_name(*key))
            }
            Self::Store { register, to: Target::ConntrackOriginal(key) } => {
                write!(f, "ct set {} with reg {register}, dir original", ct_name(*key))
            }
            Self::Redirect { first_port, last_port, flags } => {
                write!(f, "redir proto_min reg {first_port} proto_max reg {last_port} flags 0x{flags:x}")
            }
            Self::Counter => write!(f, "counter"),
            Self::Verdict(Verdict::Accept) => write!(f, "accept"),
            Self::Verdict(Verdict::Return) => write!(f, "return"),
            Self::Verdict(Verdict::Jump(chain)) => write!(f, "jump -> {chain}"),
            Self::Verdict(Verdict::Other { code: 0, .. }) => write!(f, "drop"),
            Self::Verdict(Verdict::Other { code, chain }) => {
                write!(f, "verdict {code} {}", chain.as_deref().unwrap_or(""))
            }
            Self::Other { name, .. } => write!(f, "{name} ..."),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn meta_name(key: u32) -> String {
    match key {
        META_MARK => "mark".to_owned(),
        META_IN_NAME => "iifname".to_owned(),
        META_OUT_NAME => "oifname".to_owned(),
        META_FAMILY => "nfproto".to_owned(),
        META_PROTOCOL => "l4proto".to_owned(),
        other => format!("key {other}"),
    }
}

fn ct_name(key: u32) -> String {
    match key {
        CT_MARK => "mark".to_owned(),
        CT_ZONE => "zone".to_owned(),
        other => format!("key {other}"),
    }
}

fn header_name(base: u32) -> String {
    match base {
        NETWORK_HEADER => "network".to_owned(),
        TRANSPORT_HEADER => "transport".to_owned(),
        other => format!("base {other}"),
    }
}

const R1: Register = 1;
const NETWORK_HEADER: u32 = libc::NFT_PAYLOAD_NETWORK_HEADER as u32;
const TRANSPORT_HEADER: u32 = libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32;
const META_MARK: u32 = libc::NFT_META_MARK as u32;
const META_IN_NAME: u32 = libc::NFT_META_IIFNAME as u32;
const META_OUT_NAME: u32 = libc::NFT_META_OIFNAME as u32;
const META_FAMILY: u32 = libc::NFT_META_NFPROTO as u32;
const META_PROTOCOL: u32 = libc::NFT_META_L4PROTO as u32;
const CT_MARK: u32 = libc::NFT_CT_MARK as u32;
/// `NFT_CT_ZONE` of the kernel's `nf_tables.h`.
const CT_ZONE: u32 = 17;
const NFPROTO_IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const NFPROTO_IPV6: u8 = libc::NFPROTO_IPV6 as u8;
const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const TCP_FLAGS_OFFSET: u32 = 13;
const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`: what the kernel sets of itself once a port is named.
pub(crate) const PORT_IS_GIVEN: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_printed_as_nft_prints_them() {
        let lo = Interface::Named("lo".to_owned());
        let mark = Marked { value: 0x539, mask: 0xfff };
        let mut printed = String::new();
        for (matches, action) in [
            (vec![Match::OutInterface(Is::Unequal, lo), Match::Source([10, 0, 0, 1].into())], Action::Redirect(15001)),
            (vec![Match::InInterface(Interface::Starting("br".to_owned())), Match::OpeningSegment], Action::Return),
            (vec![Match::PacketMark(Is::Equal, mark)], Action::Jump("there")),
            (vec![], Action::MarkConnection(mark)),
            (vec![], Action::RestoreMark),
            (vec![], Action::ZoneOneWay(0x0101)),
        ] {
            printed.push_str(&Line(&lower(&Rule { matches, action })).to_string());
            printed.push('\n');
        }
        let others = [
            Expression::Load { register: 1, from: Source::Meta(99) },
            Expression::Load { register: 1, from: Source::Conntrack(98) },
            Expression::Load { register: 1, from: Source::Payload { base: 0, offset: 1, length: 2 } },
        ];
        printed.push_str(&Line(&others).to_string());
        if cfg!(target_endian = "little") {
            assert_eq!(printed, PRINTED);
        }
    }

    const PRINTED: &str = "\
[ meta load oifname => reg 1 ] [ cmp neq reg 1 0x6c6f0000000000000000000000000000 ] [ meta load nfproto => reg 1 ] [ cmp eq reg 1 0x02 ] \
[ payload load 4b @ network header + 12 => reg 1 ] [ cmp eq reg 1 0x0a000001 ] [ counter ] [ immediate reg 1 0x3a99 ] \
[ redir proto_min reg 1 proto_max reg 1 flags 0x2 ]
[ meta load iifname => reg 1 ] [ cmp eq reg 1 0x6272 ] [ meta load l4proto => reg 1 ] [ cmp eq reg 1 0x06 ] \
[ payload load 1b @ transport header + 13 => reg 1 ] [ bitwise reg 1 = ( reg 1 & 0x17 ) ^ 0x00 ] [ cmp eq reg 1 0x02 ] [ counter ] [ return ]
[ meta load mark => reg 1 ] [ bitwise reg 1 = ( reg 1 & 0xff0f0000 ) ^ 0x00000000 ] [ cmp eq reg 1 0x39050000 ] [ jump -> there ]
[ counter ] [ ct load mark => reg 1 ] [ bitwise reg 1 = ( reg 1 & 0x00f0ffff ) ^ 0x39050000 ] [ ct set mark with reg 1 ]
[ counter ] [ ct load mark => reg 1 ] [ meta set mark with reg 1 ]
[ counter ] [ immediate reg 1 0x0101 ] [ ct set zone with reg 1, dir original ]
[ meta load key 99 => reg 1 ] [ ct load key 98 => reg 1 ] [ payload load 2b @ base 0 header + 1 => reg 1 ]";
}
