// SPDX-License-Identifier: Apache-2.0
//! See `bodies::packets::packets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::packets::packets(input));
