// SPDX-License-Identifier: Apache-2.0
//! Pure decisions: one snapshot in, one whole decision out.
