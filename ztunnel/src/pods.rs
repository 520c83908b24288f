// SPDX-License-Identifier: Apache-2.0
//! Enrolled pods: starts and stops their listeners.
