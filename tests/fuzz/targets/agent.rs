// SPDX-License-Identifier: Apache-2.0
//! See `cni_agent::zds::fuzz::agent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cni_agent::zds::fuzz::agent(input));
