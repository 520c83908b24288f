// SPDX-License-Identifier: Apache-2.0
//! See `bodies::zds::proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::zds::proxy(input));
