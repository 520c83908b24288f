// SPDX-License-Identifier: Apache-2.0
//! See `bodies::choices::mesh`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::choices::mesh(input));
