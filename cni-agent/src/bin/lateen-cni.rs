// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin.

fn main() {}
