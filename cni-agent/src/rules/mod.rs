// SPDX-License-Identifier: Apache-2.0
//! The rules and routes inside a pod.
