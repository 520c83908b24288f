// SPDX-License-Identifier: Apache-2.0
//! What the room promises, one file for each concern.

mod lookups;
mod messages;
mod random;
mod refusals;
mod text_forms;
