// SPDX-License-Identifier: Apache-2.0
//! The discovery server.
