// SPDX-License-Identifier: Apache-2.0
//! A node: a network namespace with a link to the other node (the wire), one to the control plane, and one to each of its pods.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, anyhow};

use crate::{netns::Netns, runtime::Runtime};

/// The link between the two nodes, by its name on either.
pub const WIRE: &str = "wire";
/// Address of the control plane, the same from every node.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);

/// One of the two nodes.
#[derive(Debug)]
pub struct Node {
    /// `n1` or `n2`.
    pub name: String,
    /// Its network.
    pub netns: Netns,
    /// Its CNI folders.
    pub runtime: Runtime,
    /// Sockets and such; gone with the world.
    pub folder: PathBuf,
    number: u8,
    leases: Mutex<Leases>,
}

/// The last byte of the addresses of pods, which are given out in turn: a pod that is gone leaves traces for a while.
#[derive(Debug, Default)]
struct Leases {
    last: u8,
    taken: BTreeSet<u8>,
}

impl Leases {
    const FIRST: u8 = 10;
    const LAST: u8 = 254;

    fn take(&mut self) -> Option<u8> {
        let after = self.last.clamp(Self::FIRST - 1, Self::LAST);
        let free = (after + 1..=Self::LAST).chain(Self::FIRST..=after).find(|host| !self.taken.contains(host))?;
        self.taken.insert(free);
        self.last = free;
        Some(free)
    }
}

impl Node {
    /// Makes node `number` and its link to the control plane's network.
    pub(crate) fn create(number: u8, control: &Netns) -> Result<Self> {
        let name = format!("n{number}");
        let netns = Netns::create(&name)?;
        let folder = PathBuf::from("/run/lateen").join(&name);
        fs::create_dir_all(&folder)?;
        forwarding(&netns)?;
        control.ip(&format!("link add {name} type veth peer name control netns {name}"))?;
        control.ip(&format!(
            "link set {name} up\naddr add 172.20.{number}.1/24 dev {name}\nroute add 10.244.{number}.0/24 via 172.20.{number}.2"
        ))?;
        netns.ip(&format!(
            "link set control up\naddr add 172.20.{number}.2/24 dev control\nroute add {CONTROL}/32 via 172.20.{number}.1"
        ))?;
        let runtime = Runtime::create(&folder)?;
        Ok(Self { name, netns, runtime, folder, number, leases: Mutex::default() })
    }

    /// Lays the wire between two nodes.
    pub(crate) fn join(&self, other: &Self) -> Result<()> {
        self.netns.ip(&format!("link add {WIRE} type veth peer name {WIRE} netns {}", other.name))?;
        for (here, there) in [(self, other), (other, self)] {
            let (here, there) = (here.number, there.number);
            let lines = format!(
                "link set {WIRE} up\n\
                 addr add 172.18.0.{here}/24 dev {WIRE}\n\
                 addr add fd00:172:18::{here}/64 dev {WIRE} nodad\n\
                 route add 10.244.{there}.0/24 via 172.18.0.{there}\n\
                 route add fd00:10:244:{there}::/64 via fd00:172:18::{there}\n"
            );
            if here == self.number { &self.netns } else { &other.netns }.ip(&lines)?;
        }
        Ok(())
    }

    /// The node's own address on the wire.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(172, 18, 0, self.number).into()
    }

    /// The next free pair of pod addresses.
    pub(crate) fn lease(&self) -> Result<(Ipv4Addr, Ipv6Addr)> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let host = leases.take().ok_or_else(|| anyhow!("node {} has no address left for a pod", self.name))?;
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, self.number.into(), 0, 0, 0, host.into());
        Ok((Ipv4Addr::new(10, 244, self.number, host), v6))
    }

    /// Takes back the addresses of a pod that is gone.
    pub(crate) fn release(&self, v4: Ipv4Addr) {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&v4.octets()[3]);
    }

    /// The primary network plugin's part: a link between the node and a pod, addresses, routes.
    pub(crate) fn connect(&self, pod: &Netns, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<String> {
        let link = format!("p{}", v4.octets()[3]);
        let (gateway4, gateway6) = (self.gateway4(), self.gateway6());
        pod.ip(&format!(
            "link add eth0 type veth peer name {link} netns {}\n\
             addr add {v4}/32 dev eth0\n\
             addr add {v6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {gateway4}/32 dev eth0 scope link\n\
             route add default via {gateway4}\n\
             route add {gateway6}/128 dev eth0\n\
             route add default via {gateway6}\n",
            self.name
        ))?;
        self.netns
            .ip(&format!(
                "link set {link} up\n\
                 addr add {gateway4}/32 dev {link}\n\
                 addr add {gateway6}/128 dev {link} nodad\n\
                 route add {v4}/32 dev {link}\n\
                 route add {v6}/128 dev {link}\n"
            ))
            .context("the node's end of a pod's link")?;
        Ok(link)
    }

    /// The address pods of this node see as their gateway.
    #[must_use]
    pub fn gateway4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, 1)
    }

    /// Its IPv6 twin.
    #[must_use]
    pub fn gateway6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, self.number.into(), 0, 0, 0, 1)
    }
}

/// Lets packets for others through.
pub(crate) fn forwarding(netns: &Netns) -> Result<()> {
    netns.sysctl("net/ipv4/ip_forward", "1")?;
    netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    netns.sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    netns.sysctl("net/ipv4/conf/default/rp_filter", "0")
}
