// SPDX-License-Identifier: Apache-2.0
//! Builds the program from its configuration.
