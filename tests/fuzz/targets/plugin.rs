// SPDX-License-Identifier: Apache-2.0
//! See `bodies::plugin::plugin`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::plugin::plugin(input));
