// SPDX-License-Identifier: Apache-2.0
//! Snapshot to workload and authorization resources.
