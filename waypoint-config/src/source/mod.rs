// SPDX-License-Identifier: Apache-2.0
//! Where objects come from.
