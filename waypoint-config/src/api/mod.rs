// SPDX-License-Identifier: Apache-2.0
//! Serde types of the Istio kinds.
