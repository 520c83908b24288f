// SPDX-License-Identifier: Apache-2.0
//! See `bodies::hbone::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::hbone::frames(input));
