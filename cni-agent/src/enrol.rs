// SPDX-License-Identifier: Apache-2.0
//! Which pods are in the mesh, and why.
