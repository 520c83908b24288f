// SPDX-License-Identifier: Apache-2.0
//! The socket ztunnel connects to.
