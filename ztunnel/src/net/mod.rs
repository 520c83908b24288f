// SPDX-License-Identifier: Apache-2.0
//! Sockets and network namespaces.
