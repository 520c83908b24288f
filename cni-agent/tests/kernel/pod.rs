// SPDX-License-Identifier: Apache-2.0
//! A pod to try rules in: a network namespace with both address families, on a wire to the "node", which is the test process's own namespace.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cni_agent::rules::in_netns;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

pub(crate) const NODE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1))];
pub(crate) const POD: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2))];

/// A pod's network namespace.
pub(crate) struct Pod {
    netns: OwnedFd,
}

impl AsFd for Pod {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

impl Pod {
    /// A namespace with nothing but its loopback interface.
    pub(crate) fn bare() -> Self {
        let pod = Self::down();
        pod.run(|| with_rtnetlink(async |handle| up(&handle, "lo").await));
        pod
    }

    /// A namespace as the kernel makes it.
    pub(crate) fn down() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Self { netns: std::thread::spawn(make).join().unwrap().into() }
    }

    /// A pod on a wire to the node.
    pub(crate) fn wired() -> Self {
        let pod = Self::bare();
        with_rtnetlink(async |handle| up(&handle, "lo").await);
        pod.wire("eth0", NODE, POD);
        pod.run(|| {
            with_rtnetlink(async |handle| {
                let [IpAddr::V4(v4), IpAddr::V6(v6)] = NODE else { unreachable!("one of each family") };
                handle.route().add(RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build()).execute().await.unwrap();
                handle.route().add(RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build()).execute().await.unwrap();
            });
        });
        pod
    }

    /// Adds a wire with an interface of this name in the pod.
    pub(crate) fn wire(&self, name: &str, node: [IpAddr; 2], pod: [IpAddr; 2]) {
        let outside = format!("{name}-node");
        with_rtnetlink(async |handle| {
            handle.link().add(LinkVeth::new(&outside, name).build()).execute().await.unwrap();
            let inside = LinkUnspec::new_with_name(name).setns_by_fd(self.netns.as_raw_fd()).build();
            handle.link().set(inside).execute().await.unwrap();
            up(&handle, &outside).await;
            for address in node {
                add_address(&handle, &outside, address).await;
            }
        });
        self.run(|| {
            with_rtnetlink(async |handle| {
                up(&handle, name).await;
                for address in pod {
                    add_address(&handle, name, address).await;
                }
            });
        });
    }

    /// Runs something in the pod.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(self.as_fd(), work).unwrap()
    }
}

/// Adds an address to the node's loopback interface.
pub(crate) fn add_node_address(address: IpAddr) {
    with_rtnetlink(async |handle| add_address(&handle, "lo", address).await);
}

async fn up(handle: &Handle, name: &str) {
    handle.link().set(LinkUnspec::new_with_name(name).up().build()).execute().await.unwrap();
}

/// Usable at once: without duplicate address detection.
async fn add_address(handle: &Handle, interface: &str, address: IpAddr) {
    let length = if interface == "lo" {
        if address.is_ipv4() { 32 } else { 128 }
    } else if address.is_ipv4() {
        24
    } else {
        64
    };
    let mut request = handle.address().add(if_nametoindex(interface).unwrap(), address, length);
    if address.is_ipv6() {
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    request.execute().await.unwrap();
}

fn with_rtnetlink<T>(work: impl AsyncFnOnce(Handle) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        runtime.spawn(connection);
        work(handle).await
    })
}
