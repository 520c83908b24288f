// SPDX-License-Identifier: Apache-2.0
//! Sessions between credentials of one test CA, entirely in memory.

use super::record::Opened;
use super::test_ca::{Ca, ca, credential, issue, issue_for};
use super::*;
use crate::net::Buffer;

fn pair(
    client: &Credential,
    server: &Credential,
    expected: &[&str],
) -> (Result<Established, TlsError>, Result<Established, TlsError>) {
    let expected = expected.iter().map(|name| name.parse().unwrap()).collect();
    let mut ends = [Some(client.dial(expected).unwrap()), Some(server.accept().unwrap())];
    let mut wires = [Buffer::default(), Buffer::default()];
    let mut results = [None, None];
    for _ in 0..10 {
        for end in 0..2 {
            let Some(mut handshake) = ends[end].take() else { continue };
            let [to_server, to_client] = &mut wires;
            let (input, output) = if end == 0 { (to_client, to_server) } else { (to_server, to_client) };
            let arrived = input.filled().to_vec();
            input.clear();
            match handshake.advance(&arrived, output, &mut Buffer::default()) {
                Ok(Progress::Done) => results[end] = Some(handshake.finish()),
                Ok(Progress::More) => ends[end] = Some(handshake),
                Err(error) => results[end] = Some(Err(error)),
            }
        }
    }
    let [client, server] = results;
    (client.unwrap(), server.unwrap())
}

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";

#[test]
fn both_ends_learn_who_the_other_is_and_data_flows() {
    let ca = ca();
    let (client, server) = pair(&credential(&ca, CLIENT), &credential(&ca, SERVER), &[CLIENT, SERVER]);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert_eq!(client.peer.identity().to_string(), SERVER);
    assert_eq!(server.peer.identity().to_string(), CLIENT);

    let sent: Vec<u8> = (0..700_000u32).map(|i| (i * 7) as u8).collect();
    let (mut wire, mut plain, mut back) = (Buffer::default(), Buffer::default(), Buffer::default());
    client.records.seal(&sent, &mut wire).unwrap();
    // Fed in odd pieces, so that records are cut everywhere.
    let mut input = Buffer::default();
    while !wire.is_empty() {
        let piece = wire.len().min(9973);
        server.records.resume(&mut input);
        input.put(&wire.filled()[..piece]);
        wire.take(piece);
        assert_eq!(server.records.open(&mut input, &mut plain, &mut back).unwrap(), Opened::More);
        // Writing while half a record waits must not disturb it.
        server.records.seal(b"answer", &mut back).unwrap();
    }
    assert!(plain.filled() == sent);
    client.records.close(&mut wire).unwrap();
    assert_eq!(server.records.open(&mut wire, &mut plain, &mut back).unwrap(), Opened::Closed);
}

#[test]
fn a_server_with_another_identity_is_refused_and_named() {
    let ca = ca();
    let (client, server) = pair(&credential(&ca, CLIENT), &credential(&ca, SERVER), &[CLIENT]);
    let text = client.err().unwrap().to_string();
    let expected =
        format!("identity verification error: peer did not present the expected SAN ({CLIENT}), got {SERVER}");
    assert_eq!(text, expected);
    assert!(server.is_err(), "the server is told by an alert");
}

#[test]
fn nobody_is_expected_means_nobody_is_accepted() {
    let ca = ca();
    let (client, _) = pair(&credential(&ca, CLIENT), &credential(&ca, SERVER), &[]);
    assert!(matches!(client.err().unwrap(), TlsError::Identity(_)));
}

#[test]
fn a_client_of_another_trust_domain_is_refused() {
    let ca = ca();
    let foreign = credential(&ca, "spiffe://other.example/ns/default/sa/client");
    let (_, server) = pair(&foreign, &credential(&ca, SERVER), &[SERVER]);
    assert!(matches!(server.err().unwrap(), TlsError::Identity(_)));
}

#[test]
fn a_certificate_of_another_ca_is_refused_by_both() {
    let (ours, theirs) = (ca(), ca());
    let (client, _) = pair(&credential(&ours, CLIENT), &credential(&theirs, SERVER), &[SERVER]);
    assert!(matches!(client.err().unwrap(), TlsError::Protocol(_)));
}

/// A credential that was good once, or will be.
fn credential_of(ca: &Ca, name: &str, (from, until): (i32, i32)) -> Credential {
    let (key, chain) = issue_for(ca, &[name], |params| {
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
    });
    Credential::new(Material { identity: name.parse().unwrap(), key, chain, roots: vec![ca.certificate.clone()] })
        .unwrap()
}

#[test]
fn a_certificate_out_of_its_time_is_refused_by_both() {
    let ca = ca();
    for (time, word) in [((2000, 2001), "expired"), ((4000, 4001), "not valid yet")] {
        let text = |error: Option<TlsError>| error.unwrap().to_string();
        let (client, server) = pair(&credential(&ca, CLIENT), &credential_of(&ca, SERVER, time), &[SERVER]);
        assert!(text(client.err()).contains(word), "{word}");
        assert!(server.is_err(), "the server is told by an alert");
        let (_, server) = pair(&credential_of(&ca, CLIENT, time), &credential(&ca, SERVER), &[SERVER]);
        assert!(text(server.err()).contains(word), "{word}");
    }
}

#[test]
fn a_server_of_another_trust_domain_is_not_the_one_that_is_expected() {
    let ca = ca();
    let foreign = credential(&ca, "spiffe://other.example/ns/default/sa/server");
    let (client, _) = pair(&credential(&ca, CLIENT), &foreign, &[SERVER]);
    assert!(client.err().unwrap().to_string().contains("got spiffe://other.example/ns/default/sa/server"));
}

#[test]
fn a_stranger_makes_nobody_gather_more_than_a_handshake_needs() {
    let mut handshake = credential(&ca(), SERVER).accept().unwrap();
    // One message of 64 KiB, begun and never finished.
    let mut record = [[0x16, 3, 3, 0x40, 0].as_slice(), &[0; 0x4000]].concat();
    record[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
    let (mut out, mut plain) = (Buffer::default(), Buffer::default());
    assert_eq!(handshake.advance(&record, &mut out, &mut plain).unwrap(), Progress::More);
    record[5..9].fill(0);
    let error = handshake.advance(&record, &mut out, &mut plain).err().unwrap();
    assert!(matches!(error, TlsError::TooLong(32_768..40_000)), "{error}");
}

#[test]
fn a_tampered_record_is_an_error() {
    let ca = ca();
    let (client, server) = pair(&credential(&ca, CLIENT), &credential(&ca, SERVER), &[SERVER]);
    let (mut wire, mut plain, mut back) = (Buffer::default(), Buffer::default(), Buffer::default());
    client.unwrap().records.seal(b"hello", &mut wire).unwrap();
    wire.filled_mut()[8] ^= 1;
    assert!(server.unwrap().records.open(&mut wire, &mut plain, &mut back).is_err());
    assert!(plain.is_empty());
    assert!(!back.is_empty(), "an alert goes back");
}

#[test]
fn a_certificate_for_somebody_else_makes_no_credential() {
    let ca = ca();
    let (key, chain) = issue(&ca, &[CLIENT]);
    let material = Material { identity: SERVER.parse().unwrap(), key, chain, roots: vec![ca.certificate.clone()] };
    assert!(matches!(Credential::new(material), Err(TlsError::Credential { .. })));
}
