// SPDX-License-Identifier: Apache-2.0
//! See `bodies::mesh::resources`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::mesh::resources(input));
