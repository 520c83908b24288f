// SPDX-License-Identifier: Apache-2.0
//! The plugin's binary and conflist entry on the node.
