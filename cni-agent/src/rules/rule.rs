// SPDX-License-Identifier: Apache-2.0
//! What a rule says, in our own words: tables, chains, matches and actions as values.
//!
//! `plan` builds them, `text` prints them for people, `expression` translates them for the kernel. No rule here knows how it is encoded.

use std::net::IpAddr;

use super::plan::Marked;

/// One of our tables, family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) chains: Vec<Chain>,
}

/// A chain; with a [`Base`] the kernel calls it, without one only a jump does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

/// Where a base chain is hooked in. The policy is always accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
    /// Like filter, and the packet is routed anew when its mark was changed.
    Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting,
    Output,
}

/// A packet for which every match holds gets the action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<Match>,
    pub(crate) action: Action,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Equal,
    Unequal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Protocol(Transport),
    Source(IpAddr),
    Destination(Is, IpAddr),
    SourcePort(Transport, u16),
    DestinationPort(Transport, Is, u16),
    /// SYN without ACK, RST or FIN: the first segment of a TCP connection (cni-agent.md X-1).
    OpeningSegment,
    PacketMark(Is, Marked),
    ConnectionMark(Is, Marked),
    InInterface(Interface),
    OutInterface(Is, Interface),
}

/// An interface by name, or by the beginning of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    Named(String),
    Starting(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Accept,
    Return,
    Jump(&'static str),
    Redirect(u16),
    /// Writes the marked bits of the connection's mark and leaves the others.
    MarkConnection(Marked),
    /// Copies the connection's mark to the packet.
    RestoreMark,
    /// The connection is tracked in this zone.
    Zone(u16),
    /// Only the direction this packet has is: answers are found as always, by whoever sends them.
    ZoneOneWay(u16),
}
