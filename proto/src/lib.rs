// SPDX-License-Identifier: Apache-2.0
//! The contract: what two parties of the mesh must agree on.
