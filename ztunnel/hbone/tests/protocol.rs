// SPDX-License-Identifier: Apache-2.0
//! The specification (PROTOCOL.md) says what is so: its bytes are what we send, and every line of its checklist has a test.
#![allow(clippy::unwrap_used)]

mod shell;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use hbone::ErrorCode;
use hbone::request::{Baggage, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};
use shell::{End, PREFACE, Seen, frame};

const TEXT: &str = include_str!("../PROTOCOL.md");

/// The bytes of one of the examples.
fn example(name: &str) -> Vec<u8> {
    let (_, after) = TEXT.split_once(&format!("```hex {name}\n")).unwrap_or_else(|| panic!("no example {name}"));
    let (lines, _) = after.split_once("```").unwrap();
    let digits: String = lines.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    digits.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

fn request() -> ConnectRequest {
    ConnectRequest {
        authority: "10.77.2.3:8080".parse().unwrap(),
        baggage: Baggage::new("service.name=client"),
        forwarded: Some(Forwarded { client: "10.77.1.2:50694".parse().ok(), host: None }),
        traceparent: Some(TraceParent::new(0xd4bef22868ae20d4600b9766e0939bb8, 0x4b9f1adeb1edf0f6)),
        network: None,
    }
}

/// What an end has to say now.
fn said(end: &mut End) -> Vec<u8> {
    end.write();
    std::mem::take(&mut end.out)
}

// HB-1, HB-6
#[test]
fn the_examples_of_the_specification_are_what_is_sent() {
    let now = Instant::now();
    let mut client = End::client(now);
    assert_eq!(said(&mut client), example("client-opening"));
    let stream = client.conn.request(now, &request()).unwrap();
    client.apps.insert(stream, shell::App::default());
    assert_eq!(said(&mut client), example("request"));

    let mut server = End::server(now);
    server.accept = false;
    server.turn(now, &[example("client-opening"), example("request")].concat());
    assert_eq!(std::mem::take(&mut server.out), example("server-opening"));
    let Some(Seen::Request(asked, seen)) = server.seen.last().cloned() else { panic!("{:?}", server.seen) };
    assert_eq!(seen, request());
    server.conn.answer(asked, &ConnectAnswer::accepted(Baggage::new("service.name=server")));
    assert_eq!(said(&mut server), example("accepted"));

    client.turn(now, &[example("server-opening"), example("accepted")].concat());
    assert_eq!(client.seen, [Seen::Settings, Seen::Answer(stream, 200)]);
    let second = client.conn.request(now, &request()).unwrap();
    said(&mut client);
    let header = client.conn.data_header(stream, 5, false).unwrap();
    let mut tunnel = [&header[..], b"hello"].concat();
    client.conn.finish(stream);
    client.conn.reset(second, ErrorCode::CANCEL);
    tunnel.extend(said(&mut client));
    assert_eq!(tunnel, example("tunnel"));

    server.conn.go_away_gracefully();
    assert_eq!(said(&mut server), example("leaving"));
    server.turn(now, &frame(6, 1, 0, b"hb-drain"));
    assert_eq!(std::mem::take(&mut server.out), example("left"));
}

// HB-9
#[test]
fn the_refusal_of_the_specification_is_what_is_sent() {
    let now = Instant::now();
    let mut server = End::server(now);
    server.accept = false;
    server.turn(now, &[PREFACE, &frame(4, 0, 0, &[]), &example("request")[..]].concat());
    let Some(&Seen::Request(asked, _)) = server.seen.last() else { panic!("{:?}", server.seen) };
    server.out.clear();
    server.conn.reject(asked, 401);
    assert_eq!(said(&mut server), example("refused"));
}

/// `HB-` and a number, wherever they stand in a text.
fn ids(text: &str) -> BTreeSet<u32> {
    let after = text.split("HB-").skip(1);
    after.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).collect()
}

fn sources(folder: &Path, text: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_line_of_the_checklist_has_a_test_that_names_it() {
    let listed: Vec<u32> = TEXT
        .lines()
        .filter(|line| line.starts_with("| HB-"))
        .flat_map(|line| ids(line.split('|').nth(1).unwrap()))
        .collect();
    assert_eq!(listed, (1..=listed.len() as u32).collect::<Vec<_>>(), "one after the other, and each once");
    let mut tests = String::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut tests).unwrap();
    }
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), ids(&tests));
}
