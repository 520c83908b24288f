// SPDX-License-Identifier: Apache-2.0
//! Workload certificates: which identity when, and the calls that fetch them.
