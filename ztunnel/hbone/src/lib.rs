// SPDX-License-Identifier: Apache-2.0
//! The HBONE protocol as a state machine without I/O.
