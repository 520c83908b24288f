// SPDX-License-Identifier: Apache-2.0
//! Who may and who may not, on new connections and on open ones.

use std::io::{Read, Write};

use super::account::{Flag, Reporter};
use super::world::*;
use crate::mesh::{Change, Kind};

const DENY_CLIENT: &str = "- {name: deny, namespace: default, scope: Namespace, action: Deny, rules: [[[\
    {principals: [{Exact: cluster.local/ns/default/sa/client}]}]]]}\n";
const STRICT: &str = "- {name: listed, namespace: default, scope: WorkloadSelector, action: Deny, rules: [[[\
    {notPrincipals: [{Presence: []}]}]]]}\n";

#[test]
fn a_denied_client_is_reset_and_the_policy_is_named() {
    let world = World::start(DENY_CLIENT);
    let app = world.application(echo);
    let mut stream = world.connect(app);
    expect_reset(&mut stream);
    world.client.logged(&["\"level\":\"error\"", "\"error\":\"http status: 401 Unauthorized\""]);
    let error = "\"error\":\"connection closed due to policy rejection: explicitly denied by: default/deny\"";
    world.server.logged(&["\"level\":\"error\"", error, "\"bytes_sent\":0,\"bytes_recv\":0"]);
    let series = world.server.shared.accounts.series();
    let denied = series.iter().find(|series| series.labels.flag == Flag::Deny).unwrap();
    assert_eq!((denied.totals.closed, denied.totals.failed), (1, 1));
    let opened = series.iter().find(|series| series.labels.flag == Flag::None).unwrap();
    assert_eq!((opened.totals.opened, opened.totals.closed), (1, 0));
}

#[test]
fn a_new_policy_closes_what_it_does_not_admit() {
    let world = World::start("");
    let app = world.application(echo);
    let mut stream = world.connect(app);
    assert_eq!(ask(&mut stream, b"hello"), b"HELLO");
    world.publish(DENY_CLIENT);
    expect_reset(&mut stream);
    let error = "\"error\":\"connection closed due to policy change: explicitly denied by: default/deny\"";
    world.server.logged(&[error, "\"bytes_sent\":5,\"bytes_recv\":5"]);
    world.publish("");
    let mut stream = world.connect(app);
    assert_eq!(ask(&mut stream, b"again"), b"AGAIN");
}

#[test]
fn plaintext_is_admitted_unless_strict() {
    let world = World::start("");
    let app = world.application(echo);
    let door = world.plaintext_door_to(app);
    let mut stream = dial(door);
    assert_eq!(ask(&mut stream, b"hello"), b"HELLO");
    world.publish(STRICT);
    expect_reset(&mut stream);
    let mut refused = dial(door);
    expect_reset(&mut refused);
    world.server.logged(&["policy rejection: explicitly denied by: default/listed", "\"direction\":\"inbound\""]);
    let mut secured = world.connect(app);
    assert_eq!(ask(&mut secured, b"secured"), b"SECURED");
    assert_eq!(world.server.shared.accounts.sockets_open(Reporter::Destination), 1);
}

#[test]
fn nobody_is_admitted_before_the_policies_are_known() {
    let world = World::start("");
    let app = world.application(echo);
    let fresh = Node::start(&|_| {});
    fresh.certify(crate::tls::test_ca::credential(&world.ca, &identity("server")));
    fresh.publish_and(&world.yaml(""), [Change::Received(Kind::Addresses)]);
    let door = std::net::SocketAddr::new(world.host(3), 15006);
    fresh.open(
        "server",
        super::ListenAt { outbound: None, inbound: None, plaintext: Some(door), target_without_redirect: Some(app) },
    );
    let mut stream = dial(door);
    stream.write_all(b"hello").unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let early = stream.read(&mut [0; 5]).expect_err("admitted without policies");
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    fresh.publish_and("{}", [Change::Received(Kind::Policies)]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HELLO");
}
