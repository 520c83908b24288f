// SPDX-License-Identifier: Apache-2.0
//! Services, workloads and policies resolved into one snapshot.
