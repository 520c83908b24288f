// SPDX-License-Identifier: Apache-2.0
//! When a request is tried again, and how long each try may take.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::route::v3::{
        RetryPolicy,
        retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate::ConfigType},
    },
    extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate,
};
use mesh_proto::discovery::pack;

use super::values::{duration, uint32};
use crate::view::rule::Retry;

/// Failures after which nothing was done yet, and the two of gRPC that say so.
const CONDITIONS: &str = "connect-failure,refused-stream,unavailable,cancelled";
/// What whoever asks for retries gets beside these, as the Gateway API wants it: broken connections and tries that took too long. On the way through a tunnel
/// an endpoint that cannot be reached looks like the former.
const ASKED_CONDITIONS: &str = "connect-failure,refused-stream,unavailable,cancelled,reset";
/// Istio's default of the mesh.
const DEFAULT_ATTEMPTS: u32 = 2;
/// How often another host is looked for before the same is tried again.
const HOST_ATTEMPTS: i64 = 5;

/// `None`: nothing is tried again.
pub(super) fn policy(retry: Option<&Retry>, backend_timeout: Option<Duration>) -> Option<RetryPolicy> {
    let (attempts, codes, back_off) = match retry {
        Some(retry) if retry.attempts == 0 => return None,
        Some(retry) => (retry.attempts, retry.codes.iter().map(|code| (*code).into()).collect(), retry.backoff),
        None => (DEFAULT_ATTEMPTS, Vec::new(), None),
    };
    let conditions = if retry.is_some() { ASKED_CONDITIONS } else { CONDITIONS };
    Some(RetryPolicy {
        retry_on: format!("{conditions},retriable-status-codes"),
        num_retries: uint32(attempts),
        per_try_timeout: backend_timeout.filter(|timeout| !timeout.is_zero()).map(duration),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(ConfigType::TypedConfig(pack(&PreviousHostsPredicate {}))),
        }],
        host_selection_retry_max_attempts: HOST_ATTEMPTS,
        retriable_status_codes: codes,
        retry_back_off: back_off
            .filter(|interval| !interval.is_zero())
            .map(|interval| RetryBackOff { base_interval: Some(duration(interval)), max_interval: None }),
        ..RetryPolicy::default()
    })
}
