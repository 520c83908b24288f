// SPDX-License-Identifier: Apache-2.0
//! What Istio's ztunnel puts on the wire (recorded in August 2026, decrypted) is understood, and what we put there is what it
//! would: the same frames in the same order, the same headers in the same order with values of the same form.
#![allow(clippy::unwrap_used)]

mod shell;

use std::sync::Arc;
use std::time::Instant;

use hbone::request::{Authority, BaggageFields, ConnectAnswer, ConnectRequest, Forwarded, TraceParent};
use hbone::{Connection, ErrorCode, Options, ResetReason};
use shell::{End, PREFACE, Seen, budget, frames};

/// The bytes of one conversation in one direction, in the order they were sent.
fn recorded(who: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in include_str!("wire/ztunnel.jsonl").lines() {
        // The lines are flat, and the two fields wanted have no escapes.
        let field = |name: &str| {
            let (_, after) = line.split_once(&format!("\"{name}\": \"")).unwrap();
            after.split_once('"').unwrap().0
        };
        if field("who") == who {
            let hex = field("hex").as_bytes();
            bytes.extend(hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()));
        }
    }
    assert!(!bytes.is_empty(), "no record of {who}");
    bytes
}

fn decode(block: &[u8]) -> Vec<(String, String)> {
    let fields = loona_hpack::Decoder::new().decode(block).unwrap();
    fields
        .into_iter()
        .map(|(name, value)| (String::from_utf8(name).unwrap(), String::from_utf8(value).unwrap()))
        .collect()
}

fn request() -> ConnectRequest {
    let baggage = BaggageFields {
        cluster: "Kubernetes",
        namespace: "default",
        workload_kind: "pod",
        workload_name: "client",
        canonical_name: "client",
        canonical_revision: "latest",
        ..BaggageFields::default()
    };
    ConnectRequest {
        authority: "10.77.2.3:8080".parse().unwrap(),
        baggage: baggage.to_baggage(),
        forwarded: Some(Forwarded { client: "10.77.1.2:50694".parse().ok(), host: None }),
        traceparent: Some(TraceParent::new(0xd4bef22868ae20d4600b9766e0939bb8, 0x4b9f1adeb1edf0f6)),
        network: None,
    }
}

// HB-1, HB-4
#[test]
fn a_server_understands_the_recorded_client_however_it_is_cut() {
    let bytes = recorded("ztunnel as client, CONNECT to a pod");
    for cut in [1, 2, 3, 7, 64, bytes.len()] {
        let now = Instant::now();
        let mut server = Connection::server(Arc::new(Options::server(budget())), now);
        let (mut told, mut data) = (Vec::new(), Vec::new());
        for mut input in bytes.chunks(cut) {
            while let Some(event) = server.next_event(now, &mut input).unwrap() {
                match event {
                    hbone::Event::Request { stream, request: seen } => {
                        assert_eq!(*seen, request());
                        server.answer(stream, &ConnectAnswer::accepted(None));
                        told.push("request");
                    }
                    hbone::Event::Data { bytes, .. } => data.extend_from_slice(bytes),
                    hbone::Event::End { .. } => told.push("end"),
                    hbone::Event::Settings => told.push("settings"),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((told, &data[..]), (vec!["settings", "request", "end"], &b"hello"[..]));
    }
}

// HB-1, HB-6
#[test]
fn our_client_opens_as_the_recorded_one_does() {
    let theirs = recorded("ztunnel as client, CONNECT to a pod");
    let mut client = End::client(Instant::now());
    client.conn.request(Instant::now(), &request()).unwrap();
    client.write();
    assert!(client.out.starts_with(PREFACE) && theirs.starts_with(PREFACE));
    let (ours, theirs) = (frames(&client.out), frames(&theirs));
    // SETTINGS, WINDOW_UPDATE, HEADERS: type, flags and stream of each.
    for (our, their) in ours.iter().zip(&theirs).take(3) {
        assert_eq!((our.0, our.1, our.2), (their.0, their.1, their.2));
    }
    // The same settings; only the window begins smaller, because it grows.
    let id = |entry: &[u8]| entry[..2].to_vec();
    let ids = |frame: &[u8]| frame.chunks(6).map(id).collect::<Vec<_>>();
    assert_eq!(ids(&ours[0].3), ids(&theirs[0].3));
    assert_eq!(ours[0].3[8..12], (256u32 << 10).to_be_bytes());
    assert_eq!((&ours[0].3[..6], &ours[0].3[12..]), (&theirs[0].3[..6], &theirs[0].3[12..]));
    assert_eq!(ours[1], theirs[1]);
    assert_eq!(decode(&ours[2].3), decode(&theirs[2].3));
}

// HB-1, HB-6
#[test]
fn our_server_opens_and_answers_as_the_recorded_one_does() {
    let peer = recorded("ztunnel as server, allowed: peer");
    let theirs = frames(&recorded("ztunnel as server, allowed"));
    let mut server = End::server(Instant::now());
    server.accept = false;
    server.turn(Instant::now(), &peer);
    let Some(Seen::Request(stream, asked)) = server.seen.last().cloned() else { panic!("{:?}", server.seen) };
    assert_eq!(asked.authority.to_string(), "10.77.2.2:9000");
    assert_eq!(asked.traceparent.unwrap().to_string(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let baggage = BaggageFields {
        cluster: "Kubernetes",
        namespace: "default",
        workload_kind: "pod",
        workload_name: "server",
        canonical_name: "server",
        canonical_revision: "latest",
        ..BaggageFields::default()
    };
    server.conn.answer(stream, &ConnectAnswer::accepted(baggage.to_baggage()));
    server.write();
    let ours = frames(&server.out);
    let head = |frame: &(u8, u8, u32, Vec<u8>)| (frame.0, frame.1, frame.2);
    assert_eq!(ours[0].3[..6], theirs[0].3[..6]);
    assert_eq!(ours[0].3[12..], theirs[0].3[12..]);
    // ztunnel acknowledges before it widens the connection; the order of these two says nothing.
    assert_eq!(
        [head(&ours[0]), head(&ours[2]), head(&ours[1]), head(&ours[3])],
        [0, 1, 2, 3].map(|n| head(&theirs[n]))
    );
    assert_eq!(ours[1], theirs[2]);
    assert_eq!(decode(&ours[3].3), decode(&theirs[3].3));
}

// HB-9
#[test]
fn refusals_look_as_recorded() {
    for (who, status) in
        [("destination is another pod", 400), ("nothing listens", 503), ("denied by policy", 401), ("not CONNECT", 400)]
    {
        let mut server = End::server(Instant::now());
        server.accept = false;
        server.turn(Instant::now(), &recorded(&format!("ztunnel as server, {who}: peer")));
        match server.seen.last().cloned() {
            Some(Seen::Request(stream, _)) => server.conn.reject(stream, status),
            // The shell has answered.
            Some(Seen::BadRequest(_, 400, _)) if status == 400 => {}
            other => panic!("{who}: {other:?}"),
        }
        server.write();
        let (ours, theirs) = (frames(&server.out), frames(&recorded(&format!("ztunnel as server, {who}"))));
        assert_eq!(decode(&ours[3].3), decode(&theirs[3].3), "{who}");
        assert_eq!((ours[3].0, ours[3].1, &ours[4]), (theirs[3].0, theirs[3].1, &theirs[4]), "{who}");
    }
}

#[test]
fn our_client_understands_the_recorded_server() {
    for (who, status) in
        [("allowed", 200), ("host name authority", 200), ("nothing listens", 503), ("denied by policy", 401)]
    {
        let now = Instant::now();
        let mut client = End::client(now);
        let authority: Authority = "web.default.svc.cluster.local:80".parse().unwrap();
        let stream = client.conn.request(now, &ConnectRequest::new(authority)).unwrap();
        client.apps.insert(stream, shell::App::default());
        // The payload is not the shell's pattern, so only what comes before it is given to the client.
        let bytes = recorded(&format!("ztunnel as server, {who}"));
        let data = bytes.windows(9).position(|w| w == [0, 0, 4, 0, 0, 0, 0, 0, 1]).unwrap_or(bytes.len());
        client.turn(now, &bytes[..data]);
        let mut expected = vec![Seen::Settings, Seen::Answer(stream, status)];
        if status != 200 {
            expected.extend([Seen::End(stream), Seen::Reset(stream, ErrorCode::NO_ERROR, ResetReason::Peer)]);
        }
        assert_eq!((client.seen, client.error), (expected, None), "{who}");
        assert_eq!(client.conn.request_room(), if status == 200 { 99 } else { 100 });
    }
}
