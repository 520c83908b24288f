// SPDX-License-Identifier: Apache-2.0
//! The rules of a pod in a real kernel: written, read back, tampered with, released; and what they do to real connections.
//!
//! Each test runs in a process of its own, in user and network namespaces of its own. No root is needed where user namespaces are allowed; elsewhere the
//! tests say so and are counted as skipped.

// A test that panics has failed.
#![allow(clippy::unwrap_used)]

mod foreign;

mod pod;
mod programs;
mod raw;
mod rules;
mod runner;
mod tcp;
mod traffic;

use std::process::ExitCode;

use runner::{Test, test};

fn main() -> ExitCode {
    runner::main(&[rules::TESTS, foreign::TESTS, traffic::TESTS, &programs::tests()].concat())
}

/// A test with the name of its function.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::Test] = &[$($crate::test(stringify!($name), $name)),*];
    };
}
