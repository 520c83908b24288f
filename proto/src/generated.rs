// SPDX-License-Identifier: Apache-2.0
//! The code `build.rs` makes of `api/*.proto`. The modules lie side by side as the protobuf packages do, because generated paths go through `super`.

/// Package `istio.workload`: what the control plane says about endpoints and services.
#[allow(clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub, missing_docs)]
#[allow(clippy::use_self, clippy::wildcard_imports)]
pub mod workload {
    include!(concat!(env!("OUT_DIR"), "/istio.workload.rs"));
}

/// Package `istio.security`: who may connect to what.
#[allow(clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub, missing_docs)]
#[allow(clippy::use_self, clippy::wildcard_imports)]
pub mod security {
    include!(concat!(env!("OUT_DIR"), "/istio.security.rs"));
}

/// Package `istio.workload.zds`: what the node agent says to the node proxy; re-exported by [`crate::zds`].
#[allow(clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub, missing_docs)]
#[allow(clippy::use_self, clippy::wildcard_imports)]
pub mod zds {
    include!(concat!(env!("OUT_DIR"), "/istio.workload.zds.rs"));
}

/// Package `istio.v1.auth`: certificates for workloads.
#[allow(clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub, missing_docs)]
#[allow(clippy::use_self, clippy::wildcard_imports)]
pub mod ca {
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.rs"));
}
