// SPDX-License-Identifier: Apache-2.0
//! What the rules do to real connections: new ones are redirected, open ones go on, through enrolment, repair and release.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use cni_agent::rules::{Observed, Options, Plan, apply, observe, proxied_connections, release_redirects, remove};

use crate::pod::{NODE, POD, Pod, add_node_address};
use crate::raw;
use crate::tcp::{Client, accept, connect, listen, original_destination, peer, quiet, talk};

crate::tests![
    a_connection_the_pod_opens_is_redirected_to_the_outbound_port,
    a_connection_to_the_pod_is_redirected_to_the_inbound_port_except_hbone,
    the_proxy_s_own_connections_leave_the_pod,
    a_pod_that_calls_itself_stays_inside,
    connections_open_before_enrolment_go_on,
    redirected_connections_survive_a_repair_and_a_release,
    a_delivery_in_the_client_s_name_comes_back_to_the_proxy,
    a_client_s_own_connection_and_one_made_in_its_name_may_have_the_same_ports,
    a_probe_passes_by_the_proxy,
    name_queries_are_redirected_only_when_that_is_switched_on,
    without_ipv6_only_ipv4_is_redirected,
    a_gateway_takes_arriving_traffic_itself,
    traffic_from_a_virtual_interface_counts_as_the_pod_s_own,
    connections_open_under_istio_s_rules_survive_the_take_over,
];

const SERVICE: u16 = 7000;
const PROXY_MARK: u32 = 0x539;
const DELIVERY_MARK: u32 = 0x1539;

fn enrolled(options: &Options) -> (Pod, Plan) {
    let (pod, plan) = (Pod::wired(), Plan::new(options));
    apply(pod.as_fd(), &plan).unwrap();
    (pod, plan)
}

fn a_connection_the_pod_opens_is_redirected_to_the_outbound_port() {
    let (pod, _) = enrolled(&Options::default());
    let (service, proxy) = (listen(SERVICE), pod.run(|| listen(15001)));
    for node in NODE {
        let target = SocketAddr::from((node, SERVICE));
        let client = pod.run(|| connect(target));
        let taken = accept(&proxy);
        assert_eq!(original_destination(&taken), target);
        talk(&client, &taken, "redirected");
        assert!(quiet(&service));
    }
}

fn a_connection_to_the_pod_is_redirected_to_the_inbound_port_except_hbone() {
    let (pod, _) = enrolled(&Options::default());
    let (application, plaintext, hbone) = pod.run(|| (listen(SERVICE), listen(15006), listen(15008)));
    for address in POD {
        let client = connect((address, SERVICE).into());
        let taken = accept(&plaintext);
        assert_eq!(original_destination(&taken), SocketAddr::from((address, SERVICE)));
        talk(&client, &taken, "redirected");
        let client = connect((address, 15008).into());
        talk(&client, &accept(&hbone), "HBONE");
        assert!(quiet(&application) && quiet(&plaintext));
    }
}

fn the_proxy_s_own_connections_leave_the_pod() {
    let (pod, _) = enrolled(&Options::default());
    let (service, proxy) = (listen(SERVICE), pod.run(|| listen(15001)));
    for node in NODE {
        // Bits beyond the mask belong to others.
        for mark in [PROXY_MARK, 0xabc0_0000 | PROXY_MARK] {
            let client = pod.run(|| Client { mark, ..Client::default() }.connect((node, SERVICE).into()));
            talk(&client, &accept(&service), "marked");
            assert!(quiet(&proxy));
        }
    }
}

fn a_pod_that_calls_itself_stays_inside() {
    let (pod, _) = enrolled(&Options::default());
    let (application, proxy, plaintext) = pod.run(|| (listen(SERVICE), listen(15001), listen(15006)));
    let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for address in POD.into_iter().chain(localhost) {
        let client = pod.run(|| connect((address, SERVICE).into()));
        talk(&client, &accept(&application), "to itself");
        assert!(quiet(&proxy) && quiet(&plaintext), "{address}");
    }
}

fn connections_open_before_enrolment_go_on() {
    let (pod, plan) = (Pod::wired(), Plan::new(&Options::default()));
    let (service, application) = (listen(SERVICE), pod.run(|| listen(SERVICE)));
    let pairs: Vec<_> = NODE
        .into_iter()
        .zip(POD)
        .flat_map(|(node, address)| {
            let outbound = (pod.run(|| connect((node, SERVICE).into())), accept(&service));
            let inbound = (connect((address, SERVICE).into()), accept(&application));
            [outbound, inbound]
        })
        .collect();
    let say = |when: &str| pairs.iter().for_each(|(one, other)| talk(one, other, when));
    say("before");
    apply(pod.as_fd(), &plan).unwrap();
    say("enrolled");
    let (proxy, plaintext) = pod.run(|| (listen(15001), listen(15006)));
    say("enrolled, with listeners");
    pod.run(|| connect((NODE[0], SERVICE).into()));
    accept(&proxy);
    assert!(quiet(&plaintext));
    release_redirects(pod.as_fd()).unwrap();
    say("released");
    remove(pod.as_fd(), &plan).unwrap();
    say("removed");
    apply(pod.as_fd(), &plan).unwrap();
    say("enrolled again");
    assert!(quiet(&proxy) && quiet(&plaintext) && quiet(&service) && quiet(&application));
}

fn redirected_connections_survive_a_repair_and_a_release() {
    let (pod, plan) = enrolled(&Options::default());
    let (service, application) = (listen(SERVICE), pod.run(|| listen(SERVICE)));
    let (proxy, plaintext) = pod.run(|| (listen(15001), listen(15006)));
    let mut pairs = Vec::new();
    for (node, address) in NODE.into_iter().zip(POD) {
        pairs.push((pod.run(|| connect((node, SERVICE).into())), accept(&proxy)));
        pairs.push((connect((address, SERVICE).into()), accept(&plaintext)));
    }
    let say = |when: &str| pairs.iter().for_each(|(one, other)| talk(one, other, when));
    say("redirected");
    // Somebody adds a rule; the repair replaces every table in one transaction.
    raw::send(&pod, &[raw::accept(raw::INET, "istio-ambient-nat", "istio-output", true)]);
    apply(pod.as_fd(), &plan).unwrap();
    say("repaired");
    let counted = proxied_connections(pod.as_fd(), &plan).unwrap();
    assert_eq!((counted.outbound, counted.inbound, counted.opened), (2, 2, 0));
    release_redirects(pod.as_fd()).unwrap();
    say("released");
    for (node, address) in NODE.into_iter().zip(POD) {
        let outbound = pod.run(|| connect((node, SERVICE).into()));
        talk(&outbound, &accept(&service), "new after the release");
        let inbound = connect((address, SERVICE).into());
        talk(&inbound, &accept(&application), "new after the release");
    }
    say("released, with new ones");
    drop(pairs);
    assert_eq!(proxied_connections(pod.as_fd(), &plan).unwrap().total(), 0);
    remove(pod.as_fd(), &plan).unwrap();
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::Missing);
}

fn a_delivery_in_the_client_s_name_comes_back_to_the_proxy() {
    let (pod, plan) = enrolled(&Options::default());
    let application = pod.run(|| listen(SERVICE));
    let elsewhere =
        [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))];
    let mut pairs = Vec::new();
    // Istio's proxy has only the one mark.
    for (mark, (client, address)) in [PROXY_MARK, DELIVERY_MARK]
        .into_iter()
        .flat_map(|mark| elsewhere.into_iter().zip(POD).map(move |to| (mark, to)))
    {
        let proxy = Client { mark, from: Some(client), transparent: true, ..Client::default() };
        let leg = pod.run(|| proxy.connect((address, SERVICE).into()));
        let taken = accept(&application);
        assert_eq!(peer(&taken), client);
        talk(&leg, &taken, "delivered");
        pairs.push((leg, taken));
    }
    assert_eq!(proxied_connections(pod.as_fd(), &plan).unwrap().opened, 4);
    release_redirects(pod.as_fd()).unwrap();
    pairs.iter().for_each(|(leg, taken)| talk(leg, taken, "delivered, released"));
}

fn a_client_s_own_connection_and_one_made_in_its_name_may_have_the_same_ports() {
    // A gateway's are not redirected: the application has both.
    let pod = Pod::wired();
    let (application, proxy) = pod.run(|| (listen(SERVICE), listen(15006)));
    for bypass_inbound in [false, true] {
        apply(pod.as_fd(), &Plan::new(&Options { bypass_inbound, ..Options::default() })).unwrap();
        let plaintext = if bypass_inbound { &application } else { &proxy };
        for (client, address) in NODE.into_iter().zip(POD) {
            let to = SocketAddr::from((address, SERVICE));
            let own = Client { from: Some(client), ..Client::default() };
            let delivery = Client { mark: DELIVERY_MARK, transparent: true, ..own };
            let open = |how: Client| {
                let stream = if how.transparent { pod.run(|| how.connect(to)) } else { how.connect(to) };
                (accept(if how.transparent { &application } else { plaintext }), stream)
            };
            for (first, second) in [(own, delivery), (delivery, own)] {
                let (taken, opened) = open(first);
                let (taken_too, opened_too) = open(Client { from_port: opened.local_addr().unwrap().port(), ..second });
                talk(&opened, &taken, "the first");
                talk(&opened_too, &taken_too, "the second");
                assert_eq!((peer(&taken), peer(&taken_too)), (client, client));
            }
        }
    }
}

fn a_probe_passes_by_the_proxy() {
    let (pod, _) = enrolled(&Options::default());
    let (application, plaintext) = pod.run(|| (listen(SERVICE), listen(15006)));
    let options = Options::default();
    for (probe, address) in [IpAddr::V4(options.probe_source), IpAddr::V6(options.probe_source_v6)].into_iter().zip(POD)
    {
        add_node_address(probe);
        let client = Client { from: Some(probe), ..Client::default() }.connect((address, SERVICE).into());
        let taken = accept(&application);
        assert_eq!(peer(&taken), probe);
        talk(&client, &taken, "probe");
        assert!(quiet(&plaintext));
    }
}

fn name_queries_are_redirected_only_when_that_is_switched_on() {
    let (pod, _) = enrolled(&Options::default());
    let resolver = UdpSocket::bind((NODE[0], 53)).unwrap();
    let proxy = pod.run(|| UdpSocket::bind(("127.0.0.1", 15053)).unwrap());
    let patience = Some(Duration::from_secs(5));
    resolver.set_read_timeout(patience).unwrap();
    proxy.set_read_timeout(patience).unwrap();
    let ask = || {
        let client = pod.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
        client.set_read_timeout(patience).unwrap();
        client.send_to(b"who?", (NODE[0], 53)).unwrap();
        client
    };
    let mut buffer = [0; 16];
    ask();
    assert_eq!(resolver.recv(&mut buffer).unwrap(), 4, "off: the query leaves the pod");
    apply(pod.as_fd(), &Plan::new(&Options { dns_capture: true, ..Options::default() })).unwrap();
    let client = ask();
    let (length, from) = proxy.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"who?");
    proxy.send_to(b"he", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from),
        (&b"he"[..], SocketAddr::from((NODE[0], 53))),
        "the answer comes from whom was asked"
    );
}

fn without_ipv6_only_ipv4_is_redirected() {
    let (pod, _) = enrolled(&Options { ipv6: false, ..Options::default() });
    let (service, proxy) = (listen(SERVICE), pod.run(|| listen(15001)));
    pod.run(|| connect((NODE[1], SERVICE).into()));
    accept(&service);
    pod.run(|| connect((NODE[0], SERVICE).into()));
    accept(&proxy);
    assert!(quiet(&service) && quiet(&proxy));
}

fn a_gateway_takes_arriving_traffic_itself() {
    let (pod, _) = enrolled(&Options { bypass_inbound: true, ..Options::default() });
    let (application, outbound) = pod.run(|| (listen(SERVICE), listen(15001)));
    for (node, address) in NODE.into_iter().zip(POD) {
        let client = connect((address, SERVICE).into());
        talk(&client, &accept(&application), "arriving");
        pod.run(|| connect((node, SERVICE).into()));
        accept(&outbound);
    }
}

fn traffic_from_a_virtual_interface_counts_as_the_pod_s_own() {
    let (pod, _) = enrolled(&Options { virtual_interfaces: vec!["tap*".to_owned()], ..Options::default() });
    let machine = [IpAddr::V4(Ipv4Addr::new(10, 8, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 1))];
    let inside = [IpAddr::V4(Ipv4Addr::new(10, 8, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 2))];
    pod.wire("tap0", machine, inside);
    let (outbound, inbound) = pod.run(|| (listen(15001), listen(15006)));
    for address in inside {
        let client = connect((address, SERVICE).into());
        talk(&client, &accept(&outbound), "from the virtual machine");
        assert!(quiet(&inbound));
    }
}

fn connections_open_under_istio_s_rules_survive_the_take_over() {
    // Our own rules at Istio's place stand for Istio's: the same redirects, in base chains of Istio's names.
    let (pod, plan) = enrolled(&Options::default());
    let nat = "istio-ambient-nat";
    raw::send(
        &pod,
        &[
            raw::flush_chain(raw::INET, nat, "first-output"),
            raw::flush_chain(raw::INET, nat, "first-prerouting"),
            raw::delete_chain(raw::INET, nat, "first-output"),
            raw::delete_chain(raw::INET, nat, "first-prerouting"),
            raw::base_chain(raw::INET, nat, "output", ("nat", 3, -100)),
            raw::base_chain(raw::INET, nat, "prerouting", ("nat", 0, -100)),
            raw::jump(raw::INET, nat, "output", "istio-output", true),
            raw::jump(raw::INET, nat, "prerouting", "istio-prerouting", true),
            raw::new_table(raw::INET, "lateen-delivery"),
            raw::delete_table(raw::INET, "lateen-delivery"),
        ],
    );
    assert!(matches!(observe(pod.as_fd(), &plan).unwrap(), Observed::Foreign(_)));
    let (proxy, application) = pod.run(|| (listen(15001), listen(SERVICE)));
    let mut pairs: Vec<_> = NODE.map(|node| (pod.run(|| connect((node, SERVICE).into())), accept(&proxy))).into();
    for (client, address) in NODE.into_iter().zip(POD) {
        let delivery = Client { mark: PROXY_MARK, from: Some(client), transparent: true, ..Client::default() };
        pairs.push((pod.run(|| delivery.connect((address, SERVICE).into())), accept(&application)));
    }
    apply(pod.as_fd(), &plan).unwrap();
    pairs.iter().for_each(|(one, other)| talk(one, other, "taken over"));
    assert_eq!(observe(pod.as_fd(), &plan).unwrap(), Observed::InPlace);
}
