// SPDX-License-Identifier: Apache-2.0
//! What goes wrong, and what strangers try.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::account::{Flag, Reporter};
use super::world::*;
use super::{Demand, ListenAt, Options};
use crate::tls::test_ca::credential;

fn hurry(options: &mut Options) {
    options.deadlines.connect = Duration::from_millis(300);
    options.deadlines.handshake = Duration::from_millis(300);
    options.deadlines.workload = Duration::from_millis(300);
    options.deadlines.certificate = Duration::from_millis(300);
}

#[test]
fn a_server_that_is_somebody_else_gets_no_byte() {
    let world = World::start("");
    // The pod at the server's address is another one than discovery says.
    let other = world.host(4);
    world.server.certify(credential(&world.ca, &identity("other")));
    let mut yaml = format!(
        "workloads:\n- {{uid: other, name: other, namespace: default, serviceAccount: other, workloadIps: [{other}], protocol: HBONE}}\n"
    );
    world.server.publish(&yaml);
    yaml = yaml.replace("serviceAccount: other", "serviceAccount: expected");
    world.client.publish(&yaml);
    let at = ListenAt {
        outbound: None,
        inbound: Some(SocketAddr::new(other, 15008)),
        plaintext: None,
        target_without_redirect: None,
    };
    world.server.open("other", at);
    let app = serve_at(other, echo);
    let mut stream = world.connect(app);
    expect_reset(&mut stream);
    let (expected, other) = (identity("expected"), identity("other"));
    let error = format!("identity verification error: peer did not present the expected SAN ({expected}), got {other}");
    world.client.logged(&["\"level\":\"error\"", &error]);
    world.server.logged(&["connection failed", "\"direction\":\"inbound\""]);
    let flags: Vec<_> = world.client.shared.accounts.series().iter().map(|series| series.labels.flag).collect();
    assert!(flags.contains(&Flag::TlsFailure), "{flags:?}");
}

#[test]
fn nothing_listens_behind_the_tunnel() {
    let world = World::start("");
    let gone = TcpListener::bind((world.host(3), 0)).unwrap().local_addr().unwrap();
    let mut stream = world.connect(gone);
    expect_reset(&mut stream);
    world.server.logged(&["\"error\":\"connection failed: Connection refused (os error 111)\""]);
    world.client.logged(&["\"error\":\"http status: 503 Service Unavailable\""]);
}

#[test]
fn nothing_listens_on_the_hbone_port() {
    let world = World::start("");
    let alone = world.host(5);
    world.client.publish(&format!(
        "workloads:\n- {{uid: alone, name: alone, namespace: default, workloadIps: [{alone}], protocol: HBONE}}\n"
    ));
    let mut stream = world.connect(SocketAddr::new(alone, 80));
    expect_reset(&mut stream);
    world.client.logged(&["\"error\":\"connection failed: Connection refused (os error 111)\"", ":15008"]);
}

#[test]
fn a_peer_that_says_nothing_is_not_waited_for_long() {
    let world = World::start_with("", hurry);
    let silent = world.host(5);
    let _listener = TcpListener::bind((silent, 15008)).unwrap();
    world.client.publish(&format!(
        "workloads:\n- {{uid: silent, name: silent, namespace: default, workloadIps: [{silent}], protocol: HBONE}}\n"
    ));
    let mut stream = world.connect(SocketAddr::new(silent, 80));
    expect_reset(&mut stream);
    world.client.logged(&["the peer did not finish the TLS handshake within 300ms"]);
}

#[test]
fn an_unknown_pod_waits_for_its_record_and_is_told_in_vain() {
    let world = World::start_with("", hurry);
    let at = ListenAt {
        outbound: Some(SocketAddr::new(world.host(6), 15001)),
        inbound: None,
        plaintext: None,
        target_without_redirect: Some(SocketAddr::new(world.host(3), 80)),
    };
    world.client.open("stranger", at);
    let mut stream = dial(SocketAddr::new(world.host(6), 15001));
    expect_reset(&mut stream);
    let line = world.client.logged(&["failed to fetch information about local workload default/stranger"]);
    assert!(line.contains("\"level\":\"warn\"") && line.contains("connection failed"), "{line}");
    let demand = world.client.demands.lock().unwrap().try_recv().unwrap();
    assert_eq!(demand, Demand::Workload { namespace: "default".into(), name: "stranger".into() });
    assert_eq!(world.client.totals(Reporter::Source).opened, 0);
}

#[test]
fn a_connection_waits_for_its_certificate() {
    let world = World::start("");
    world.client.shared.credentials.store(std::sync::Arc::default());
    let app = world.application(echo);
    let mut stream = world.connect(app);
    stream.write_all(b"hello").unwrap();
    let wanted = identity("client").parse().unwrap();
    let demand = world.client.demands.lock().unwrap().blocking_recv().unwrap();
    assert_eq!(demand, Demand::Certificate { identity: wanted });
    world.client.certify(credential(&world.ca, &identity("client")));
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HELLO");
}

#[test]
fn without_a_certificate_nothing_leaves() {
    let world = World::start("");
    world.client.shared.credentials.store(std::sync::Arc::default());
    let app = world.application(|_| panic!("a connection arrived"));
    let mut stream = world.connect(app);
    world.client.demands.lock().unwrap().blocking_recv().unwrap();
    world.client.handle.credential_failed(&identity("client").parse().unwrap(), "the CA is on holiday");
    expect_reset(&mut stream);
    world.client.logged(&["the CA is on holiday", &identity("client")]);
    let flags: Vec<_> = world.client.shared.accounts.series().iter().map(|series| series.labels.flag).collect();
    assert!(flags.contains(&Flag::IdentityError), "{flags:?}");
}

#[test]
fn strangers_on_the_hbone_port_get_nowhere() {
    let world = World::start_with("", hurry);
    let port = SocketAddr::new(world.host(3), 15008);
    let nonsense: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0x16; 20_000], &[0; 70_000]];
    for bytes in nonsense {
        let mut stream = dial(port);
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        // An alert, a reset or an end; but an end.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 100);
    }
    // One that says nothing at all.
    let mut silent = dial(port);
    assert!(matches!(silent.read(&mut [0; 10]), Ok(0) | Err(_)));
    world.server.logged(&["connection failed", "TLS handshake within 300ms"]);
    wait_for("ends", || world.server.shared.accounts.sockets_open(Reporter::Destination) == 0, || world.server.log());
    let app = world.application(echo);
    assert_eq!(ask(&mut world.connect(app), b"fine"), b"FINE");
}

#[test]
fn a_client_of_another_mesh_is_refused() {
    let world = World::start("");
    let foreign = crate::tls::test_ca::ca();
    world.client.certify(credential(&foreign, &identity("client")));
    let app = world.application(|_| panic!("a connection arrived"));
    let mut stream = world.connect(app);
    expect_reset(&mut stream);
    world.client.logged(&["\"error\":\"TLS: invalid peer certificate: "]);
    world.server.logged(&["connection failed", "TLS: received fatal alert"]);
}

#[test]
fn handshakes_under_way_are_limited() {
    let world = World::start_with("", |options| options.limits.handshakes_per_pod = 4);
    let port = SocketAddr::new(world.host(3), 15008);
    let mut waiting: Vec<_> = (0..12).map(|_| dial(port)).collect();
    // Two strangers may wait; the others are reset at once.
    world.server.logged(&["too many handshakes under way: 2, and this address is in no workload's record"]);
    let is_reset = |stream: &mut std::net::TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
    };
    let reset = waiting.iter_mut().filter_map(|stream| is_reset(stream).then_some(())).count();
    assert_eq!(reset, 10, "of 12");
}

#[test]
fn a_call_to_the_proxy_itself_is_refused() {
    let world = World::start("");
    let app = SocketAddr::new(world.host(3), 15006);
    let mut stream = world.connect(app);
    expect_reset(&mut stream);
    world.client.logged(&["connection failed", "attempted recursive call to ourselves"]);
}
