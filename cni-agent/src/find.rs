// SPDX-License-Identifier: Apache-2.0
//! Finds the network namespace of a running pod.
