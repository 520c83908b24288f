// SPDX-License-Identifier: Apache-2.0
//! The control plane.

fn main() {}
