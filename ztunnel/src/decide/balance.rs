// SPDX-License-Identifier: Apache-2.0
//! Which endpoint of a service takes a connection, and at which address and port. Allocates nothing.

use std::net::{IpAddr, SocketAddr};

use rand::{Rng, RngExt};

use super::route::RouteError;
use crate::mesh::{Endpoint, Endpoints, IpFamilies, Mode, Scope, Service, Workload};

/// A connection that wants an endpoint.
pub(super) struct Wanted<'a> {
    pub(super) service: &'a Service,
    /// Who connects.
    pub(super) source: &'a Workload,
    /// The service port.
    pub(super) port: u16,
    /// An address of the family the client uses, and the address itself if an endpoint owns it.
    pub(super) near: IpAddr,
    pub(super) purpose: Purpose,
}

/// What the endpoint is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To serve: the service must have the port.
    Service,
    /// As waypoint: an application tunnel will do instead.
    Waypoint,
}

/// The endpoint that takes the connection.
pub(super) struct Chosen<'a> {
    pub(super) endpoint: &'a Endpoint,
    /// Where the application (or waypoint) is.
    pub(super) hop: SocketAddr,
}

/// Picks one of the best endpoints at random, by capacity.
///
/// Endpoints on other networks are left out, because they cannot be reached yet.
pub(super) fn choose<'a>(
    endpoints: Endpoints<'a>,
    wanted: &Wanted<'_>,
    rng: &mut impl Rng,
) -> Result<Chosen<'a>, RouteError> {
    if wanted.purpose == Purpose::Service && !wanted.service.ports.contains_key(&wanted.port) {
        return Err(RouteError::NoSuchPort { service: wanted.service.key().clone(), port: wanted.port });
    }
    let drawn = if wanted.prefers_nobody() { draw(endpoints, wanted, rng) } else { None };
    drawn.or_else(|| survey(endpoints, wanted, rng)).ok_or_else(|| wanted.why_none(endpoints.all()))
}

/// Draws endpoints blindly until one will do, each with the chance its capacity gives it. Where most endpoints are
/// healthy and alike this ends at once, however many there are. Giving up says nothing about whether there is one, and
/// nothing that changes the shares of a survey.
fn draw<'a>(endpoints: Endpoints<'a>, wanted: &Wanted<'_>, rng: &mut impl Rng) -> Option<Chosen<'a>> {
    const DRAWS: usize = 8;
    let (list, heaviest) = (endpoints.all(), endpoints.heaviest());
    if list.is_empty() || heaviest == 0 {
        return None;
    }
    (0..DRAWS).find_map(|_| {
        let endpoint = &list[rng.random_range(0..list.len())];
        let taken = rng.random_range(0..heaviest) < endpoint.workload.capacity;
        let hop = if taken { wanted.candidate(endpoint)? } else { return None };
        Some(Chosen { endpoint, hop })
    })
}

/// Looks at all endpoints: once for the best rank and the capacity it has, once more for the one that was drawn.
fn survey<'a>(endpoints: Endpoints<'a>, wanted: &Wanted<'_>, rng: &mut impl Rng) -> Option<Chosen<'a>> {
    let mut best = None;
    let mut total: u64 = 0;
    for endpoint in endpoints.all() {
        let Some(rank) = wanted.candidate(endpoint).and_then(|_| wanted.rank(&endpoint.workload)) else { continue };
        if best.is_none_or(|best| rank > best) {
            best = Some(rank);
            total = 0;
        }
        if best == Some(rank) {
            total += u64::from(endpoint.workload.capacity);
        }
    }
    let mut at = if total == 0 { return None } else { rng.random_range(0..total) };
    for endpoint in endpoints.all() {
        let Some(hop) = wanted.candidate(endpoint) else { continue };
        if wanted.rank(&endpoint.workload) != best {
            continue;
        }
        let weight = u64::from(endpoint.workload.capacity);
        if at < weight {
            return Some(Chosen { endpoint, hop });
        }
        at -= weight;
    }
    None
}

/// The address at which a workload is dialled: the one the client named, if it is one of its own; else the first of
/// the client's family; else the first of the other.
pub(super) fn address(
    workload: &Workload,
    source: &Workload,
    families: Option<IpFamilies>,
    near: IpAddr,
) -> Result<IpAddr, RouteError> {
    if workload.network != source.network {
        return Err(RouteError::OtherNetwork { workload: workload.uid.clone(), network: workload.network.clone() });
    }
    if workload.addresses.contains(&near) {
        return Ok(near);
    }
    let allowed = |address: &&IpAddr| match families {
        None | Some(IpFamilies::Dual) => true,
        Some(IpFamilies::IPv4) => address.is_ipv4(),
        Some(IpFamilies::IPv6) => address.is_ipv6(),
    };
    let mut addresses = workload.addresses.iter().filter(allowed);
    let same_family = addresses.clone().find(|address| address.is_ipv4() == near.is_ipv4());
    match same_family.or_else(|| addresses.next()) {
        Some(&address) => Ok(address),
        None if workload.hostname.is_empty() => Err(RouteError::NoAddress(workload.uid.clone())),
        None => Err(RouteError::HostNameOnly { workload: workload.uid.clone(), hostname: workload.hostname.clone() }),
    }
}

impl Wanted<'_> {
    /// Where an endpoint would be dialled, if it can take the connection at all.
    fn candidate(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        let workload = &*endpoint.workload;
        if !self.service.takes(workload.status) || workload.capacity == 0 {
            return None;
        }
        let port = self.target_port(endpoint)?;
        let address = address(workload, self.source, self.service.ip_families, self.near).ok()?;
        Some(SocketAddr::new(address, port))
    }

    fn target_port(&self, endpoint: &Endpoint) -> Option<u16> {
        let of_service = self.service.ports.get(&self.port).copied();
        let tunnel = endpoint.workload.application_tunnel;
        if self.purpose == Purpose::Waypoint && of_service.is_none() && tunnel.is_none() {
            return None;
        }
        let fallback = || {
            let is_tunnelled = self.purpose == Purpose::Waypoint && tunnel.is_some_and(|tunnel| tunnel.port.is_some());
            is_tunnelled.then_some(self.port)
        };
        endpoint.ports.target(self.port).or_else(|| of_service.filter(|&port| port != 0)).or_else(fallback)
    }

    fn prefers_nobody(&self) -> bool {
        matches!(self.service.mode(), Mode::Standard | Mode::Passthrough)
    }

    /// How near an endpoint is by the service's preferences; none if it is not near enough.
    fn rank(&self, workload: &Workload) -> Option<usize> {
        if self.prefers_nobody() {
            return Some(0);
        }
        let preferences = self.service.preferences();
        let mut rank = 0;
        let mut matched = 0;
        for (place, &scope) in preferences.iter().enumerate() {
            let network_first = place == 0 && scope == Scope::Network;
            if shares(scope, self.source, workload) {
                matched += 1;
                // The own network outweighs everything that follows it.
                rank += if network_first { preferences.len() } else { 1 };
            } else if !network_first {
                break;
            }
        }
        if self.service.mode() == Mode::Strict && matched < preferences.len() { None } else { Some(rank) }
    }

    /// Why no endpoint can take the connection; the most telling reason.
    fn why_none(&self, endpoints: &[Endpoint]) -> RouteError {
        let usable = || endpoints.iter().filter(|endpoint| self.service.takes(endpoint.workload.status));
        let out_of_reach = usable()
            .filter(|endpoint| self.rank(&endpoint.workload).is_some())
            .find_map(|endpoint| address(&endpoint.workload, self.source, self.service.ip_families, self.near).err());
        out_of_reach.unwrap_or_else(|| RouteError::NoHealthyUpstream {
            service: self.service.key().clone(),
            port: self.port,
            endpoints: endpoints.len(),
            usable: usable().count(),
        })
    }
}

fn shares(scope: Scope, one: &Workload, other: &Workload) -> bool {
    match scope {
        Scope::Region => one.locality.region == other.locality.region,
        Scope::Zone => one.locality.zone == other.locality.zone,
        Scope::Subzone => one.locality.subzone == other.locality.subzone,
        Scope::Node => one.node == other.node,
        Scope::Cluster => one.cluster_id == other.cluster_id,
        Scope::Network => one.network == other.network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::sample::mesh;

    /// The ranks of endpoints named after what they share with the client: network, region, zone.
    fn ranks(balancer: &str) -> Vec<(String, Option<usize>)> {
        let all = ["nrz", "nr", "n", "rz", "r", "x", "nz", "z"];
        let place = |same: &str| {
            let here = |letter: char| if same.contains(letter) { "here" } else { "there" };
            format!("network: {}, locality: {{region: {}, zone: {}}}", here('n'), here('r'), here('z'))
        };
        let lines: Vec<_> = all
            .iter()
            .map(|same| {
                format!("- {{uid: {same}, namespace: d, workloadIps: [], services: {{d/s: {{}}}}, {}}}", place(same))
            })
            .collect();
        let snapshot = mesh(&format!(
            "workloads:\n{}\n- {{uid: client, namespace: d, workloadIps: [], {}}}\nservices: [{{name: s, namespace: d, hostname: s, vips: [], ports: {{}}, loadBalancer: {balancer}}}]",
            lines.join("\n"),
            place("nrz")
        ));
        let service = snapshot.service("d/s").unwrap();
        let wanted = Wanted {
            service,
            source: snapshot.workload("client").unwrap(),
            port: 80,
            near: [10, 0, 0, 1].into(),
            purpose: Purpose::Service,
        };
        let rank = |uid: &&str| ((*uid).to_owned(), wanted.rank(snapshot.workload(uid).unwrap()));
        all.iter().map(rank).collect()
    }

    fn expect(balancer: &str, expected: [(&str, Option<usize>); 8]) {
        let expected: Vec<_> = expected.iter().map(|&(uid, rank)| (uid.to_owned(), rank)).collect();
        assert_eq!(ranks(balancer), expected, "{balancer}");
    }

    #[test]
    fn the_own_network_first_outweighs_everything_behind_it() {
        let [five, four, three, two, one, none] = [5, 4, 3, 2, 1, 0].map(Some);
        expect(
            "{mode: Failover, routingPreferences: [Network, Region, Zone]}",
            [
                ("nrz", five),
                ("nr", four),
                ("n", three),
                ("rz", two),
                ("r", one),
                ("x", none),
                ("nz", three),
                ("z", none),
            ],
        );
    }

    #[test]
    fn elsewhere_the_first_mismatch_ends_the_count() {
        let [three, two, one, none] = [3, 2, 1, 0].map(Some);
        expect(
            "{mode: Failover, routingPreferences: [Region, Network, Zone]}",
            [("nrz", three), ("nr", two), ("n", none), ("rz", one), ("r", one), ("x", none), ("nz", none), ("z", none)],
        );
    }

    #[test]
    fn strict_wants_every_preference() {
        expect(
            "{mode: Strict, routingPreferences: [Network, Region]}",
            [
                ("nrz", Some(3)),
                ("nr", Some(3)),
                ("n", None),
                ("rz", None),
                ("r", None),
                ("x", None),
                ("nz", None),
                ("z", None),
            ],
        );
    }

    #[test]
    fn without_a_mode_all_are_alike() {
        assert!(ranks("{routingPreferences: [Region]}").iter().all(|(_, rank)| *rank == Some(0)));
    }
}
