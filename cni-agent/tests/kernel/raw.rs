// SPDX-License-Identifier: Apache-2.0
//! nf_tables messages as another program would send them: to tamper with our rules, and to lay out what Istio's agent leaves. Written apart from the
//! agent's own encoding on purpose.

use std::io;
use std::os::fd::AsFd;

use cni_agent::rules::in_netns;
use netlink_sys::{Socket, constants::NETLINK_NETFILTER};

/// A transaction of messages, as `(message, family, flags, attributes)`.
pub(crate) type Message = (u16, u8, u16, Vec<u8>);

pub(crate) const INET: u8 = 1;
pub(crate) const IPV4: u8 = 2;
pub(crate) const IPV6: u8 = 10;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

pub(crate) fn new_table(family: u8, name: &str) -> Message {
    (0, family, CREATE, text(1, name))
}

/// Switches a table off.
pub(crate) fn sleep_table(family: u8, name: &str) -> Message {
    (0, family, 0, [text(1, name), attribute(2, &1_u32.to_be_bytes())].concat())
}

pub(crate) fn delete_table(family: u8, name: &str) -> Message {
    (2, family, 0, text(1, name))
}

pub(crate) fn flush_table(family: u8, name: &str) -> Message {
    (8, family, 0, text(1, name))
}

pub(crate) fn new_chain(family: u8, table: &str, name: &str) -> Message {
    (3, family, CREATE, [text(1, table), text(3, name)].concat())
}

pub(crate) fn base_chain(family: u8, table: &str, name: &str, (kind, hook, priority): (&str, u32, i32)) -> Message {
    let place = [attribute(1, &hook.to_be_bytes()), attribute(2, &priority.to_be_bytes())].concat();
    (3, family, CREATE, [text(1, table), text(3, name), attribute(4, &place), text(7, kind)].concat())
}

/// Policy drop.
pub(crate) fn closed_chain(family: u8, table: &str, name: &str) -> Message {
    (3, family, 0, [text(1, table), text(3, name), attribute(5, &0_u32.to_be_bytes())].concat())
}

pub(crate) fn flush_chain(family: u8, table: &str, name: &str) -> Message {
    (8, family, 0, [text(1, table), text(2, name)].concat())
}

pub(crate) fn delete_chain(family: u8, table: &str, name: &str) -> Message {
    (5, family, 0, [text(1, table), text(3, name)].concat())
}

/// A rule with a counter that jumps to another chain, first or last in its chain.
pub(crate) fn jump(family: u8, table: &str, chain: &str, to: &str, last: bool) -> Message {
    let verdict = [attribute(1, &(-3_i32).to_be_bytes()), text(2, to)].concat();
    rule(family, table, chain, &[("counter", Vec::new()), ("immediate", immediate_verdict(&verdict))], last)
}

/// A rule that accepts everything.
pub(crate) fn accept(family: u8, table: &str, chain: &str, last: bool) -> Message {
    rule(family, table, chain, &[("immediate", immediate_verdict(&attribute(1, &1_u32.to_be_bytes())))], last)
}

fn immediate_verdict(verdict: &[u8]) -> Vec<u8> {
    [attribute(1, &0_u32.to_be_bytes()), attribute(2, &attribute(2, verdict))].concat()
}

fn rule(family: u8, table: &str, chain: &str, expressions: &[(&str, Vec<u8>)], last: bool) -> Message {
    let list: Vec<u8> = expressions
        .iter()
        .flat_map(|(name, inside)| attribute(1, &[text(1, name), attribute(2, inside)].concat()))
        .collect();
    let flags = if last { CREATE | APPEND } else { CREATE };
    (6, family, flags, [text(1, table), text(2, chain), attribute(4, &list)].concat())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, format!("{value}\0").as_bytes())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends a transaction in a namespace and checks that it was taken.
pub(crate) fn send(netns: impl AsFd, messages: &[Message]) {
    in_netns(netns.as_fd(), || send_here(messages)).unwrap().unwrap();
}

/// Can rules be written in this process's own namespace?
pub(crate) fn probe() -> io::Result<()> {
    send_here(&[
        new_table(INET, "probe"),
        base_chain(INET, "probe", "probe", ("nat", 3, 0)),
        delete_table(INET, "probe"),
    ])
}

fn send_here(messages: &[Message]) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.set_non_blocking(true)?;
    let bound = [0_u8, 0, 0, 10];
    let mut bytes = message(0x10, 1, &bound);
    for (kind, family, flags, attributes) in messages {
        bytes.extend(message(10 << 8 | kind, flags | 5, &[&[*family, 0, 0, 0], attributes.as_slice()].concat()));
    }
    bytes.extend(message(0x11, 1, &bound));
    socket.send(&bytes, 0)?;
    let mut answered = 0;
    let mut buffer = Vec::with_capacity(65536);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {
                let code = i32::from_ne_bytes(buffer[16..20].try_into().unwrap());
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                answered += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    assert_eq!(answered, messages.len());
    Ok(())
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 16).unwrap();
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], payload].concat()
}
