// SPDX-License-Identifier: Apache-2.0
//! Meshes out of bytes: the body of the fuzz target `mesh`, which makes resources and gives them to the play of `mesh.rs`.

use mesh_proto::{security, workload as proto};
use prost::Message;

use super::mesh::{MAPPED, Record, play};

/// A mesh made of choices, which gets further than bytes at random: names, addresses and networks from a few that meet,
/// and now and then something that no control plane sends.
pub fn mesh(input: &[u8]) {
    let mut choices = Choices(input);
    let mut records = Vec::new();
    for _ in 0..MOST_RECORDS {
        if choices.0.is_empty() {
            break;
        }
        records.push(match choices.below(16) {
            0..7 => Record::Address(choices.workload().encode_to_vec()),
            7..10 => Record::Address(choices.service().encode_to_vec()),
            10..13 => Record::Authorization(choices.policy().encode_to_vec()),
            13 => match choices.below(3) {
                0 => Record::RemovePolicy(format!("d/p{}", choices.below(3))),
                1 => Record::RemoveAddress(choices.uid()),
                _ => Record::RemoveAddress(format!("d/{}", choices.one_of(&HOSTNAMES))),
            },
            14 => Record::Complete,
            _ => Record::Apply,
        });
    }
    records.push(Record::Complete);
    play(&records);
}

const MOST_RECORDS: usize = 24;
const HOSTNAMES: [&str; 4] = ["a", "b", "wp", ""];
const NAMESPACES: [&str; 3] = ["d", "e", ""];

/// Bytes as choices; when they end, always the first one.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::from(self.byte()) % list.len()]
    }

    /// True once in so many times.
    fn rarely(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    fn few<T>(&mut self, most: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }

    fn option<T>(&mut self, times: u8, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.rarely(times).then(|| one(self))
    }

    /// The values an enum has, and now and then one it does not have.
    fn value(&mut self, end: u8) -> i32 {
        if self.rarely(16) { 99 } else { i32::from(self.below(end)) }
    }

    fn port(&mut self) -> u32 {
        self.one_of(&[80, 8080, 15008, 0, 443, 80, 8080, 70_000])
    }

    fn ports(&mut self) -> Vec<proto::Port> {
        self.few(3, |choices| {
            let (service_port, target_port) = (choices.port(), choices.port());
            proto::Port { service_port, target_port, ..Default::default() }
        })
    }

    fn network(&mut self) -> String {
        if self.rarely(6) { "n2".to_owned() } else { String::new() }
    }

    fn address(&mut self) -> Vec<u8> {
        let last = self.below(6);
        match self.below(8) {
            0..4 => vec![10, 0, 0, last],
            4 => vec![10, 9, 0, last],
            5 => [&MAPPED[..], &[10, 0, 0, last]].concat(),
            6 => [&[0xfd][..], &[0; 14], &[last]].concat(),
            _ => vec![0; self.one_of(&[4_usize, 16, 4, 16, 0, 3])],
        }
    }

    fn uid(&mut self) -> String {
        let number = self.below(5);
        if self.rarely(3) { format!("w{number}") } else { format!("c//Pod/d/w{number}") }
    }

    fn gateway(&mut self) -> proto::GatewayAddress {
        use proto::gateway_address::Destination as Message;
        let destination = match self.below(8) {
            0..4 => {
                let name = proto::NamespacedHostname { namespace: "d".to_owned(), hostname: "wp".to_owned() };
                Some(Message::Hostname(name))
            }
            4..7 => Some(Message::Address(self.network_address())),
            _ => None,
        };
        proto::GatewayAddress { destination, hbone_mtls_port: self.one_of(&[15008, 0, 80, 70_000]) }
    }

    fn network_address(&mut self) -> proto::NetworkAddress {
        let length = self.option(3, |choices| choices.one_of(&[32, 24, 128, 120, 0, 8, 96, 200]));
        proto::NetworkAddress { network: self.network(), address: self.address(), length }
    }

    fn workload(&mut self) -> proto::Address {
        let number = self.below(3);
        let services = self.few(2, |choices| {
            let name = format!("{}/{}", choices.one_of(&NAMESPACES), choices.one_of(&HOSTNAMES));
            (name, proto::PortList { ports: choices.ports() })
        });
        let workload = proto::Workload {
            uid: self.uid(),
            name: format!("w{number}"),
            namespace: if self.rarely(8) { self.one_of(&NAMESPACES) } else { "d" }.to_owned(),
            service_account: format!("s{number}"),
            addresses: self.few(2, Self::address),
            network: self.network(),
            tunnel_protocol: self.one_of(&[1, 0, 1, 0, 1, 0, 1, 2]),
            network_mode: if self.rarely(6) { self.value(2) } else { 0 },
            waypoint: self.option(4, Self::gateway),
            network_gateway: self.option(8, Self::gateway),
            hostname: if self.rarely(6) { "a" } else { "" }.to_owned(),
            services: services.into_iter().collect(),
            authorization_policies: self.few(2, |choices| format!("d/p{}", choices.below(3))),
            status: if self.rarely(6) { self.value(2) } else { 0 },
            application_tunnel: self
                .option(6, |choices| proto::ApplicationTunnel { protocol: choices.value(2), port: choices.port() }),
            capacity: self.option(6, |choices| choices.one_of(&[0, 1, 7, u32::MAX])),
            ..Default::default()
        };
        proto::Address { r#type: Some(proto::address::Type::Workload(workload)) }
    }

    fn service(&mut self) -> proto::Address {
        let service = proto::Service {
            name: "s".to_owned(),
            namespace: if self.rarely(4) { self.one_of(&NAMESPACES) } else { "d" }.to_owned(),
            hostname: self.one_of(&HOSTNAMES).to_owned(),
            addresses: self.few(2, Self::network_address),
            ports: self.ports(),
            waypoint: self.option(3, Self::gateway),
            weighted_waypoints: if self.rarely(4) {
                self.few(2, |choices| proto::WeightedWaypoint {
                    destination: choices.option(1, Self::gateway),
                    weight: choices.one_of(&[1, 0, u32::MAX]),
                })
            } else {
                Vec::new()
            },
            load_balancing: self.option(4, |choices| proto::LoadBalancing {
                routing_preference: choices.few(3, |choices| choices.value(7)),
                mode: choices.value(4),
                health_policy: choices.value(2),
            }),
            ip_families: self.value(4),
            canonical: self.rarely(4),
            visibility: self.value(2),
            subject_alt_names: self.few(1, |_| "spiffe://cluster.local/ns/e/sa/s1".to_owned()),
            ..Default::default()
        };
        proto::Address { r#type: Some(proto::address::Type::Service(service)) }
    }

    fn policy(&mut self) -> security::Authorization {
        let number = self.below(3);
        let clause = |choices: &mut Self| security::Clause { matches: choices.few(2, Self::criteria) };
        let rule = |choices: &mut Self| security::Rule { clauses: choices.few(2, clause) };
        security::Authorization {
            name: format!("p{number}"),
            namespace: "d".to_owned(),
            scope: self.value(3),
            action: self.value(2),
            rules: self.few(2, rule),
            dry_run: self.rarely(6),
            extensions: if self.rarely(16) { vec![proto::Extension::default()] } else { Vec::new() },
        }
    }

    fn criteria(&mut self) -> security::Match {
        let mut one = security::Match::default();
        for _ in 0..=self.below(2) {
            let kind = self.below(13);
            match kind {
                0 => one.namespaces.push(self.text(&NAMESPACES)),
                1 => one.not_namespaces.push(self.text(&NAMESPACES)),
                2 => one.principals.push(self.text(&PRINCIPALS)),
                3 => one.not_principals.push(self.text(&PRINCIPALS)),
                4 => one.source_ips.push(self.range()),
                5 => one.not_source_ips.push(self.range()),
                6 => one.destination_ips.push(self.range()),
                7 => one.not_destination_ips.push(self.range()),
                8 => one.destination_ports.push(self.port()),
                9 => one.not_destination_ports.push(self.port()),
                10 => one.service_accounts.push(self.account()),
                11 => one.not_service_accounts.push(self.account()),
                _ => {}
            }
        }
        one
    }

    fn text(&mut self, texts: &[&str]) -> security::StringMatch {
        use security::string_match::MatchType;
        let text = self.one_of(texts).to_owned();
        let match_type = match self.below(5) {
            0 => Some(MatchType::Exact(text)),
            1 => Some(MatchType::Prefix(text)),
            2 => Some(MatchType::Suffix(text)),
            3 => Some(MatchType::Presence(())),
            _ => None,
        };
        security::StringMatch { match_type }
    }

    fn range(&mut self) -> security::Address {
        security::Address { address: self.address(), length: self.one_of(&[32, 24, 128, 120, 0, 8, 96, 200]) }
    }

    fn account(&mut self) -> security::ServiceAccountMatch {
        let account = self.one_of(&["s0", "client", "s1", ""]);
        security::ServiceAccountMatch {
            namespace: self.one_of(&NAMESPACES).to_owned(),
            service_account: account.to_owned(),
        }
    }
}

const PRINCIPALS: [&str; 4] =
    ["cluster.local/ns/d/sa/s0", "spiffe://cluster.local/ns/e/sa/s1", "cluster.local/ns/d", ""];
