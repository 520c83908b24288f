// SPDX-License-Identifier: Apache-2.0
//! The agent's side of the CNI plugin's socket.
