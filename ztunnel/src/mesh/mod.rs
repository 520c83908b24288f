// SPDX-License-Identifier: Apache-2.0
//! What the node knows of the mesh: workloads, services, policies, and the store that publishes snapshots.
