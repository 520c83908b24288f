// SPDX-License-Identifier: Apache-2.0
//! The test world: nodes and pods out of network namespaces.
